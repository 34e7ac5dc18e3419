"""A run, a checkpoint, an evaluation or committed rows of other data are never taken for those of the data of now."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noise_reg.cli.reproduce import reproduce
from noise_reg.config import Job
from noise_reg.data.known import KNOWN_CONTENT
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import ShiftSpec, ValidationSpec
from noise_reg.pipeline import Pipeline
from noise_reg.reevaluate import reevaluate
from noise_reg.store import Store
from noise_reg.store.run_folder import RunFolder
from noise_reg.train import Stack
from tests.composed import composed, job

Arrays = dict[str, Any]
SMALL = ["dataset=mnist_binary", "arch=fc", "arch.widths=[4]", "optimizer.batch_size=8", "corruption.draws=1", "corruption.grid=[0.5]"]  # fmt: skip


def made(seed: int, pixels: tuple[int, int] = (0, 255), size: int = 28) -> Arrays:
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for part, count in (("train", 40), ("test", 20)):
        arrays[f"{part}_images"] = rng.choice(np.array(pixels, np.uint8), (count, size, size))
        arrays[f"{part}_labels"] = rng.integers(0, 10, count, dtype=np.uint8)
    return arrays


def put(folder: Path, arrays: Arrays, name: str = "mnist_binary", save: Callable[..., None] = np.savez) -> None:
    folder.mkdir(exist_ok=True)
    save(folder / f"{name}.npz", **arrays)


@pytest.fixture(autouse=True)
def unknown_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of any content pass under the names of the known ones."""
    monkeypatch.setattr("noise_reg.data.prepared.KNOWN_CONTENT", {})


def wanted(tmp_path: Path, *overrides: str, data: str = "data") -> Job:
    return job(*SMALL, f"store={tmp_path}/store", f"data_dir={tmp_path}/{data}", "wandb=disabled", "max_epochs=2", "workers=1",
               *overrides)  # fmt: skip


def complete(*jobs: Job) -> list[dict[str, Any]]:
    return Pipeline(jobs[0].runtime).complete(jobs, "test", [])


