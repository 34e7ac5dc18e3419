"""The mirror ends in one W&B run for each stored run, showing what is stored, whatever was interrupted, killed, full or switched off."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from noise_reg import mirror as mirror_module
from noise_reg import mirror_process
from noise_reg.mirror import Mirror
from noise_reg.mirror_state import MirrorState
from noise_reg.pipeline import Pipeline
from noise_reg.reevaluate import reevaluate
from noise_reg.store import Store
from noise_reg.tracking import TrackingSpec, check_whole
from tests.composed import composed, job

SPEC = {"dataset": {"name": "digits"}, "arch": {"name": "fc"}, "seed": 0}
KEYS = [f"{n:016x}" for n in range(20)]


def filled(root: Path, count: int, epochs: int = 2) -> Store:
    store = Store(root)
    history = pd.DataFrame({"epoch": range(1, epochs + 1), "test_accuracy": 0.5})
    for key in KEYS[:count]:
        record = {"method": "none", "status": "completed", "test_accuracy": 0.5}
        store.write_run(key, SPEC, history, {}, record)
    return store


def mirror_of(store: Store, mode: str = "offline", project: str = "mirror") -> tuple[Mirror, list[str]]:
    said: list[str] = []
    return Mirror(TrackingSpec(mode, project, str(store.root)), store, said.append), said


def folders(store: Store) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted((store.root / "wandb").glob("offline-run-*")):
        found.setdefault(path.name.split("-", 3)[3], []).append(path)
    return found


def assert_mirrored_once(store: Store, keys: list[str]) -> None:
    found = folders(store)
    assert sorted(found) == keys and {len(paths) for paths in found.values()} == {1}
    for (path,) in found.values():
        check_whole(next(path.glob("*.wandb")))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for each process that was started to run wandb."""
    found, start = [], mirror_module.start

    def counted(*arguments: Any) -> Any:
        found.append(start(*arguments))
        return found[-1]

    monkeypatch.setattr(mirror_module, "start", counted)
    return found


# the whole way: commands and wandb itself


def shown(store: Store, key: str) -> set[str]:
    """The evaluations in the table of a run's one folder."""
    (folder,) = folders(store)[key]
    (file,) = folder.glob("files/media/table/evaluations*.json")
    return {row[1] for row in json.loads(file.read_text())["data"]}


def test_any_command_brings_the_mirror_up_to_date_and_only_where_it_is_not(tmp_path: Path, started: list[Any]) -> None:
    small = ["dataset=digits", "arch=fc_small", "max_epochs=1", f"store={tmp_path}", "corruption.draws=1"]

    def train(mode: str, *seeds: int) -> None:
        jobs = [job(*small, f"seed={seed}", f"wandb={mode}") for seed in seeds]
        Pipeline(jobs[0].runtime).complete(jobs, "train", ["train"])

    train("disabled", 0, 1)
    store = Store(tmp_path)
    keys = sorted(store.runs()["key"])
    assert not folders(store) and not (tmp_path / "mirror").exists()
    train("offline", 0, 1)
    assert_mirrored_once(store, keys)
    assert len(started) == 1
    train("offline", 0, 1)
    assert len(started) == 1  # nothing to do
    (old,) = folders(store)[keys[0]]
    with composed(
        "evaluate", f"store={tmp_path}", "wandb=offline", f"runs=[{keys[0]}]", "evaluations=[validation]"
    ) as cfg:
        reevaluate(cfg)
    assert len(started) == 2
    assert_mirrored_once(store, keys)
    assert not old.exists() and shown(store, keys[0]) == {"clean", "corruption", "validation"}
    assert shown(store, keys[1]) == {"clean", "corruption"}
    assert MirrorState(tmp_path).read(keys[0])["offline noise_reg"].group == "train"


