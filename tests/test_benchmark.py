"""The benchmark refuses to time what computes something else, and reports what it measured."""

from __future__ import annotations

import dataclasses
import platform
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch

from noise_reg.bench import loops, plain
from noise_reg.bench.floor import Products
from noise_reg.bench.loader import LoaderLoop
from noise_reg.bench.loops import PlainLoop
from noise_reg.bench.report import Job, machine, summary
from noise_reg.bench.work import Workload, load_or_make
from noise_reg.benchmark import Settings, benchmark, guard, peak_memory, read_settings
from noise_reg.benchmark import gate as gate_of
from noise_reg.data import DataError
from noise_reg.errors import UserError
from tests.composed import composed
from tests.forked import run_script

TINY = [
    "preset=smoke",
    "device=cpu",
    "jobs=[digits]",
    "presets.smoke.steps.digits=1",
    "repeats=2",
    "job.digits.seeds=2",
    'job.digits.overrides=["dataset=digits","arch=fc_small","arch.widths=[16]","optimizer.batch_size=8"]',
]
CNN = 'job.digits.overrides=["dataset=digits","arch=cnn_small","noise=cnn_small_sgd","optimizer.batch_size=8"]'


def settings(*overrides: str) -> Settings:
    with composed("benchmark", *TINY, *overrides) as cfg:
        return read_settings(cfg)


def gate(chosen: Settings) -> dict[str, float]:
    return gate_of(chosen.recipes[0], chosen.contenders, chosen.gate_steps)


def made_table(ratio: float) -> pd.DataFrame:
    return pd.DataFrame([{"job": "fc", "contender": "f", "best_ratio": ratio}])


def test_all_contenders_are_timed_against_the_plain_loop_and_the_floor(tmp_path: Path) -> None:
    with composed(
        "benchmark", *TINY, "contenders=[a,b,c,d,e,f,g]", f"results={tmp_path}", "name=smoke", "guard=false"
    ) as cfg:
        benchmark(cfg)
    (folder,) = (tmp_path / "benchmark").iterdir()
    assert folder.name == f"{machine('cpu')}-smoke"
    raw, table = (pd.read_csv(folder / name) for name in ("repeats.csv", "benchmark.csv"))
    assert list(table["contender"]) == ["a", "b", "d", "e", "f", "g", "floor_fp32", "floor_bf16"]
    assert list(table["runs_timed"].drop(3)) == [9, 9, 18, 18, 18, 18, 18]
    assert 9 <= table["runs_timed"][3] <= 18  # as many as keep the cores equally busy
    assert (raw.groupby("contender").size() == 2).all() and (raw["seconds"] > 0).all()
    text = (folder / "benchmark.md").read_text()
    assert "(b) plain loop, tensors in memory" in text and "9 of 18" in text and f"torch {version('torch')}" in text
    assert not re.search(rf"\b{re.escape(platform.node())}\b", text)
    assert "(c) plain loop, each step a CUDA graph, in digits: CUDA graphs are CUDA's, the device is cpu" in text
    assert "Jobs left out for time: fc, fc_10, fc_90, cnn" in text and "(benchmark.png)" in text
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG") and (folder / "benchmark.svg").exists()
    evaluations = pd.read_csv(folder / "evaluations.csv")
    assert evaluations["evaluation"].tolist() == ["corruption", "pgd"] * 2
    assert evaluations["ratio"].to_numpy() == pytest.approx(evaluations["seconds"] / evaluations["product_seconds"])
    assert "pgd: " in text and "times its bare products" in text


@pytest.mark.parametrize("network", [(), (CNN,)], ids=["fc", "cnn"])
def test_the_gate_lets_pass_what_ends_in_the_plain_loops_weights(network: tuple[str, ...]) -> None:
    chosen = settings("contenders=[a,b,f]", *network)
    deviations = gate(chosen)
    assert list(deviations) == ["a", "b", "f"]
    assert deviations["f"] < 1e-10


