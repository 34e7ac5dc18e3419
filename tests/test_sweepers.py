"""A sweeper that searches gets an objective of every run: validation accuracy unless told otherwise, the worst of a diverged one."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from noise_reg import sweep
from noise_reg.errors import UserError
from noise_reg.spec import SpecError
from noise_reg.store import Store
from noise_reg.sweep_folder import sweep_folder
from tests.composed import SMALL, composed
from tests.forked import run_script

OPTUNA = importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None
TINY = [*SMALL, "max_epochs=1", "reading=exact_loss", "workers=1"]


@pytest.fixture
def searching() -> Iterator[None]:
    """As Hydra's configuration is while a sweeper that chooses by what runs return launches them."""
    holder: Any = HydraConfig.instance()
    before = holder.cfg
    sweeper = {"_target_": "some.Sweeper", "direction": "maximize"}
    holder.cfg = OmegaConf.create({"hydra": {"mode": RunMode.MULTIRUN, "sweeper": sweeper}})
    yield
    holder.cfg = before


def objectives(store: Path, *overrides: str) -> list[float]:
    with composed("train", *TINY, f"store={store}", *overrides) as cfg:
        return sweep.train_jobs([cfg])


@pytest.mark.usefixtures("searching")
def test_the_objective_of_a_search_is_validation_accuracy_unless_another_is_asked_for(tmp_path: Path) -> None:
    (validation,), (test,), (train,) = (
        objectives(tmp_path, *own) for own in ([], ["objective=test_accuracy"], ["objective=train_accuracy"])
    )
    store = Store(tmp_path)
    (run,) = store.runs().to_dict("records")
    (stored,) = store.evaluations().query("evaluation == 'validation'")["accuracy"]
    assert (validation, test, train) == (stored, run["test_accuracy"], run["train_accuracy"])
    assert len({validation, test, train}) == 3


@pytest.mark.usefixtures("searching")
@pytest.mark.parametrize("objective", sweep.OBJECTIVES)
def test_a_diverged_run_has_the_worst_objective(objective: str, tmp_path: Path) -> None:
    assert objectives(tmp_path, "optimizer.learning_rate=1e30", f"objective={objective}") == [0.0]
    assert Store(tmp_path).runs()["status"].tolist() == ["diverged"]


@pytest.mark.usefixtures("searching")
def test_without_validation_images_the_setting_and_both_remedies_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"reading.train_fraction = 1 .*reading.train_fraction below 1 .*objective=test_acc"
    ):
        objectives(tmp_path, "reading.train_fraction=1")
    assert not (tmp_path / "runs").exists()
    assert objectives(tmp_path, "reading.train_fraction=1", "objective=test_accuracy")[0] > 0


@pytest.mark.usefixtures("searching")
def test_a_search_for_the_smallest_accuracy_is_refused(tmp_path: Path) -> None:
    HydraConfig.get().sweeper.direction = "minimize"
    with pytest.raises(UserError, match=r"hydra.sweeper.direction=maximize"):
        objectives(tmp_path)


def test_an_unknown_objective_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match="objective = loss: must be one of validation_accuracy, test_accuracy, train_acc"
    ):
        objectives(tmp_path, "objective=loss")


def test_a_single_run_needs_no_validation_images_and_measures_none(tmp_path: Path) -> None:
    assert math.isnan(objectives(tmp_path, "reading.train_fraction=1")[0])
    assert "validation" not in set(Store(tmp_path).evaluations()["evaluation"])


def test_the_basic_sweeper_runs_every_value_beside_a_diverged_one(tmp_path: Path) -> None:
    done = run_script("train.py", "-m", *TINY, f"store={tmp_path}", "optimizer.learning_rate=1e30,0.05", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert sorted(Store(tmp_path).runs()["status"]) == ["completed", "completed", "diverged", "diverged"]
    assert (tmp_path / "hydra" / "multirun.yaml").exists()


@pytest.mark.skipif(not OPTUNA, reason="needs the extra 'sweepers'")
def test_optuna_searches_past_a_diverged_trial_and_writes_what_it_found(tmp_path: Path) -> None:
    search = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.n_trials=6",
        "hydra.sweeper.n_jobs=3",
    ]
    rates = "optimizer.learning_rate=choice(1e30,0.05,0.1)"
    seed = "hydra.sweeper.sampler.seed=1"
    quiet = lambda: warnings.simplefilter("ignore")  # optuna 2 uses what later Pythons deprecate
    done = run_script("train.py", "-m", *search, seed, *TINY, rates, f"store={tmp_path}", first=quiet)
    assert done.returncode == 0, done.stderr
    runs, found = Store(tmp_path).runs(), yaml.safe_load((tmp_path / "hydra" / "optimization_results.yaml").read_text())
    assert "diverged" in set(runs["status"])
    validation = Store(tmp_path).evaluations().query("evaluation == 'validation'")["accuracy"]
    assert found["best_value"] == validation.max() > 0
    assert found["best_params"]["optimizer.learning_rate"] in (0.05, 0.1)


def test_a_sweeps_folder_is_in_the_store_or_where_that_cannot_be_written_a_temporary_one(tmp_path: Path) -> None:
    assert sweep_folder(str(tmp_path)) == str(tmp_path / "hydra")
    for store in ("/dev/null", "/proc", None, "a\0b"):
        assert str(sweep_folder(store)).startswith(str(Path(sweep_folder(None)))), store
