"""The store within one process: what goes in comes out, and nothing damaged ever does. See also test_store_processes.py."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noise_reg
from noise_reg.atomic import HOST
from noise_reg.store import RUN_COLUMNS, Store, StoreError

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
SPEC = {"dataset": {"name": "digits", "split_seed": 0}, "arch": {"name": "fc", "widths": (32, 16)}, "seed": 3}
RECORD = {
    "method": "cdt_0.2",
    "status": "completed",
    "stopped_by": "accuracy",
    "epochs": 12,
    "train_accuracy": np.float64(0.98),
    "test_accuracy": 0.5,
    "seconds": 1.5,
}
HISTORY = pd.DataFrame({"epoch": [0, 1], "loss": [0.1 + 0.2, np.inf], "norm": [1e-300, np.nan]})
WEIGHTS = {"0.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "scale": np.array(2.5)}
FILES = ["spec.json", "history.csv", "weights.safetensors", "record.json"]


class Told(list[str]):
    """Collects what is said to it."""

    def __call__(self, message: str) -> None:
        self.append(message)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def store(tmp_path: Path, told: Told) -> Store:
    """One stored run, one evaluation of it; its warnings are `told`."""
    store = Store(tmp_path / "store")
    store.warn = told
    store.write_run(KEY, SPEC, HISTORY, WEIGHTS, RECORD)
    store.write_evaluation(KEY, "corruption", {"grid": (0.0, 0.1)}, [(0.0, 0.9), (0.1, float("nan"))])
    return store


def folder(store: Store, key: str = KEY) -> Path:
    return store.root / "runs" / key


def flip(path: Path, position: int, bits: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)


def test_a_run_reads_back_as_it_was_written(store: Store, told: Told) -> None:
    assert store.take_complete([KEY, OTHER], told) == {KEY} and told == [] and store.state(OTHER) == "missing"
    assert store.spec(KEY) == {**SPEC, "arch": {"name": "fc", "widths": [32, 16]}}
    assert store.read_record(KEY) == RECORD
    pd.testing.assert_frame_equal(store.history(KEY), HISTORY, check_exact=True)
    for name, array in store.weights(KEY).items():
        np.testing.assert_array_equal(array, WEIGHTS[name], strict=True)
        assert array.flags.writeable
    assert store.weights(KEY).keys() == safetensors.numpy.load_file(folder(store) / "weights.safetensors").keys()


dtypes = st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i8", ">i2", "u1", "?", "<c8"])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
arrays = hnp.arrays(dtypes, shapes) | hnp.arrays(dtypes, shapes).map(np.transpose)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weights=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), arrays, max_size=4))
def test_weights_of_any_name_shape_dtype_and_layout_read_back_exactly(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    store = Store(tmp_path)
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    store.write_run(KEY, SPEC, HISTORY, weights, RECORD)
    found = store.weights(KEY)
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array.astype(array.dtype.newbyteorder("=")), strict=True)


def test_json_is_strict_and_a_number_that_is_not_finite_reads_back_as_nan(store: Store) -> None:
    store.write_run(OTHER, SPEC, pd.DataFrame(), {}, {**RECORD, "status": "diverged", "test_accuracy": float("nan")})
    for path in store.root.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    assert np.isnan(store.read_record(OTHER)["test_accuracy"])
    assert np.isnan(store.runs().set_index("key").test_accuracy[OTHER])
    assert store.history(OTHER).empty and store.weights(OTHER) == {}


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_named_and_set_aside(store: Store, told: Told, name: str) -> None:
    path = folder(store) / name
    tab_for_space = ord(" ") ^ ord("\t")  # which JSON itself would not mind
    for position, bits in itertools.product(range(0, path.stat().st_size, 3), (0x10, tab_for_space)):
        flip(path, position, bits)
        assert store.state(KEY).startswith("damaged: ") and name in store.state(KEY), position
        flip(path, position, bits)
    assert store.state(KEY) == "complete"
    flip(path, 7)
    assert store.take_complete([KEY], told) == set()
    assert len(told) == 1 and KEY in told[0] and name in told[0] and store.state(KEY) == "missing"
    aside = store.root / "damaged" / f"{KEY}-1"
    assert name in (aside / "reason.txt").read_text() and (aside / name).exists()
    store.write_run(KEY, SPEC, HISTORY, WEIGHTS, RECORD)
    assert store.take_complete([KEY], told) == {KEY}


@pytest.mark.parametrize("name", FILES)
def test_a_lost_or_truncated_file_is_never_read_as_data(store: Store, name: str) -> None:
    path = folder(store) / name
    os.truncate(path, path.stat().st_size - 1)
    assert store.state(KEY).startswith(f"damaged: {name}") and ("bytes" in store.state(KEY) or name == "record.json")
    read = {"spec.json": store.spec, "history.csv": store.history, "weights.safetensors": store.weights}
    with pytest.raises(StoreError, match=f"(?s){KEY}.*{name}.*Remedy.*again"):
        read.get(name, store.read_record)(KEY)
    path.unlink()
    assert store.state(KEY) == f"damaged: {name} is missing"


def test_a_folder_without_a_record_is_half_written_and_set_aside(store: Store, told: Told) -> None:
    (folder(store) / "record.json").unlink()
    with store.claim([KEY]):  # one's own claim does not protect what somebody else left
        assert store.take_complete([KEY], told) == set()
    assert store.state(KEY) == "missing" and len(told) == 1


def test_a_run_made_good_meanwhile_is_not_set_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(store) / "weights.safetensors"
    flip(path, 3)

    @contextmanager
    def mended_before_the_move() -> Iterator[None]:
        flip(path, 3)
        yield

    monkeypatch.setattr(store._claims, "moving", mended_before_the_move)
    assert store.take_complete([KEY], pytest.fail) == {KEY}


def test_a_damaged_run_is_replaced_by_the_retrained_one(store: Store) -> None:
    flip(folder(store) / "history.csv", 0)
    store.write_run(KEY, SPEC, HISTORY, WEIGHTS, RECORD)
    assert store.state(KEY) == "complete" and (store.root / "damaged" / f"{KEY}-1").is_dir()


def test_an_intact_run_is_not_replaced(store: Store) -> None:
    store.write_run(KEY, SPEC, HISTORY, WEIGHTS, {**RECORD, "epochs": 99})
    assert store.read_record(KEY)["epochs"] == 12 and len(list((store.root / "runs").iterdir())) == 1


def test_a_run_under_the_name_of_another_is_damaged(store: Store, told: Told) -> None:
    shutil.copytree(folder(store), folder(store, OTHER))
    assert KEY in store.state(OTHER)
    store.write_run("third", SPEC, HISTORY, WEIGHTS, RECORD)
    shutil.copytree(folder(store) / "evaluations", folder(store, "third") / "evaluations")
    assert store.evaluation("third", "corruption", {"grid": (0.0, 0.1)}) is None and KEY in told[0]


def test_runs_has_the_columns_of_the_contract_and_then_the_records_other_scalars(store: Store) -> None:
    assert list(Store(store.root / "new").runs().columns) == RUN_COLUMNS
    store.write_run(OTHER, SPEC, HISTORY, WEIGHTS, {**RECORD, "batch_size": 64, "norms": [1.0]})
    runs = store.runs()
    assert list(runs.columns) == [*RUN_COLUMNS, "batch_size"] and list(runs.key) == [KEY, OTHER]
    named = {"key": KEY, "dataset": "digits", "arch": "fc", "seed": 3, "classes": 10}
    assert runs.iloc[0][RUN_COLUMNS].to_dict() == {**RECORD, **named}


def test_damaged_and_unfinished_runs_are_named_and_never_rows(store: Store, told: Told) -> None:
    shutil.copytree(folder(store), folder(store, OTHER))
    shutil.copytree(folder(store), folder(store, f".{OTHER}.{HOST}-1.00000000.part"))
    assert list(store.runs().key) == [KEY] and set(store.evaluations().key) == {KEY}
    assert len(told) == 2 and all(OTHER in message for message in told)


def test_a_run_that_could_not_be_a_row_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for spec, record in [(SPEC, {**RECORD, "status": "done"}), (SPEC, {}), ({}, RECORD)]:
        with pytest.raises(ValueError, match=f"run {KEY}"):
            store.write_run(KEY, spec, HISTORY, WEIGHTS, record)
    assert not store.root.exists()


def test_an_evaluation_is_returned_for_equal_settings_only(store: Store, told: Told) -> None:
    found = store.evaluation(KEY, "corruption", {"grid": (0.0, 0.1)})
    np.testing.assert_array_equal(found, [[0.0, 0.9], [0.1, np.nan]])
    assert store.evaluation(KEY, "corruption", {"grid": [0.0, 0.2]}) is None
    assert store.evaluation(KEY, "clean", {}) is None and store.evaluation(OTHER, "corruption", {}) is None
    store.write_evaluation(KEY, "corruption", {"grid": [0.2]}, [(0.2, 0.3)])
    store.write_evaluation(KEY, "clean", {}, [(0.0, 0.8)])
    rows = [[KEY, "clean", 0.0, 0.8], [KEY, "corruption", 0.2, 0.3]]
    assert store.evaluations().values.tolist() == rows and told == []
    assert list(Store(store.root / "new").evaluations().columns) == ["key", "evaluation", "strength", "accuracy"]
    with pytest.raises(StoreError, match=OTHER):
        store.write_evaluation(OTHER, "clean", {}, [(0.0, 0.8)])


def test_a_damaged_evaluation_is_named_and_set_aside_and_its_run_stays(store: Store, told: Told) -> None:
    path = folder(store) / "evaluations" / "corruption.json"
    flip(path, path.read_bytes().index(b"0.9"))
    assert store.evaluations().empty and path.exists() and len(told) == 1
    assert store.evaluation(KEY, "corruption", {"grid": [0.0, 0.1]}) is None
    assert not path.exists() and "corruption" in told[1] and KEY in told[1]
    assert {file.name for file in (store.root / "damaged" / f"{KEY}-1").iterdir()} == {"corruption.json", "reason.txt"}
    assert store.state(KEY) == "complete"


META = {"epoch": 3, "loss": [float("inf"), -0.0, 0.1], "none": None, "keys": (KEY,)}


def test_a_checkpoint_reads_back_exactly_and_the_last_one_counts(store: Store, told: Told) -> None:
    assert store.load_checkpoint("stack") is None and store.checkpoints() == []
    store.save_checkpoint("stack", {"w": np.zeros(2)}, {})
    store.save_checkpoint("stack", WEIGHTS, {**META, "best": float("nan")})
    tensors, meta = store.load_checkpoint("stack") or ({}, {})
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)
    assert np.isnan(meta.pop("best")) and meta == {**META, "keys": [KEY]}
    assert [name for name, _ in store.checkpoints()] == ["stack"]
    store.drop_checkpoint("stack")
    assert store.checkpoints() == [] and told == []


def test_a_damaged_checkpoint_is_named_and_set_aside(store: Store, told: Told) -> None:
    store.save_checkpoint("a", WEIGHTS, META)
    store.save_checkpoint("b", WEIGHTS, META)
    path = store.root / "checkpoints" / "a.safetensors"
    whole = path.read_bytes()
    for position in (positions := range(0, len(whole), 7)):
        path.write_bytes(whole)
        flip(path, position)
        assert store.load_checkpoint("a") is None, position
        assert not path.exists() and "checkpoint a" in told.pop()
    assert len(list((store.root / "damaged").glob("a-*/a.safetensors"))) == len(positions)
    for size in (len(whole) - 1, 100, 5, 0):
        path.write_bytes(whole[:size])
        assert [name for name, _ in store.checkpoints()] == ["b"] and "checkpoint a" in told.pop()
        assert not path.exists() and store.load_checkpoint("a") is None
        assert [name for name, _ in store.checkpoints()] == ["b"] and told == []  # it is named once


def test_a_root_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="file is a file"):
            Store(root)


def test_what_the_system_refuses_names_file_and_remedy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(
        StoreError, match=f"{OTHER}.*Permission denied.*writable or choose another store=.*run the same"
    ):
        store.write_run(OTHER, SPEC, HISTORY, WEIGHTS, RECORD)
    assert [path.name for path in (store.root / "runs").iterdir()] == [KEY]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_that_would_leave_the_store_are_refused(store: Store, name: str) -> None:
    for use in (store.state, store.load_checkpoint, lambda bad: store.evaluation(KEY, bad, {})):
        with pytest.raises(StoreError, match="must be letters"):
            use(name)


def test_model_is_built_from_spec_weights_and_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    export = types.ModuleType("noise_reg.nn.export")
    export.plain_model = lambda *given: types.SimpleNamespace(given=given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "noise_reg.nn", types.ModuleType("noise_reg.nn"))
    monkeypatch.setitem(sys.modules, "noise_reg.nn.export", export)
    spec, weights, record = vars(store.model(KEY))["given"]
    assert (spec, weights.keys(), record) == (store.spec(KEY), WEIGHTS.keys(), RECORD)


def test_importing_the_store_leaves_torch_out() -> None:
    code = "import sys, noise_reg.store; sys.exit('torch' in sys.modules)"
    home = Path(noise_reg.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=home, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("read", [Store.runs, Store.evaluations, Store.model_evaluations])
@pytest.mark.parametrize(
    ("folder", "named"),
    [
        ("store/runs", "it is part of the store {}"),
        (f"store/runs/{KEY}", "it is part of the store {}"),
        ("store/elsewhere", "it is part of the store {}"),  # which is not there
        ("", "in it there is the store {}"),
        ("plain", "is no store"),
        ("nowhere", "there is no such folder"),
    ],
)
def test_a_folder_that_is_no_store_says_so_and_which_one_is(
    store: Store, told: Told, read: Callable[[Store], pd.DataFrame], folder: str, named: str
) -> None:
    place = store.root.parent / folder
    (store.root.parent / "plain").mkdir()
    wrong = Store(place)
    wrong.warn = told
    assert read(wrong).empty
    (message,) = told
    assert str(place) in message and named.format(store.root) in message


def test_a_store_with_or_without_runs_is_not_doubted(store: Store, told: Told, tmp_path: Path) -> None:
    begun = Store(tmp_path / "begun")
    begun.warn = told
    with begun.claim([KEY]):
        pass
    for one in (store, begun):
        one.runs(), one.evaluations(), one.model_evaluations()
        one.check_place()
    assert told == []


def test_no_store_is_begun_in_another_or_around_it(store: Store, tmp_path: Path) -> None:
    for part in ("runs", f"runs/{KEY}"):
        with pytest.raises(StoreError, match=f"it is part of the store {store.root}. Remedy: .*store={store.root}, or"):
            Store(store.root / part).check_place()
    store.root.rename(tmp_path / "runs")  # the name that makes the folder around it look like a store
    with pytest.raises(
        StoreError, match=f"in it there is the store {tmp_path}/runs. Remedy: .*store={tmp_path}/runs, "
    ):
        Store(tmp_path).check_place()