@pytest.mark.parametrize("method", ["none", "full_ninr_decay"])
def test_the_gate_stops_a_contender_that_trains_otherwise(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings("contenders=[b,f]", f'job.digits.methods=[["regularizer={method}"]]')
    honest = plain.plain_optimizer

    def hurried(named: Iterable[tuple[str, torch.Tensor]], spec: plain.RunSpec) -> torch.optim.SGD:
        faster = dataclasses.replace(spec.optimizer, learning_rate=spec.optimizer.learning_rate * (1 + 1e-6))
        return honest(named, dataclasses.replace(spec, optimizer=faster))

    monkeypatch.setattr(loops, "plain_optimizer", hurried)
    with pytest.raises(UserError, match=r"gate: job digits, contender \(f\) ours deviates by (8|9)\.\de-07|1\.0e-06"):
        gate(chosen)


def test_the_guard_fails_below_four_fifths_of_the_recorded_ratio() -> None:
    guard(made_table(0.81), {"fc": {"f": 1.0}})
    with pytest.raises(UserError, match=r"slower than recorded: fc \(f\): 0\.79x the plain loop, recorded 1x"):
        guard(made_table(0.79), {"fc": {"f": 1.0}})


def test_a_guard_that_has_nothing_to_compare_fails() -> None:
    with pytest.raises(UserError, match="no ratio is recorded"):
        guard(made_table(1.0), {"cnn": {"f": 1.0}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "jobs=[fc,vgg]",
            r"jobs = .*: must be a list, each one of fc, fc_10, fc_90, cnn, cnn_10, cnn_90, tanh_mlp, .*digits",
        ),
        ("jobs=[]", "jobs = "),
        ("contenders=[b,z]", r"contenders = .*: must be a list, each one of a, b, c, d, e, f, g"),
        ("contenders=[f]", "contenders = .*: must hold b"),
        ("repeats=0", "repeats = 0: must be a whole number of at least 1"),
        ("presets.smoke.steps.digits=0", r"steps\.digits = 0"),
        ("preset=paper", "preset = paper: must be one of quick, smoke, full"),
        ("device=gpu", "device = gpu: must be one of auto, cpu, cuda"),
        ("device=cuda:99", "device = cuda:99: no such device here; must be one of auto, cpu"),
        ("presets.smoke.memory=[fcc]", r"memory = .*: must be a list, each one of fc, "),
        ("presets.smoke.cold.jobs=[digits]", r"cold\.jobs: digits has 9 methods, must have one"),
        ("presets.smoke.cold.repeats=0", r"cold\.repeats = 0"),
    ],
)
def test_impossible_settings_name_field_value_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(override)


def test_more_steps_than_images_is_a_user_error() -> None:
    (recipe,) = settings().recipes
    with pytest.raises(UserError, match=r"steps\.digits = 1000: needs 8000 training images"):
        Workload(dataclasses.replace(recipe, steps=1000)).data("fp32")


def test_the_loader_makes_the_batches_that_lie_in_memory() -> None:
    (recipe,) = settings().recipes
    work = Workload(dataclasses.replace(recipe, steps=3))
    order = plain.epoch_order(work.specs[0], work.samples, epoch=0)
    loaded, kept = (list(kind(work, "fp32", False).batches_of(order)) for kind in (LoaderLoop, PlainLoop))
    assert len(loaded) == len(kept) == 3
    for (x, y), (x_kept, y_kept) in zip(loaded, kept, strict=True):
        torch.testing.assert_close(x, x_kept)
        assert torch.equal(y, y_kept)


def test_the_floor_has_every_product_but_the_gradient_of_the_data_and_a_copy_of_each_weight() -> None:
    (recipe,) = settings("stack_size=10").recipes
    products = Products(Workload(recipe), "fp32").products
    assert len(products) == 2 * (2 * 3 - 1 + 2)  # 18 runs in stacks of 10 and 8, two layers


def test_random_images_stand_in_only_for_what_is_not_there(tmp_path: Path) -> None:
    made = load_or_make("fmnist", str(tmp_path))
    assert (made.provenance["source"], tuple(made.train_images.shape)) == ("synthetic", (60_000, 1, 28, 28))
    (tmp_path / "mnist.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"mnist\.npz"):
        load_or_make("mnist", str(tmp_path))


def test_ratios_are_formed_repeat_by_repeat() -> None:
    (recipe,) = settings().recipes
    times = {"b": [2.0, 4.0, 9.0], "f": [1.0, 2.0, 3.0], "floor_fp32": [0.5, 1.0, 1.0]}
    rows = pd.DataFrame(
        {"job": "digits", "contender": name, "repeat": i, "runs": 9, "steps": 1, "seconds": s, "cpu_seconds": s}
        for name, seconds in times.items()
        for i, s in enumerate(seconds)
    )
    row = summary(rows, [Job(recipe, "embedded", {}, {}, {"f": 300.0}, {"f": 3.0})]).set_index("contender").loc["f"]
    assert (row["ratio"], row["ratio_min"], row["ratio_max"]) == (2.0, 2.0, 3.0)
    assert (row["best_ratio"], row["floor_share"], row["peak_mib"]) == (2.0, 0.5, 300.0)


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    (recipe,) = settings().recipes
    ballast = torch.ones(1 << 28)  # 1 GiB here must not be counted there
    peak = peak_memory(recipe, ["f"])["f"]
    assert 50 < peak < 1024 < ballast.nbytes / (1 << 20) + 1


def test_a_machine_is_named_by_its_kind() -> None:
    assert re.fullmatch(r"cpu-\d+-[a-z0-9]+", machine("cpu"))


def test_a_mistake_ends_the_script_with_one_line_and_status_2() -> None:
    done = run_script("benchmark.py", "preset=smoke", "contenders=[f]")
    assert done.returncode == 2
    assert "contenders = ['f']: must hold b" in done.stderr and "Traceback" not in done.stderr
