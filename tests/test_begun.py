"""What another version of the code, or nobody, wrote into a store: it is named once, left alone, and everything else goes on."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noise_reg.begun import read_begun
from noise_reg.config import Job
from noise_reg.data import Dataset, load
from noise_reg.errors import UserError
from noise_reg.mirror_state import MirrorState, Shown
from noise_reg.pipeline import Pipeline
from noise_reg.store import Store, StoreError
from noise_reg.store.sealed import seal, unseal
from noise_reg.train import Stack
from tests.composed import SMALL, job

KEY = "0123456789abcdef"
FUZZ = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def wanted_jobs(store: Path) -> list[Job]:
    first = job(*SMALL, f"store={store}", "max_epochs=4", "workers=1", "checkpoint_seconds=0", "arch.widths=[4]")
    return [dataclasses.replace(first, spec=first.spec.replace(seed=seed), evaluations=()) for seed in range(2)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, tensors and meta of the checkpoint of an interrupted stack of two."""
    root, save = tmp_path_factory.mktemp("begun"), Pipeline.save

    def interrupted(self: Pipeline, stack: Stack, name: str) -> None:
        save(self, stack, name)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "save", interrupted)
        wanted = wanted_jobs(root)
        with pytest.raises(KeyboardInterrupt):
            Pipeline(wanted[0].runtime).complete(wanted, "test", [])
    ((name, _),) = Store(root).checkpoints()
    tensors, meta = Store(root).load_checkpoint(name) or pytest.fail("no checkpoint")
    return name, tensors, meta


@pytest.fixture(scope="module")
def plain_jobs() -> list[Job]:
    return wanted_jobs(Path("unused"))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", None, False)


def outcome(store: Path) -> tuple[list[float], list[str]]:
    said: list[str] = []
    wanted = wanted_jobs(store)
    records = Pipeline(wanted[0].runtime, said.append).complete(wanted, "test", [])
    assert [record["epochs"] for record in records] == [4, 4]
    return [record["test_accuracy"] for record in records], said


def test_a_checkpoint_of_another_version_is_named_once_and_left_alone(tmp_path: Path, begun: Any) -> None:
    name, tensors, meta = begun
    expected, said = outcome(tmp_path / "alone")
    assert said == []
    other = copy.deepcopy(meta)
    other["specs"][0]["momentum"] = 0.9
    store = Store(tmp_path / "store")
    for label in (name, "stack-other"):  # under the name that its runs' own checkpoint would have, too
        store.save_checkpoint(label, tensors, other)
    files = {path: path.read_bytes() for path in (store.root / "checkpoints").iterdir()}
    found, said = outcome(store.root)
    assert found == expected
    assert len(said) == 2 and all(sum(str(path) in line for line in said) == 1 for path in files)
    assert "momentum: unknown key" in said[0]
    assert {path: path.read_bytes() for path in (store.root / "checkpoints").iterdir()} == files


def test_tensors_that_do_not_fit_are_left_alone_too(tmp_path: Path, begun: Any) -> None:
    name, tensors, meta = begun
    first = next(iter(tensors))
    for number, changed in enumerate(
        (
            {**tensors, "more": np.zeros(2)},
            {**tensors, first: tensors[first][:1]},
            {**tensors, "optimizer.x:y": np.zeros(2)},
        )
    ):
        store = Store(tmp_path / str(number))
        store.save_checkpoint(name, changed, meta)
        _, said = outcome(store.root)
        assert len(said) == 1 and f"{name}.safetensors" in said[0]


def test_an_intact_checkpoint_is_gone_on_with(tmp_path: Path, begun: Any) -> None:
    name, tensors, meta = begun
    Store(tmp_path).save_checkpoint(name, tensors, meta)
    assert outcome(tmp_path)[1] == [] and not Store(tmp_path).checkpoints()


values: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=3)
values |= st.just([]) | st.just({}) | st.just([1]) | st.just({"a": 1}) | st.just({"$float": "x"})


