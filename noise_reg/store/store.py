"""The store: one folder a run, named by the run's key, written whole or not at all and verified whenever it is read.

runs/<key>/                    see run_folder.py
checkpoints/<name>.safetensors of stacks in mid-training
locks/<key>.lock               held while a process trains that run
models/<name>/evaluations/      of networks of the user's own, see `write_model_evaluation`
mirror/<key>.json              what of it Weights & Biases shows, see mirror_state.py
damaged/<key or name>-<n>/     what was found damaged, with reason.txt
"""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from noise_reg import atomic
from noise_reg.atomic import StoreError, explained
from noise_reg.store.claims import Claims
from noise_reg.store.nearby import is_store, stores_nearby, where_else
from noise_reg.store.run_folder import RunFolder, describe
from noise_reg.store.sealed import Damaged, Missing, Tensors, checkpoint_chunks, plain, read_checkpoint

if TYPE_CHECKING:
    import torch

__all__ = ["EVALUATION_COLUMNS", "RUN_COLUMNS", "Store", "StoreError"]

RUN_COLUMNS = ["key", "dataset", "arch", "method", "seed", "status", "stopped_by", "epochs"]
RUN_COLUMNS += ["train_accuracy", "test_accuracy", "seconds", "classes"]
EVALUATION_COLUMNS = ["key", "evaluation", "strength", "accuracy"]
OWN = {
    "runs",
    "checkpoints",
    "locks",
    "damaged",
    "mirror",
    "models",
    "wandb",
    "hydra",
}  # what stands in the folder of a store
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")

AGAIN = "the command that made it makes it anew"

Warn = Callable[[str], None]


def to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def checked_name(name: str) -> str:
    """`name`, which can be a file's name. Raises StoreError."""
    if not NAME.fullmatch(name):
        raise StoreError(f"name = {name!r}: must be letters, digits and . _ = + -, beginning with a letter or a digit")
    return name