def test_what_an_interrupted_command_left_is_made_up_for_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [
        "dataset=digits",
        "arch=fc_small",
        "max_epochs=1",
        f"store={tmp_path}",
        "wandb=offline",
        "corruption.draws=1",
    ]
    jobs = [job(*small, f"seed={seed}", "stack_size=1", "workers=1") for seed in range(3)]
    recorded = Pipeline.record
    stored: list[Any] = []

    def interrupted(self: Pipeline, *arguments: Any) -> None:
        if len(stored) == 2:
            raise KeyboardInterrupt
        recorded(self, *arguments)
        stored.append(arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Pipeline(jobs[0].runtime).complete(jobs, "fig2", ["fig2"])
    store = Store(tmp_path)
    left = sorted(store.runs()["key"])
    assert len(left) == 2 and not folders(store)
    other = job(*small, "seed=9")
    Pipeline(other.runtime).complete([other], "train", ["train"])  # which does not ask for those two
    assert_mirrored_once(store, sorted([*left, other.spec.key]))
    assert MirrorState(tmp_path).read(left[0])["offline noise_reg"].group == "fig2"


def test_a_kill_while_it_mirrors_leaves_nothing_empty_and_nothing_twice(tmp_path: Path) -> None:
    store = filled(tmp_path, 12)
    child = os.fork()
    if child == 0:
        try:
            mirror_of(store)[0].update(KEYS[:12], "g", [])
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while len(folders(store)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(folders(store)) < 12
    mirror, said = mirror_of(store)
    mirror.update(KEYS[:12], "g", [])
    assert said == []
    assert_mirrored_once(store, KEYS[:12])


def test_two_processes_mirror_each_run_once(tmp_path: Path) -> None:
    store = filled(tmp_path, 6)
    both = [mirror_of(store) for _ in range(2)]
    threads = [threading.Thread(target=mirror.update, args=(KEYS[:6], "g", [])) for mirror, _ in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [said for _, said in both] == [[], []]
    assert_mirrored_once(store, KEYS[:6])


# what goes wrong in the process that runs wandb


@pytest.fixture
def begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has every new Python process begin with some lines; '' for none."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()

    def write(lines: str) -> None:
        (tmp_path / "path" / "sitecustomize.py").write_text(lines)

    return write


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
FAULTS = {
    "a disk full at once": (FULL.format(100), "OSError|StoreError"),
    "a disk full in the middle": (FULL.format(8000), "was not written to its end"),
    "no wandb": ("import sys; sys.modules['wandb'] = None", "ModuleNotFoundError: import of wandb halted"),
    "a crash": ("import os; os.kill(os.getpid(), 9)", "its process ended with status -9|Broken|reset"),
    "a hang": ("import time; time.sleep(60)", "no answer for"),
    "noise": ("import sys; sys.stderr.write('noise ' * 9999); sys.exit(3)", r"its process ended with status \d|Broken|reset"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_warning_and_the_next_command_makes_up_for_it(
    fault: str,
    tmp_path: Path,
    begins_with: Callable[[str], None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines, words = FAULTS[fault]
    if fault == "a hang":
        monkeypatch.setattr("noise_reg.mirror.PATIENCE", 0.3)
        monkeypatch.setattr("noise_reg.tracking.INIT_TIMEOUT", 0.1)
        monkeypatch.setattr("noise_reg.tracking.SERVICE_TIMEOUT", 0.1)
        monkeypatch.setattr("noise_reg.tracking.FINISH_TIMEOUT", 0.1)
    store = filled(tmp_path, 3, epochs=100)
    begins_with(lines)
    mirror, said = mirror_of(store)
    for _ in range(2):
        mirror.update(KEYS[:3], "g", [])
    (warning,) = said
    assert re.search(words, warning), warning
    assert "the next command mirrors what is missing" in warning and "\n" not in warning
    assert capfd.readouterr() == ("", "")
    if fault in ("a disk full in the middle", "a hang"):
        monkeypatch.undo()
        begins_with("")
        mirror, said = mirror_of(store)
        mirror.update(KEYS[:3], "g", [])
        assert said == []
        assert_mirrored_once(store, KEYS[:3])


def test_a_store_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    (tmp_path / "mirror").write_text("in the way")
    mirror, said = mirror_of(store)
    mirror.expect(KEYS[:1], "g", [])
    mirror.update(KEYS[:1], "g", [])
    (warning,) = said
    assert f"{tmp_path}/mirror" in warning


# every order of events, with files in place of wandb


class Killed(BaseException):
    pass


class FakeWriter:
    """Writes what it is given into a folder, in two steps; it dies before its n-th step."""

    def __init__(self, store: Store, project: str, steps: Iterator[int]) -> None:
        self.spec, self.store, self.steps = TrackingSpec("offline", project, str(store.root)), store, steps

    def step(self) -> None:
        if next(self.steps, 1) == 0:
            raise Killed

    def write(self, key: str) -> Path:
        self.step()
        taken = {path.name for paths in folders(self.store).values() for path in paths}
        number = next(n for n in range(10**6) if f"offline-run-{n:015d}-{key}" not in taken)
        folder = self.store.root / "wandb" / f"offline-run-{number:015d}-{key}"
        folder.mkdir(parents=True)
        self.step()
        (folder / "content").write_text(f"{self.spec.project} {self.store.evaluations([key])['accuracy'].tolist()}")
        self.step()
        return folder

    def remove_others(self, id_: str, known: list[str]) -> None:
        for folder in folders(self.store).get(id_, []):
            if folder.name not in known:
                (folder / "content").unlink(missing_ok=True)
                folder.rmdir()
                self.step()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["evaluate", "mirror a", "mirror b"]), st.sampled_from(KEYS[:2]), st.integers(0, 6)),
        max_size=8,
    )
)
@example([("mirror a", KEYS[0], 1)] * 3)
@example([("mirror a", KEYS[0], 9), ("evaluate", KEYS[0], 0), ("mirror a", KEYS[0], 4), ("mirror a", KEYS[0], 2)])
def test_every_order_of_events_ends_in_one_folder_a_run_and_target(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str, int]]
) -> None:
    store = filled(tmp_path_factory.mktemp("events"), 2)
    state = MirrorState(store.root)

    def mirrored(key: str, project: str, lives: int) -> None:
        writer: Any = FakeWriter(store, project, iter([*[1] * lives, 0] if lives < 6 else []))
        state.expect([key], writer.spec.target, "g", [])
        with contextlib.suppress(Killed):
            mirror_process.show(key, lambda: store.fingerprint(key), lambda _: writer.write(key), writer, state)

    for number, (event, key, lives) in enumerate(events):
        if event == "evaluate":
            store.write_evaluation(key, "clean", {}, [(0.0, number / 10)])
        else:
            mirrored(key, event[-1], lives)
        recorded = [one.folder for one in state.read(key).values() if one.folder]
        assert len(folders(store).get(key, [])) <= len(recorded) + 1  # what a killed process left is not piled up
    for key in KEYS[:2]:
        for project in ("a", "b"):
            mirrored(key, project, 99)
        content = [f"{project} {store.evaluations([key])['accuracy'].tolist()}" for project in ("a", "b")]
        assert sorted((path / "content").read_text() for path in folders(store)[key]) == content
