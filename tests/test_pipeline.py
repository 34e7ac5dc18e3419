"""From jobs to the store: found, trained, resumed, evaluated; in one process and in two."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from noise_reg import pipeline as pipeline_module
from noise_reg.config import Job
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import ValidationSpec
from noise_reg.pipeline import Pipeline, find_device, merged
from noise_reg.reevaluate import reevaluate
from noise_reg.store import Store
from noise_reg.train import Stack
from tests.composed import SMALL, composed, job
from tests.forked import Running

METHODS = ["none", "dropout", "full_ninr_decay"]


def jobs(store: Path, *overrides: str, seeds: int = 2, methods: Sequence[str] = METHODS) -> list[Job]:
    found = []
    for method in methods:
        first = job(*SMALL, f"store={store}", f"regularizer={method}", "max_epochs=3", *overrides)
        found += [Job(first.spec.replace(seed=s), first.method, first.evaluations, first.runtime) for s in range(seeds)]
    return found


def complete(wanted: Sequence[Job]) -> tuple[Pipeline, list[dict[str, Any]]]:
    pipeline = Pipeline(wanted[0].runtime)
    return pipeline, pipeline.complete(wanted, "test", [])


def digest_of(weights: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()[:8]


def numbers(store: Path) -> pd.DataFrame:
    """Everything in a store that must not depend on how it was made."""
    stored = Store(store)
    runs = stored.runs().drop(columns=["seconds"]).set_index("key").sort_index()
    runs["history"] = [stored.history(key).to_csv() for key in runs.index]
    runs["weights"] = [digest_of(stored.weights(key)) for key in runs.index]
    rows = stored.evaluations().set_index(["key", "evaluation", "strength"]).sort_index()
    runs["evaluations"] = [rows.loc[key].to_csv() for key in runs.index]
    return runs


def test_a_sweep_is_trained_evaluated_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = jobs(tmp_path)
    _, records = complete(wanted)
    assert [record["status"] for record in records] == ["completed"] * 6
    assert [record["method"] for record in records] == ["none"] * 2 + ["dropout"] * 2 + ["full_ninr_decay"] * 2
    assert len(Store(tmp_path).evaluations()) == 6 * 12
    monkeypatch.setattr(Pipeline, "train_stack", lambda *_: pytest.fail("trained a run that was stored"))
    assert complete(wanted)[1] == records


def test_the_stored_model_scores_what_the_record_says(tmp_path: Path) -> None:
    pipeline, records = complete(jobs(tmp_path, seeds=1, methods=["full_ninr_decay"]))
    (key,) = Store(tmp_path).runs()["key"]
    data = next(iter(pipeline.prepared.values()))
    pixels = data.test_pixels.view(-1, *data.image)
    accuracy = (Store(tmp_path).model(key)(pixels).argmax(1) == data.test_y).double().mean().item()
    assert accuracy == pytest.approx(records[0]["test_accuracy"], abs=1e-9)
    rows = Store(tmp_path).evaluations()
    assert rows[rows["strength"] == 0]["accuracy"].tolist() == pytest.approx([accuracy] * 2)


def test_other_corruption_settings_are_evaluated_without_training(tmp_path: Path) -> None:
    complete(jobs(tmp_path, seeds=1))
    _, _ = complete(jobs(tmp_path, "corruption.grid=[0.5]", "corruption.draws=1", seeds=1))
    rows = Store(tmp_path).evaluations()
    assert rows[rows["evaluation"] == "corruption"]["strength"].tolist() == [0.5] * 3


def test_a_damaged_run_is_named_and_trained_again(tmp_path: Path) -> None:
    wanted = jobs(tmp_path, seeds=1)
    complete(wanted)
    before = numbers(tmp_path)
    key = wanted[1].spec.key
    path = tmp_path / "runs" / key / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    said: list[str] = []
    Pipeline(wanted[0].runtime, said.append).complete(wanted, "test", [])
    assert any(key in line for line in said)
    after = numbers(tmp_path)
    others = before.index != key
    pd.testing.assert_frame_equal(after[others], before[others])
    again, first = after.loc[key], before.loc[key]  # trained in a smaller stack: equal, but not to the last bit
    assert (again["epochs"], again["status"]) == (first["epochs"], first["status"])
    for text in ("history", "evaluations"):
        tables = [pd.read_csv(io.StringIO(str(row[text]))) for row in (again, first)]
        pd.testing.assert_frame_equal(tables[0], tables[1], rtol=1e-4, atol=1e-6)


def test_a_diverged_run_is_recorded_and_its_neighbours_go_on(tmp_path: Path) -> None:
    exploding = job(*SMALL, f"store={tmp_path}", "regularizer=in_ninr", "regularizer.sigma=1e30", "reading=exact_loss",
                    "max_epochs=3")  # fmt: skip
    calm = job(*SMALL, f"store={tmp_path}", "reading=exact_loss", "max_epochs=3")
    said: list[str] = []
    records = Pipeline(calm.runtime, said.append).complete([exploding, calm], "test", [])
    assert [record["status"] for record in records] == ["diverged", "completed"]
    assert (records[0]["diverged_quantity"], records[0]["epochs"]) == ("training loss", 1)
    assert np.isnan(records[0]["test_accuracy"])
    assert any("diverged: digits fc in_ninr_1e+30 seed 0: training loss" in line for line in said)


def training(store: Path, *overrides: str) -> Running:
    return Running("train.py", "-m", *SMALL, f"store={store}", *overrides)


SWEEP = ["regularizer=none,dropout,full_ninr_decay", "seed=0,1", "max_epochs=80", "stop_accuracy=1.0"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    store = tmp_path_factory.mktemp("undisturbed")
    complete(jobs(store, "max_epochs=80", "stop_accuracy=1.0"))
    return numbers(store)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_sweep_goes_on_and_ends_in_the_same_numbers(
    how: signal.Signals, tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    process = training(tmp_path, *SWEEP, "checkpoint_seconds=0")
    checkpoints = tmp_path / "checkpoints"
    deadline = time.monotonic() + 120
    while not any(meta["epoch"] >= 3 for _, meta in Store(tmp_path).checkpoints() if checkpoints.exists()):
        assert process.poll() is None and time.monotonic() < deadline, process.finish()
        time.sleep(0.01)
    process.send_signal(how)
    done = process.finish()
    assert done.returncode == {signal.SIGKILL: -9}.get(how, 130)
    assert how == signal.SIGKILL or "run the same command again" in done.stderr
    assert not len(Store(tmp_path).runs())
    epochs = tmp_path / "epochs"  # a file, since workers are processes
    resumed = Pipeline.resume

    def watched(self: Pipeline, *arguments: Any) -> tuple[Stack, str]:
        stack, name = resumed(self, *arguments)
        with epochs.open("a") as file:
            file.write(f"{stack.epoch}\n")
        return stack, name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "resume", watched)
        complete(jobs(tmp_path, "max_epochs=80", "stop_accuracy=1.0"))
    assert max(map(int, epochs.read_text().split())) >= 3  # it went on, it did not begin anew
    pd.testing.assert_frame_equal(numbers(tmp_path), undisturbed)
    assert not Store(tmp_path).checkpoints()


def test_two_processes_on_one_store_train_every_run_once(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    processes = [training(tmp_path, *SWEEP, "stack_size=2") for _ in range(2)]
    done = [process.finish() for process in processes]
    assert [one.returncode for one in done] == [0, 0], done
    columns = ["method", "seed", "status", "epochs", "test_accuracy"]
    pd.testing.assert_frame_equal(Store(tmp_path).runs().set_index("key").sort_index()[columns], undisturbed[columns])
    assert not (tmp_path / "damaged").exists()


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="device = cuda:99: no such device here; must be one of auto, cpu"):
        find_device("cuda:99")
    assert find_device("cpu") == torch.device("cpu")


def test_missing_data_fail_before_any_work(tmp_path: Path) -> None:
    wanted = job("dataset=fmnist", f"store={tmp_path}/s", f"data_dir={tmp_path}", "download=false", "wandb=disabled")
    with pytest.raises(UserError, match=r"fmnist\.npz") as error:
        Pipeline(wanted.runtime).complete([wanted], "test", [])
    assert str(tmp_path) in str(error.value)
    assert not (tmp_path / "s" / "runs").exists()


def test_a_batch_larger_than_the_data_is_named(tmp_path: Path) -> None:
    wanted = jobs(tmp_path, "optimizer.batch_size=5000", seeds=1)
    with pytest.raises(UserError, match=r"optimizer\.batch_size = 5000: must be at most the 862 training images"):
        complete(wanted)


def test_a_failing_mirror_loses_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        Job(j.spec, j.method, j.evaluations, dataclasses.replace(j.runtime, wandb="offline"))
        for j in jobs(tmp_path, seeds=1)
    ]
    monkeypatch.setattr("noise_reg.mirror.start", lambda *_: (_ for _ in ()).throw(RuntimeError("no process")))
    said: list[str] = []
    records = Pipeline(wanted[0].runtime, said.append).complete(wanted, "test", [])
    assert len(records) == 3
    assert sum("Weights & Biases is off" in line for line in said) == 1


def test_a_resumed_run_keeps_its_methods_name_though_another_sweep_resumes_it(tmp_path: Path) -> None:
    begun = jobs(tmp_path, "checkpoint_seconds=0", "workers=1", methods=["none", "full_ninr_decay"], seeds=1)

    def interrupted(self: Pipeline, stack: Stack, name: str) -> None:
        saved(self, stack, name)
        raise KeyboardInterrupt

    saved = Pipeline.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            complete(begun)
    complete(begun[:1])
    assert set(Store(tmp_path).runs()["method"]) == {"none", "full_ninr_decay"}


def test_a_killed_worker_is_said_and_its_runs_go_on(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    wanted = jobs(tmp_path, "max_epochs=80", "stop_accuracy=1.0", "checkpoint_seconds=0", "workers=2")
    saved, parent, killed = Pipeline.save, os.getpid(), tmp_path / "killed"

    def deadly(self: Pipeline, stack: Stack, name: str) -> None:
        saved(self, stack, name)
        if os.getpid() != parent and stack.epoch >= 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "save", deadly)
        Pipeline(wanted[0].runtime, said.append).complete(wanted, "test", [])
    assert killed.exists()
    assert [line for line in said if "a worker process was killed by signal 9" in line]
    columns = ["method", "seed", "status", "epochs"]
    pd.testing.assert_frame_equal(Store(tmp_path).runs().set_index("key").sort_index()[columns], undisturbed[columns])
    assert not Store(tmp_path).checkpoints()


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_an_interrupted_run_goes_on_with_its_optimizers_state(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (f"optimizer={optimizer}", "optimizer.batch_size=32", "checkpoint_seconds=0", "workers=1", "max_epochs=4")
    whole, broken = (
        jobs(tmp_path / name, *changes, methods=["none", "l2"], seeds=1) for name in ("whole", "interrupted")
    )
    complete(whole)
    saved = Pipeline.save

    def save_and_stop(self: Pipeline, stack: Stack, name: str) -> None:
        saved(self, stack, name)
        if stack.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "save", save_and_stop)
        patch.setattr(pipeline_module, "CHECKPOINT_SHARE", 1e9)  # one an epoch
        with pytest.raises(KeyboardInterrupt):
            complete(broken)
    complete(broken)
    pd.testing.assert_frame_equal(numbers(tmp_path / "interrupted"), numbers(tmp_path / "whole"))


def test_a_run_asked_for_twice_has_the_evaluations_of_both(tmp_path: Path) -> None:
    (first,) = jobs(tmp_path, seeds=1, methods=["none"])
    again = dataclasses.replace(first, evaluations=(ValidationSpec(), *first.evaluations))
    (both,) = merged([first, again]).values()
    assert both.evaluations == (*first.evaluations, ValidationSpec())


def test_runs_that_an_evaluation_does_not_fit_are_named_and_the_others_evaluated(tmp_path: Path) -> None:
    """A run that trained on everything has no validation images."""
    whole = jobs(tmp_path, "reading.train_fraction=1.0", seeds=1, methods=["none"])
    part = jobs(tmp_path, "reading.train_fraction=0.8", seeds=1, methods=["none"])
    pipeline, _ = complete([*whole, *part])
    said: list[str] = []
    pipeline.say = said.append
    with pytest.raises(UserError, match="1 stack of runs was not evaluated, the first with digits fc none seed 0"):
        pipeline.evaluate([dataclasses.replace(j, evaluations=(ValidationSpec(),)) for j in (*whole, *part)])
    assert "not evaluated" in said[0] and "train_fraction = 1.0: must be below 1" in said[0]
    assert pipeline.store.evaluation(part[0].spec.key, "validation", {}) is not None
    assert pipeline.store.evaluation(whole[0].spec.key, "validation", {}) is None


def test_tf32_is_refused_before_any_work_where_there_is_no_gpu(tmp_path: Path) -> None:
    wanted = job(*SMALL, f"store={tmp_path}", "precision=tf32", "device=cpu")
    with pytest.raises(
        UserError, match="precision = tf32: needs device = cuda; must be one of fp32, bf16, fp64 on cpu"
    ):
        Pipeline(wanted.runtime).complete([wanted], "test", [])
    assert not (tmp_path / "runs").exists()


def test_a_missing_run_is_named_alone_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = f"store={tmp_path}", "wandb=disabled", "runs=[nosuch]"
    message = "1 of the runs asked for were not evaluated: nosuch"
    with composed("evaluate", *overrides) as cfg, pytest.raises(UserError, match=message):
        reevaluate(cfg)
    assert f"runs = nosuch: not in the store {tmp_path}, which holds 0 runs" in "".join(capsys.readouterr())


def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for overrides in ((), ("max_epochs=1",)):
        complete(jobs(tmp_path, *overrides, methods=["none", "dropout"]))
    with composed("evaluate", f"store={tmp_path}", "wandb=disabled", "corruption.grid=[0,0.5]") as cfg:
        reevaluate(cfg)
    head, *rows = capsys.readouterr().out.partition("mean ± standard deviation over runs\n")[2].splitlines()
    assert head.split() == ["dataset", "arch", "method", "max_epochs", "runs", "0.0", "0.5"]
    expected = [["digits", "fc", method, epochs, "2"] for method in ("dropout", "none") for epochs in "13"]
    assert [row.split()[:5] for row in rows[:4]] == expected
    accuracies = Store(tmp_path).runs().set_index(["method", "epochs"])["test_accuracy"][("dropout", 1)] * 100
    assert " ".join(rows[0].split()[5:8]) == f"{accuracies.mean():.1f} ± {accuracies.std():.1f}"
    assert f"stored in {tmp_path}/" in rows[4]


def test_runs_that_cannot_be_evaluated_are_named_and_the_others_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged one, and one with a setting that another version of the code had."""
    sound, damaged, other = jobs(tmp_path, seeds=1)
    pipeline, _ = complete([sound, damaged])
    with open(tmp_path / "runs" / damaged.spec.key / "weights.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    store, key = pipeline.store, sound.spec.key
    strange = store.spec(key) | {"colour": 1, "seed": 5}
    store.write_run(other.spec.key, strange, store.history(key), store.weights(key), store.read_record(key))
    with (
        composed("evaluate", f"store={tmp_path}", "wandb=disabled", "corruption.grid=[0,0.3]") as cfg,
        pytest.raises(UserError, match="2 of the runs asked for were not evaluated") as error,
    ):
        reevaluate(cfg)
    told = capsys.readouterr()
    assert damaged.spec.key in str(error.value) and other.spec.key in str(error.value)
    assert f"run {damaged.spec.key} of the store {tmp_path}: damaged: " in told.err
    assert f"run {other.spec.key} of the store {tmp_path}: colour: unknown key" in told.err
    evaluated = store.evaluations().query("evaluation == 'corruption'").set_index("key")["strength"]
    assert evaluated[sound.spec.key].tolist() == [0.0, 0.3] and len(evaluated[damaged.spec.key]) == 11


def test_a_store_is_not_begun_among_other_things(tmp_path: Path) -> None:
    runtime = job(*SMALL, f"store={tmp_path}").runtime
    (tmp_path / "runs" / "runs").mkdir(parents=True)  # of the store runs/ in a checkout
    (tmp_path / "README.md").touch()
    with pytest.raises(UserError, match=r"is no store, and holds other things \(README.md\). Remedy: .*store="):
        Pipeline(runtime)
    (tmp_path / "runs" / "0123456789abcdef").mkdir()  # one that somebody put a note into
    Pipeline(runtime)


def test_a_reader_of_a_store_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Store(tmp_path / "typo").runs().empty
    assert f"store = {tmp_path / 'typo'}: there is no such folder" in capsys.readouterr().err
