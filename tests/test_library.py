"""The package as a library: its public names, their examples, and that it leaves the caller's Hydra alone."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase

import noise_reg
from noise_reg import library, own_model
from noise_reg.errors import UserError
from tests.composed import job

SMALL = ("dataset=digits", "arch=fc_small", "max_epochs=2")


@pytest.mark.parametrize("module", [library, own_model])
def test_the_examples_in_docstrings_hold(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert not failed


def test_every_public_name_is_there_and_documented() -> None:
    for name in noise_reg.__all__:
        found = getattr(noise_reg, name)
        assert name == "__version__" or found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        noise_reg.nonsense  # noqa: B018


def test_run_spec_is_the_run_that_the_script_trains() -> None:
    overrides = (*SMALL, "regularizer=full_ninr_decay", "seed=4")
    assert noise_reg.run_spec(*overrides) == job(*overrides).spec


@pytest.mark.parametrize(
    ("override", "message"),
    [("datset=digits", "datset"), ("seed=-1", "seed = -1"), ("regularizer=dropuot", "dropuot"), ("seed={}", "seed")],
)
def test_a_wrong_override_is_a_user_error(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        noise_reg.run_spec(override)


def test_a_running_hydra_application_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("answer: 42\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        running, base = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
        assert noise_reg.run_spec(*SMALL).arch.name == "fc"
        with pytest.raises(UserError):
            noise_reg.run_spec("nonsense=1")
        assert GlobalHydra.instance().hydra is running
        assert VersionBase.instance().getbase() == base
        assert hydra.compose("mine").answer == 42
    noise_reg.run_spec(*SMALL)
    assert not GlobalHydra.instance().is_initialized()


def test_runs_come_back_in_order_the_same_with_a_store_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    specs = [
        noise_reg.run_spec(*SMALL, f"regularizer={method}", f"seed={seed}", f"arch.widths={widths}")
        for seed, (method, widths) in enumerate([("dropout", [9]), ("none", [8, 8]), ("none", [9])])
    ]
    runs = noise_reg.train_stack(specs, device="cpu")
    assert not list(tmp_path.iterdir())
    assert [run.spec for run in runs] == specs
    assert [run.record["method"] for run in runs] == ["dropout_0.5", "none", "none"]
    kept = noise_reg.train_stack(specs, device="cpu", store="runs", methods=["a", "b", "c"])
    store = noise_reg.Store("runs")
    assert list(store.runs().set_index("key").loc[[spec.key for spec in specs], "method"]) == ["a", "b", "c"]
    for run, same in zip(runs, kept, strict=True):
        assert run.history.equals(same.history)
        assert all(np.array_equal(value, same.weights[name]) for name, value in run.weights.items())
        pixels = torch.rand(3, 1, 8, 8)
        assert torch.equal(run.model()(pixels), store.model(run.spec.key)(pixels))


def test_a_method_too_few_is_a_user_error() -> None:
    with pytest.raises(UserError, match="one a run"):
        noise_reg.train_stack([noise_reg.run_spec(*SMALL)], methods=[])


def test_an_artefact_is_reproduced_from_python(tmp_path: Path) -> None:
    where = [f"store={tmp_path}/runs", f"results={tmp_path}/results", "wandb=disabled", "device=cpu", "workers=1"]
    small = ["preset.panels.fc.seeds=1", "preset.panels.fc.overrides=['max_epochs=1']", "corruption.draws=1"]
    small += ["artefact.methods=[['regularizer=none']]", "artefact.second_readings=[]"]
    folder = noise_reg.reproduce("demo", "preset=demo", *where, *small)
    assert folder is not None and (folder / "runs.csv").is_file()
    with pytest.raises(UserError, match="fig99"):
        noise_reg.reproduce("fig99")