CHANGES: dict[str, Callable[[Arrays], object]] = {
    "a pixel of a training image": lambda a: a["train_images"].__setitem__((3, 5, 5), 255 - a["train_images"][3, 5, 5]),
    "a training label": lambda a: a["train_labels"].__setitem__(0, 9 - a["train_labels"][0]),
    "a test label": lambda a: a["test_labels"].__setitem__(0, 9 - a["test_labels"][0]),
    "the test images": lambda a: a.__setitem__("test_images", 255 - a["test_images"]),
    "fewer training images": lambda a: a.update(train_images=a["train_images"][1:], train_labels=a["train_labels"][1:]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_of_other_data_is_neither_given_nor_evaluated(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "data", made(0))
    complete(wanted(tmp_path))
    before = Store(tmp_path / "store").evaluations()
    arrays = made(0)
    CHANGES[change](arrays)
    put(tmp_path / "data", arrays)
    with pytest.raises(UserError) as error:
        complete(wanted(tmp_path), wanted(tmp_path, "seed=1"))
    (run,) = Store(tmp_path / "store").runs().to_dict("records")
    message = str(error.value)
    assert f"run {run['key']}: trained on mnist_binary.npz of content {run['data_sha256'][:16]}, while" in message
    assert f"data_dir = {tmp_path}/data is of content" in message and "Remedy: bring the data of then back" in message
    assert run["data_sha256"][:16] not in message.partition("while")[2]
    overrides = [f"store={tmp_path}/store", f"data_dir={tmp_path}/data", "wandb=disabled"]
    for grid in ("corruption.grid=[0.1]", "corruption.grid=[0.5]"):  # to be measured, and stored already
        with composed("evaluate", *overrides, "corruption.draws=1", grid) as cfg, pytest.raises(UserError):
            reevaluate(cfg)
        assert run["data_sha256"][:16] in capsys.readouterr().err
    assert Store(tmp_path / "store").evaluations().equals(before)


def test_the_same_content_in_another_file_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed anew; or MNIST's own file, thresholded."""
    put(tmp_path / "data", made(0))
    first = complete(wanted(tmp_path))
    monkeypatch.setattr(Pipeline, "train_stack", lambda *_: pytest.fail("trained a run that was stored"))
    put(tmp_path / "packed", made(0), save=np.savez_compressed)
    grey = made(0)
    for part in ("train", "test"):
        grey[f"{part}_images"] = np.where(grey[f"{part}_images"] > 0, 200, 100).astype(np.uint8)
    put(tmp_path / "grey", grey, "mnist")
    for data in ("packed", "grey"):
        assert complete(wanted(tmp_path, data=data)) == first


def test_two_data_folders_in_one_store_keep_apart(tmp_path: Path) -> None:
    for n, data in enumerate(("one", "two")):
        put(tmp_path / data, made(n))
    complete(wanted(tmp_path, data="one"))
    with pytest.raises(UserError, match=r"trained on mnist_binary\.npz of content"):
        complete(wanted(tmp_path, data="two"))
    complete(wanted(tmp_path, "seed=1", data="two"))
    with pytest.raises(UserError, match=f"run {wanted(tmp_path, 'seed=1').spec.key}: trained on"):
        complete(wanted(tmp_path, data="one"), wanted(tmp_path, "seed=1", data="one"))
    complete(wanted(tmp_path, data="one"))


def without_content(root: Path) -> None:
    """The store's runs as an earlier version would have written them."""
    store = Store(root)
    for key in store.runs()["key"]:
        spec, history, weights = store.spec(key), store.history(key), store.weights(key)
        record = {name: value for name, value in store.read_record(key).items() if name != "data_sha256"}
        folder = root / "runs" / key
        evaluations = {path.name: path.read_bytes() for path in folder.glob("evaluations/*.json")}
        folder.rename(root / f"old-{key}")
        RunFolder(folder).write(folder, spec, history, weights, record)
        (folder / "evaluations").mkdir()
        for name, data in evaluations.items():
            (folder / "evaluations" / name).write_bytes(data)


def test_runs_of_an_earlier_version_are_told_apart_by_their_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "data", made(0))
    first = complete(wanted(tmp_path))
    without_content(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "train_stack", lambda *_: pytest.fail("trained a run that was stored"))
        complete(wanted(tmp_path))
    assert "data_sha256" in first[0] and "data_sha256" not in Store(tmp_path / "store").runs()
    put(tmp_path / "data", made(1))
    with pytest.raises(UserError, match=r"trained on mnist_binary\.npz of other training images"):
        complete(wanted(tmp_path))


def test_runs_of_an_earlier_version_are_of_the_known_content_where_only_that_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "data", made(0), "mnist")
    (record,) = complete(wanted(tmp_path))
    without_content(tmp_path / "store")
    monkeypatch.setitem(KNOWN_CONTENT, ("mnist_binary", "mnist.npz"), record["data_sha256"])
    complete(wanted(tmp_path))
    changed = made(0)
    changed["test_labels"][0] ^= 1  # which no trace of the training images shows
    put(tmp_path / "data", changed, "mnist")
    with pytest.raises(UserError, match=rf"trained on mnist\.npz of content {record['data_sha256'][:16]}"):
        complete(wanted(tmp_path))


def test_a_checkpoint_of_other_data_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "data", made(0))

    def interrupted(self: Pipeline, stack: Stack, name: str) -> None:
        saved(self, stack, name)
        raise KeyboardInterrupt

    saved = Pipeline.save
    begun = wanted(tmp_path, "checkpoint_seconds=0")
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            complete(begun)
    ((name, meta),) = Store(tmp_path / "store").checkpoints()
    put(tmp_path / "data", made(1))
    with pytest.raises(UserError) as error:
        complete(begun)
    assert f"{name}.safetensors: begun on mnist_binary.npz of content {meta['data']['data_sha256'][:16]}" in str(
        error.value
    )
    assert [found for found, _ in Store(tmp_path / "store").checkpoints()] == [name]
    put(tmp_path / "data", made(0))
    complete(begun)


