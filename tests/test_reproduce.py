"""From an artefact's name to its folder: plan, runs, rows, figures, shares."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noise_reg.artefacts import redraw
from noise_reg.artefacts.rows import read_rows
from noise_reg.cli.reproduce import reproduce
from noise_reg.data import prepared
from noise_reg.errors import UserError
from noise_reg.pipeline import Pipeline
from noise_reg.spec import SpecError
from noise_reg.store import Store
from tests.composed import ROOT, composed
from tests.forked import Running, run_script

DEMO = ["artefact=demo", "preset=demo", "preset.panels.fc.seeds=2", "preset.second_readings.seeds=1", "wandb=disabled",
        "preset.panels.fc.overrides=['max_epochs=2','optimizer.batch_size=32']", "corruption.grid=[0,0.5,0.9]", "name=small"]  # fmt: skip
FILES = {"runs.csv", "evaluations.csv", "history.csv", "verdicts.json", "provenance.json"}
FILES |= {f"{part}.{ending}" for part in ("fig2", "table2") for ending in ("png", "svg", "md", "csv")}


def make_demo(tmp_path: Path, *overrides: str) -> Path:
    with composed("reproduce", *DEMO, f"store={tmp_path}/store", f"results={tmp_path}/results", *overrides) as cfg:
        reproduce(cfg)
    return tmp_path / "results" / "demo-small"


def test_an_artefact_is_made_from_nothing_and_then_from_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_demo(tmp_path)
    first = capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == FILES
    assert re.search(
        r"runs needed  19\n  runs found   0\n  to train     19 in \d stacks\n  to evaluate  19 evaluations of runs\n  time         about \d+ s",
        first,
    )
    assert "runs complete after" in first
    rows = read_rows(folder)
    assert rows.runs.groupby(["method", "reading"]).size().to_dict() == {
        **{(method, ""): 2 for method in rows.runs["method"].unique()},
        ("in_ninr_catapult", "exact loss"): 1,
    }
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["data"]["train_images"] == 862 and provenance["reading"]["loss"] == "clamped"
    assert str(tmp_path) not in (folder / "provenance.json").read_text()
    before = {name: (folder / name).read_bytes() for name in FILES - {"provenance.json"}}
    monkeypatch.setattr(Pipeline, "train_stack", lambda *_: pytest.fail("trained a run that was stored"))
    make_demo(tmp_path)
    assert "to evaluate  0 evaluations of runs\n  time         nothing to train" in capsys.readouterr().out
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_an_artefact_redraws_from_its_committed_rows(tmp_path: Path) -> None:
    folder = make_demo(tmp_path)
    before = {name: (folder / name).read_bytes() for name in FILES}
    for name in FILES - {"runs.csv", "evaluations.csv", "history.csv", "provenance.json"}:
        (folder / name).unlink()
    redraw(folder)
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_kept_rows_count_as_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_demo(tmp_path)
    before = (folder / "runs.csv").read_bytes(), (folder / "evaluations.csv").read_bytes()
    monkeypatch.setattr(Pipeline, "train_stack", lambda *_: pytest.fail("trained a run whose row was kept"))
    make_demo(tmp_path, f"store={tmp_path}/another", "keep_rows=true")
    assert "runs found   19 (19 as committed rows)" in capsys.readouterr().out
    assert before == ((folder / "runs.csv").read_bytes(), (folder / "evaluations.csv").read_bytes())


def test_an_artefact_is_drawn_from_the_runs_that_are_there_so_far(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 19 runs is in the store"):
        make_demo(tmp_path, "train=false")
    make_demo(tmp_path, "preset.panels.fc.seeds=1")
    folder = make_demo(tmp_path, "train=false")
    assert len(read_rows(folder).runs) == 10
    assert "10 of 19 runs so far" in (folder / "fig2.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["shard=3", "num_shards=2"], "shard = 3: must be null or a whole number from 0 to num_shards - 1 = 1"),
        (["num_shards=0"], "num_shards = 0: must be a whole number of at least 1"),
        (["spread=iqr"], "spread = iqr: must be one of runs, mean"),
        (["preset.panels.fc.seeds=0"], "preset demo: seeds = 0: must be a whole number of at least 1"),
        (["corruption.grid=[2]"], "corruption.grid = [2.0]: must be a list, each a number in [0, 1]"),
    ],
)
def test_a_mistake_is_named_before_any_work(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        make_demo(tmp_path, *overrides)
    assert message in str(error.value)
    assert not any(tmp_path.rglob("*.json"))


def test_shares_of_two_processes_fill_one_store(tmp_path: Path) -> None:
    settings = (*DEMO, "num_shards=2", "stack_size=3", f"store={tmp_path}/store", f"results={tmp_path}/results")
    processes = [Running("reproduce.py", *settings, f"shard={n}") for n in range(2)]
    shares = [process.finish() for process in processes]
    assert [done.returncode for done in shares] == [0, 0], shares
    assert not (tmp_path / "results").exists()  # a share draws nothing
    counts = [int(n) for done in shares for n in re.findall(r"runs needed  (\d+)", done.stdout)]
    assert sum(counts) == 19 and min(counts) > 0
    same_as_alone(tmp_path)


@pytest.mark.slow
def test_joblib_shares_out_too(tmp_path: Path) -> None:
    call = (
        "-m",
        *DEMO,
        "shard=range(0,2)",
        "num_shards=2",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "stack_size=3",
    )
    where = (f"store={tmp_path}/store", f"results={tmp_path}/results")
    done = run_script(
        "reproduce.py", *call, *where, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    same_as_alone(tmp_path)


def same_as_alone(tmp_path: Path) -> None:
    """The shares' runs are all there, and those of one process."""
    runs = Store(tmp_path / "store").runs()
    assert len(runs) == 19 and set(runs["status"]) == {"completed"}
    alone = make_demo(tmp_path / "alone")
    together = make_demo(tmp_path)
    columns = ["key", "epochs", "train_accuracy", "test_accuracy"]
    expected, found = (read_rows(folder).runs[columns] for folder in (alone, together))
    pd.testing.assert_frame_equal(found, expected, atol=0.02)


def test_fig2_runs_from_prepared_data_to_both_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 13000), ("test", 200)):
        arrays[f"{part}_labels"] = generator.integers(0, 10, count).astype(np.uint8)
        arrays[f"{part}_images"] = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    np.savez_compressed(tmp_path / "fmnist.npz", **arrays)
    monkeypatch.setattr(prepared, "KNOWN_CONTENT", {})
    overrides = ["artefact=fig2", "preset=smoke", f"data_dir={tmp_path}", f"store={tmp_path}/store", "wandb=disabled",
                 f"results={tmp_path}/results", "name=smoke", "corruption.grid=[0,0.9]", "corruption.draws=1"]  # fmt: skip
    small = ["arch.widths=[8]", "reading.train_fraction=0.01", "optimizer.batch_size=64", "max_epochs=1"]
    for panel in ("fc", "cnn"):
        overrides.append(f"preset.panels.{panel}.overrides={small}")
    with composed("reproduce", *overrides) as cfg:
        reproduce(cfg)
    folder = tmp_path / "results" / "fig2-smoke"
    assert set(read_rows(folder).runs["arch"]) == {"fc", "cnn"}
    assert "at most 1 epoch, 130 training images, 200 test images" in (folder / "fig2.md").read_text()
