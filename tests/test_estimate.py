"""A plan says what will be done and, within a factor, how long it takes; a progress bar expects what such runs took."""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tqdm import tqdm

from noise_reg.config import Job
from noise_reg.estimate import Estimate, estimate
from noise_reg.pipeline import Pipeline
from noise_reg.progress import EpochBar
from noise_reg.store import Store
from noise_reg.usual_epochs import Ended, UsualEpochs, mean_epochs
from tests.composed import SMALL, job

FACTOR = 3


def silent(line: str) -> None:
    pass


def jobs(store: Path, *overrides: str) -> list[Job]:
    found = []
    for method in ("none", "dropout"):
        first = job(*SMALL, f"store={store}", f"regularizer={method}", "workers=1", "stop_accuracy=1", *overrides)
        found += [dataclasses.replace(first, spec=first.spec.replace(seed=seed)) for seed in range(3)]
    return found


def with_draws(wanted: list[Job], draws: int) -> list[Job]:
    (corruption,) = wanted[0].evaluations
    assert hasattr(corruption, "draws")
    return [dataclasses.replace(j, evaluations=(dataclasses.replace(corruption, draws=draws),)) for j in wanted]  # type: ignore[arg-type]


def planned(wanted: list[Job], results: Path) -> tuple[Estimate, float, float]:
    """The plan, the seconds it took, and those of what it is of."""
    pipeline = Pipeline(wanted[0].runtime, silent)
    pipeline.data(wanted[0].spec)
    started = time.perf_counter()
    plan = estimate(pipeline, wanted, results)
    between = time.perf_counter()
    pipeline.complete(wanted, "test", [])
    return plan, between - started, time.perf_counter() - between


def holds_once(attempt: Callable[[Path], bool], tmp_path: Path) -> None:
    """Other processes may disturb one measurement."""
    assert any(attempt(tmp_path / str(n)) for n in range(4))


def test_a_plan_costs_little_and_is_right_within_a_factor(tmp_path: Path) -> None:
    def attempt(place: Path) -> bool:
        plan, probing, took = planned(jobs(place, "max_epochs=150", "corruption.draws=3"), place)
        assert (plan.needed, plan.found, plan.evaluations) == (6, 0, 6)
        return took / FACTOR < plan.expected < took * FACTOR and probing < took / 3

    holds_once(attempt, tmp_path)


def test_evaluations_alone_are_planned_and_timed(tmp_path: Path) -> None:
    wanted = jobs(tmp_path, "max_epochs=1", "corruption.draws=1")
    planned(wanted, tmp_path)
    draws = iter((40, 41, 42, 43))

    def attempt(place: Path) -> bool:
        plan, _, took = planned(with_draws(wanted, next(draws)), place)
        assert (plan.found, plan.stacks, plan.evaluations) == (6, 0, 6)
        assert "6 evaluations" in plan.range
        return took / FACTOR < plan.expected < took * FACTOR

    holds_once(attempt, tmp_path)


def test_a_plan_of_nothing_says_so_and_times_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = jobs(tmp_path, "max_epochs=1", "corruption.draws=1")
    planned(wanted, tmp_path)
    monkeypatch.setattr("noise_reg.probe.new_stack", lambda *_: pytest.fail("timed something"))
    plan = estimate(Pipeline(wanted[0].runtime, silent), wanted, tmp_path)
    assert (plan.expected, plan.range) == (0, "nothing to train or to evaluate")


def test_what_such_runs_took_is_expected(tmp_path: Path) -> None:
    """Of stored runs that differ in their seed alone; else of committed rows of the method; else nothing is."""
    wanted = jobs(
        tmp_path / "store",
        "max_epochs=500",
        "corruption.draws=1",
        "reading.train_fraction=0.1",
        "optimizer.batch_size=20",
    )
    spec = wanted[0].spec
    assert UsualEpochs(Store(tmp_path / "store"), tmp_path).of(spec, "none") is None
    row = {"key": "a", "dataset": "digits", "arch": spec.arch.name, "method": "none", "epochs": 33, "max_epochs": 100}
    folder = tmp_path / "made"
    folder.mkdir()
    pd.DataFrame([row | {"stopped_by": "accuracy"}]).to_csv(folder / "runs.csv")
    assert UsualEpochs(Store(tmp_path / "store"), tmp_path).of(spec, "none") == 33
    records = Pipeline(wanted[0].runtime, silent).complete(wanted[:2], "test", [])
    taken = [record["epochs"] for record in records]
    usual = UsualEpochs(Store(tmp_path / "store"), tmp_path)
    assert max(taken) < 500 and usual.of(spec, "none") == sum(taken) / 2
    assert usual.of(spec.replace(max_epochs=3), "none") == 3
    assert usual.of(spec.replace(optimizer=dataclasses.asdict(spec.optimizer) | {"batch_size": 30}), "none") == 33


def test_runs_that_were_cut_short_do_not_pass_for_short_ones() -> None:
    assert mean_epochs([Ended(5, False)] * 4, 500) is None
    assert mean_epochs([Ended(5, False)] * 4, 5) == 5
    assert mean_epochs([Ended(60, False), Ended(40, True)], 500) == 100
    assert mean_epochs([Ended(60, True), Ended(40, True)], 50) == 45


def test_a_bar_expects_what_such_runs_took_and_says_at_most_where_it_does_not_know(tmp_path: Path) -> None:
    specs = [j.spec for j in jobs(tmp_path, "max_epochs=100")[:3]]
    shown = tqdm(total=0, file=io.StringIO(), bar_format="")
    bar = EpochBar(shown, specs, UsualEpochs(Store(tmp_path), tmp_path), lambda key: "none")
    assert shown.total == 300 and "at most" in str(shown)
    bar.begin("stack", specs, 0)
    for _ in range(10):
        bar.step("stack")
    bar.end("stack", {specs[0].key: True})
    assert (shown.n, shown.total) == (30, 30) and "at most" not in str(shown)  # the others are expected to end now
    bar.step("stack")
    assert (shown.n, shown.total) == (32, 32)  # they go on
    bar.end("stack", {specs[1].key: True, specs[2].key: True})
    assert (shown.n, shown.total) == (32, 32)
    shown.close()