@pytest.mark.parametrize("moment", ["train_missing", "train_unclaimed"])
def test_a_run_that_another_process_finishes_on_other_data_is_refused(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before this one begins to train; or while this one waits for the lock."""
    for n, data in enumerate(("one", "two")):
        put(tmp_path / data, made(n))
    other, begun = wanted(tmp_path, data="one"), getattr(Pipeline, moment)

    def late(self: Pipeline, *arguments: Any) -> Any:
        monkeypatch.undo()
        monkeypatch.setattr("noise_reg.data.prepared.KNOWN_CONTENT", {})
        complete(other)
        return begun(self, *arguments) if moment == "train_missing" else set()

    monkeypatch.setattr(Pipeline, moment, late)
    with pytest.raises(UserError, match=rf"run {other.spec.key}: trained on mnist_binary\.npz of content"):
        complete(wanted(tmp_path, data="two"))


def test_a_shift_says_what_it_was_measured_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noise_reg.data_check.KNOWN_TEST_CONTENT", {})
    put(tmp_path / "data", made(0))
    put(tmp_path / "data", made(1, size=16), "usps")
    shift = ShiftSpec("usps", "mass", "bilinear", "source")
    asked = dataclasses.replace(wanted(tmp_path), evaluations=(shift,))
    complete(asked)
    key, store = asked.spec.key, Store(tmp_path / "store")
    rows = store.evaluations()
    assert store.evaluation_data(key, shift.label)["data_file"] == "usps.npz"
    other = made(1, size=16)
    other["train_labels"][0] ^= 1  # which is not measured on
    put(tmp_path / "data", other, "usps")
    complete(asked)
    put(tmp_path / "data", made(2, size=16), "usps")
    said: list[str] = []
    with pytest.raises(UserError, match="1 stack of runs was not evaluated"):
        Pipeline(asked.runtime, said.append).complete([asked], "test", [])
    assert "evaluation usps_mass_bilinear_source measured on usps.npz of content" in said[0]
    assert store.evaluations().equals(rows)


def test_what_is_stored_is_shown_without_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "data", made(0))
    complete(wanted(tmp_path))
    overrides = [f"store={tmp_path}/store", f"data_dir={tmp_path}/nowhere", "download=false", "wandb=disabled"]
    with composed("evaluate", *overrides, "corruption.draws=1", "corruption.grid=[0.5]") as cfg:
        reevaluate(cfg)
    assert "corruption: accuracy in %" in capsys.readouterr().out
    pipeline = Pipeline(
        dataclasses.replace(wanted(tmp_path).runtime, data_dir=str(tmp_path / "nowhere"), download=False)
    )
    with pytest.raises(UserError, match=r"no mnist_binary\.npz"):
        pipeline.evaluate([dataclasses.replace(wanted(tmp_path), evaluations=(ValidationSpec(),))])


def test_committed_rows_of_other_data_are_not_kept(tmp_path: Path) -> None:
    def make(store: str) -> None:
        overrides = ["artefact=fig2", "preset=smoke", f"data_dir={tmp_path}/data", f"store={tmp_path}/{store}", "wandb=disabled",
                     f"results={tmp_path}/results", "keep_rows=true", "corruption.grid=[0,0.5]", "corruption.draws=1",
                     "artefact.methods=[['regularizer=none']]", "artefact.second_readings=[]", "~artefact.panels.cnn",
                     "artefact.panels.fc=['dataset=fmnist','arch=fc','arch.widths=[4]']",
                     "preset.panels.fc.overrides=['max_epochs=1','optimizer.batch_size=8']"]  # fmt: skip
        with composed("reproduce", *overrides) as cfg:
            reproduce(cfg)

    put(tmp_path / "data", made(0), "fmnist")
    make("store")
    (folder,) = (tmp_path / "results").glob("fig2-smoke-*")  # asked differently from the preset
    provenance = folder / "provenance.json"
    tree = json.loads(provenance.read_text())
    assert len(tree["data"]["data_sha256"]) == 64
    put(tmp_path / "data", made(1), "fmnist")
    with pytest.raises(UserError, match=r"its rows are of runs trained on fmnist\.npz of content"):
        make("another")
    del tree["data"]["data_sha256"]  # as an earlier version wrote it
    provenance.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=f"its rows are of .* content {KNOWN_CONTENT['fmnist', 'fmnist.npz'][:16]}"):
        make("another")