class Store:
    """A folder of runs that any number of processes may read and write at once.

    `warn` is told of each damaged thing met; it prints to stderr until it is replaced.
    """

    def __init__(self, root: str | Path) -> None:
        """Nothing is created before something is written. Raises StoreError if `root` cannot be a folder."""
        self.root = Path(root).absolute()  # Hydra may change the working folder later
        self.warn: Warn = to_stderr
        self._claims = Claims(self.root / "locks")
        nearest = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not nearest.is_dir():
            raise StoreError(f"store = {root}: {nearest} is a file. Remedy: choose a folder with store=...")

    def check_place(self) -> None:
        """Raises StoreError where a store would be begun in a folder that holds other things already."""
        if not self.root.is_dir() or is_store(self.root):
            return
        others = sorted(path.name for path in self.root.iterdir() if path.name not in OWN and path.name[0] != ".")
        nearby = stores_nearby(self.root)
        if nearby and (others or nearby[0] == self.root / "runs"):
            raise StoreError(
                f"store = {self.root}: is no store{where_else(self.root)}. Remedy: choose that one, as store={nearby[0]}, or a new "
                "folder"
            )
        if others:
            more = ", ..." if len(others) > 3 else ""
            raise StoreError(
                f"store = {self.root}: is no store, and holds other things ({', '.join(others[:3])}{more}). Remedy: choose a "
                f"folder of its own, as store={self.root / 'runs'}"
            )

    def warn_if_no_store(self) -> None:
        """Names a folder that is not there or is no store, and the store nearby that may be meant."""
        if is_store(self.root):
            return
        there, elsewhere = self.root.exists(), where_else(self.root)
        begun = there and any((self.root / name).is_dir() for name in OWN)  # a store that has no runs yet
        if elsewhere or not begun:
            what = "is no store" if there else "there is no such folder"
            self.warn(f"store = {self.root}: {what}, so it holds no runs{elsewhere}")

    # --- runs -------------------------------------------------------------------------------------------------------

    def state(self, key: str) -> str:
        """'missing', 'complete' (every checksum holds) or 'damaged: <what>'. Raises StoreError for an unreadable file."""
        return self._run(key).state()

    def take_complete(self, keys: Iterable[str], warn: Warn) -> set[str]:
        """The keys whose runs are stored and intact; damaged and half-written ones are named, set aside and left out.

        Raises StoreError if something cannot be read or moved.
        """
        for pattern in ("runs/.*.part", "checkpoints/.*.part", "runs/*/evaluations/.*.part"):
            atomic.remove_abandoned(self.root.glob(pattern))
        complete = set()
        for key in keys:
            run = self._run(key)
            state = run.state()
            if state.startswith("damaged") and (run.has_record() or not self._claims.is_elsewhere(key)):
                self._set_aside_run(run, warn)
                state = run.state()
            if state == "complete":
                complete.add(key)
        return complete

    def write_run(
        self, key: str, spec: Mapping[str, Any], history: pd.DataFrame, weights: Tensors, record: Mapping[str, Any]
    ) -> None:
        """Stores a run whole; if it is stored and intact already, that one stays.

        Raises StoreError (a full disk, no permission), leaving nothing behind; ValueError or TypeError if the run lacks what
        `runs` needs or holds what cannot be stored.
        """
        describe(key, spec, record)
        run = self._run(key)
        part = run.path.with_name(atomic.part_name(key))
        try:
            run.write(part, spec, history, weights, record)
            with explained(run.path):
                while not atomic.is_placed(part, run.path):
                    if run.state() == "complete":  # another process was first
                        return
                    self._set_aside_run(run, self.warn)
                atomic.sync_folder(run.path.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def read_record(self, key: str) -> dict[str, Any]:
        """The record given to `write_run`; what was None or not finite is NaN.

        Like the other readers of one run, raises StoreError if it is missing or damaged.
        """
        with self._readable(key) as run:
            return run.record()

    def spec(self, key: str) -> dict[str, Any]:
        with self._readable(key) as run:
            return run.spec()

    def history(self, key: str) -> pd.DataFrame:
        with self._readable(key) as run:
            return run.history()

    def weights(self, key: str) -> dict[str, np.ndarray]:
        with self._readable(key) as run:
            return run.weights()

    def model(self, key: str) -> torch.nn.Module:
        """The trained network as a plain module on pixels in [0, 1]."""
        from noise_reg.nn.export import plain_model  # not at the head: figures are drawn from a store without torch
        from noise_reg.spec import SpecError

        try:
            return plain_model(self.spec(key), self.weights(key), self.read_record(key))
        except SpecError as error:
            raise StoreError(
                f"run {key} of the store {self.root}: another version of the code made it: {error}"
            ) from error

    def fingerprint(self, key: str) -> str | None:
        """Something that changes with the record and with every evaluation of a run; None if there is no such run."""
        try:
            return self._run(key).fingerprint()
        except (Missing, Damaged):
            return None

    def keys(self) -> list[str]:
        """Of every run that is there, intact or not, in order."""
        return [run.key for run in self._runs()]

    def runs(self) -> pd.DataFrame:
        """One row a run: `RUN_COLUMNS`, then the record's other scalars. Damaged runs are named and left out."""
        self.warn_if_no_store()
        rows: list[dict[str, Any]] = []
        for run in self._runs():
            with self._left_out_if_damaged(f"run {run.key}"):
                rows.append(run.row())
        return pd.DataFrame(rows, columns=list(dict.fromkeys(itertools.chain(RUN_COLUMNS, *rows))))

    # --- evaluations ------------------------------------------------------------------------------------------------

    def write_evaluation(
        self,
        key: str,
        name: str,
        settings: Mapping[str, Any],
        rows: Sequence[tuple[float, float]],
        data: Mapping[str, str] | None = None,
    ) -> None:
        """(strength, accuracy) rows in place of any stored under `name`. Raises StoreError, also if there is no such run.

        data: what names the data set it was measured on, where that is not the run's own.
        """
        run = self._run(key)
        if not run.has_record():
            raise StoreError(f"run {key} is not in the store {self.root}; evaluation {name} cannot be added to it")
        run.write_evaluation(checked_name(name), settings, rows, data or {})

    def evaluation(self, key: str, name: str, settings: Mapping[str, Any]) -> pd.DataFrame | None:
        """Strengths and accuracies, if stored with equal settings. A damaged evaluation is named and set aside."""
        run = self._run(key)
        path = run.evaluation_path(checked_name(name))
        try:
            stored = run.evaluation(name)
        except Missing:
            return None
        except Damaged:
            self._set_aside(path, key, f"evaluation {name} of run {key}", lambda: run.evaluation(name), self.warn)
            return None
        if stored["settings"] != plain(settings):
            return None
        return pd.DataFrame(stored["rows"], columns=EVALUATION_COLUMNS[2:], dtype=float)

    def evaluation_data(self, key: str, name: str) -> dict[str, str]:
        """What names the data set that a stored evaluation was measured on, where it is not the run's own and was said."""
        with self._readable(key) as run:
            return dict(run.evaluation(name).get("data", {}))

    def evaluations(self, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """One row a strength of each evaluation, of these runs or of all: `EVALUATION_COLUMNS`. Damaged ones are named and left out."""
        if keys is None:
            self.warn_if_no_store()
        rows: list[tuple[Any, ...]] = []
        for run in self._runs() if keys is None else map(self._run, keys):
            with self._left_out_if_damaged(f"run {run.key}"):
                run.record()
                for name in run.evaluation_names():
                    with self._left_out_if_damaged(f"evaluation {name} of run {run.key}"):
                        rows += [(run.key, name, *row) for row in run.evaluation(name)["rows"]]
        return pd.DataFrame(rows, columns=EVALUATION_COLUMNS).astype({"strength": float, "accuracy": float})

    # --- evaluations of models that are not runs ---------------------------------------------------------------------

    def write_model_evaluation(
        self,
        name: str,
        evaluation: str,
        settings: Mapping[str, Any],
        rows: Sequence[tuple[float, float]],
        data: Mapping[str, str],
    ) -> None:
        """(strength, accuracy) rows of the user's model `name`, in place of any stored under the evaluation's name. Raises StoreError.

        data: what names the data set it was measured on.
        """
        self._model(name).write_evaluation(checked_name(evaluation), settings, rows, data)

    def model_evaluations(self) -> pd.DataFrame:
        """Like `evaluations`, of the user's own models: `key` is the name they were given. Damaged ones are named and left out."""
        self.warn_if_no_store()
        rows: list[tuple[Any, ...]] = []
        for model in map(RunFolder, sorted((self.root / "models").glob("[!.]*"))):
            for name in model.evaluation_names():
                with self._left_out_if_damaged(f"evaluation {name} of model {model.key}"):
                    rows += [(model.key, name, *row) for row in model.evaluation(name)["rows"]]
        return pd.DataFrame(rows, columns=EVALUATION_COLUMNS).astype({"strength": float, "accuracy": float})

    def model_evaluation_data(self, name: str) -> dict[str, dict[str, str]]:
        """By evaluation, what names the data set that those of the user's model `name` were measured on."""
        model, found = self._model(name), {}
        for evaluation in model.evaluation_names():
            with self._left_out_if_damaged(f"evaluation {evaluation} of model {name}"):
                found[evaluation] = dict(model.evaluation(evaluation)["data"])
        return found

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, name: str, tensors: Tensors, meta: Mapping[str, Any]) -> None:
        """In place of the checkpoint `name` there was; that one stays if this raises StoreError, ValueError or TypeError."""
        path = self._checkpoint(name)
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.replace_file(path, checkpoint_chunks(tensors, meta))

    def load_checkpoint(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Tensors and meta as saved; a damaged checkpoint is named, set aside and None."""
        path = self._checkpoint(name)
        try:
            return read_checkpoint(path, header_only=False)
        except Missing:
            return None
        except Damaged:
            self._set_aside_checkpoint(path, header_only=False)
            return None

    def checkpoints(self) -> list[tuple[str, dict[str, Any]]]:
        """Names and metas, from the headers alone. One whose header is damaged is named and set aside."""
        found = []
        for path in sorted((self.root / "checkpoints").glob("[!.]*.safetensors")):
            try:
                found.append((path.stem, read_checkpoint(path, header_only=True)[1]))
            except Missing:  # its stack has ended meanwhile
                continue
            except Damaged:
                self._set_aside_checkpoint(path, header_only=True)
        return found

    def drop_checkpoint(self, name: str) -> None:
        """Raises StoreError if it is there and cannot be removed."""
        path = self._checkpoint(name)
        with explained(path):
            path.unlink(missing_ok=True)

    # --- claims -----------------------------------------------------------------------------------------------------

    def claim(self, keys: Iterable[str]) -> AbstractContextManager[list[str]]:
        """`with store.claim(keys) as mine:` holds those of `keys` that no process holds; they end with the block or process.

        What `take_complete` found may be old by then: ask it again for `mine` before training. Raises StoreError.
        """
        return self._claims.take(checked_name(key) for key in keys)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _run(self, key: str) -> RunFolder:
        return RunFolder(self.root / "runs" / checked_name(key))

    def _runs(self) -> list[RunFolder]:
        return [RunFolder(path) for path in sorted((self.root / "runs").glob("[!.]*"))]

    def _model(self, name: str) -> RunFolder:
        return RunFolder(self.root / "models" / checked_name(name))

    def _checkpoint(self, name: str) -> Path:
        return self.root / "checkpoints" / f"{checked_name(name)}.safetensors"

    @contextmanager
    def _readable(self, key: str) -> Iterator[RunFolder]:
        run = self._run(key)
        try:
            yield run
        except Missing:
            raise StoreError(f"run {key} is not in the store {self.root}") from None
        except Damaged as damage:
            raise StoreError(
                f"{run.path}: run {key} is damaged: {damage}. Remedy: run the command that trained it again, which sets it "
                "aside and trains it anew."
            ) from None

    @contextmanager
    def _left_out_if_damaged(self, what: str) -> Iterator[None]:
        try:
            yield
        except Missing:  # set aside by another process meanwhile
            pass
        except Damaged as damage:
            self.warn(
                f"{what} is damaged ({damage}) and left out; the command that made it sets it aside and makes it anew"
            )

    def _set_aside_run(self, run: RunFolder, warn: Warn) -> None:
        self._set_aside(run.path, run.key, f"run {run.key}", run.verify, warn)

    def _set_aside_checkpoint(self, path: Path, *, header_only: bool) -> None:
        name = f"checkpoint {path.stem}"
        self._set_aside(
            path,
            path.stem,
            name,
            lambda: read_checkpoint(path, header_only=header_only),
            self.warn,
            "its runs begin anew",
        )

    def _set_aside(
        self, path: Path, label: str, what: str, verify: Callable[[], object], warn: Warn, then: str = AGAIN
    ) -> None:
        """Moves `path` if it still fails `verify` once nobody else can move it, and says so with what comes of it. Raises StoreError,
        which says what is damaged, where it cannot be moved."""
        try:
            with self._claims.moving():
                try:
                    verify()
                except Missing:
                    return
                except Damaged as damage:
                    reason = f"{what} is damaged: {damage}"
                    target = atomic.move_aside(path, self.root / "damaged", label, reason)
                else:
                    return
        except StoreError as error:
            raise StoreError(f"{what} is damaged and cannot be set aside: {error}") from error
        warn(f"{reason}. It is set aside in {target}; {then}")