def places(tree: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every item in a JSON document."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, item in items:
        yield (*before, name)
        yield from places(item, (*before, name))


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """`document` with one or two of its items replaced, dropped or joined by another."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        *parents, last = draw(st.sampled_from(sorted(places(changed), key=str) or [("x",)]))
        node: Any = changed
        for name in parents:
            node = node[name]
        how = draw(st.sampled_from(["replace", "drop", "add"]))
        if how == "drop":
            del node[last]
        elif how == "add" and isinstance(node, dict):
            node["unknown"] = draw(values)
        else:
            node[last] = draw(values)
        if not changed:
            break
    return changed


@FUZZ
@given(data=st.data())
def test_no_checkpoint_blocks_a_store(
    data: st.DataObject, tmp_path: Path, begun: Any, plain_jobs: list[Job], digits: Dataset
) -> None:
    """What can be gone on with is, or it is named once; only other data are refused."""
    name, tensors, meta = begun
    store, said, wanted = Store(tmp_path), list[str](), plain_jobs
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    changed = data.draw(mutated(meta))
    store.save_checkpoint(name, tensors, changed)
    pipeline = Pipeline(dataclasses.replace(wanted[0].runtime, store=str(tmp_path)), said.append)
    pipeline.datasets = {"digits": digits}
    try:
        stacks = pipeline.stacks([j.spec for j in wanted])
        assert {j.spec.key for j in wanted} <= {spec.key for specs in stacks for spec in specs}
        for specs in stacks:
            stack, _ = pipeline.resume(specs, pipeline.data(specs[0]))
            assert {spec.key for spec in stack.specs} == {spec.key for spec in specs}
    except UserError as error:
        if changed["data"] == meta["data"] or "begun on" not in str(error):
            raise
    assert len(said) <= 1
    try:
        read_begun(changed)
    except UserError:
        assert len(said) == 1


def made_store(root: Path) -> Store:
    store = Store(root)
    spec = {"dataset": {"name": "digits"}, "arch": {"name": "fc"}, "seed": 3}
    record = {"method": "none", "status": "completed", "stopped_by": "epochs", "epochs": 2, "test_accuracy": 0.5}
    for key in (KEY, KEY[::-1]):
        store.write_run(key, spec, pd.DataFrame({"epoch": [1]}), {"w": np.zeros(2)}, record)
        store.write_evaluation(key, "clean", {}, [(0.0, 0.5)])
    return store


@FUZZ
@given(data=st.data(), name=st.sampled_from(["record.json", "evaluations/clean.json"]))
def test_a_sealed_document_of_any_contents_blocks_no_other_run(data: st.DataObject, name: str, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    store, said = made_store(tmp_path / "store"), list[str]()
    store.warn = said.append
    path = store.root / "runs" / KEY / name
    document = unseal(path.read_bytes())
    path.write_bytes(seal(data.draw(mutated(document))))
    assert KEY[::-1] in set(store.runs()["key"]) and KEY[::-1] in set(store.evaluations()["key"])
    store.fingerprint(KEY)
    store.evaluation(KEY, "clean", {})
    for read in (store.read_record, store.spec, store.history, store.weights):
        try:
            read(KEY)
        except StoreError as error:
            if KEY not in str(error):
                raise
    assert KEY[::-1] in store.take_complete([KEY, KEY[::-1]], said.append)
    aside = sorted(path.name for path in (store.root / "damaged").glob("*"))
    assert len(aside) == sum("set aside in" in line for line in said)  # said as often as it is so


@FUZZ
@given(data=st.data())
def test_a_mirrors_note_of_any_contents_is_read(data: st.DataObject, tmp_path: Path) -> None:
    state = MirrorState(tmp_path)
    target, shown = "offline", Shown("fig2", ["fig2"], "content", "folder")
    state.write(KEY, target, shown)
    path = tmp_path / "mirror" / f"{KEY}.json"
    whole = unseal(path.read_bytes())
    path.write_bytes(seal(data.draw(mutated(whole))))
    found = state.read(KEY)
    state.expect([KEY], target, "fig2", ["fig2"])
    assert state.read(KEY)[target] == found.get(target, Shown("fig2", ["fig2"]))
    newer = whole | {"targets": {target: whole["targets"][target] | {"size": 3}}}
    path.write_bytes(seal(json.loads(json.dumps(newer))))
    assert state.read(KEY) == {target: shown}
    (tmp_path / "mirror" / "what is this.json").write_text("{}")
    assert state.known() == [KEY]
