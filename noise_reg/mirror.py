"""A mirror of the store in Weights & Biases: one W&B run for each stored run and each artefact, brought up to date by any command.

The store is the truth and W&B a copy for the eye, so nothing here may stop or slow a training: the first failure becomes one
warning, and this command says no more of it; what is missing then is made up for by the next (mirror_state.py knows what that
is). wandb itself runs in a process of its own (mirror_process.py), whose threads, messages and hanging disturb nobody.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec

from tqdm import tqdm

from noise_reg import tracking
from noise_reg.mirror_state import MirrorState
from noise_reg.store import Store
from noise_reg.store.sealed import content_of_files
from noise_reg.tracking import TrackingSpec

P = ParamSpec("P")
ROOT = Path(__file__).parent.parent
PATIENCE = 60.0  # seconds beyond wandb's own timeouts after which its process is given up
MANY = 20  # runs for which a progress bar is worth showing


class MirrorError(Exception):
    """What the process that runs wandb says of its end."""


def harmless(method: Callable[Concatenate[Mirror, P], None]) -> Callable[Concatenate[Mirror, P], None]:
    """Turns the mirror's first failure into one warning, and every later call into nothing."""

    @wraps(method)
    def guarded(self: Mirror, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.silent:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  whatever it is, the training goes on
            self.silent = True
            reason = str(error) if isinstance(error, MirrorError) else f"{type(error).__name__}: {error}"
            self.warn(
                f"Weights & Biases is off for now, the next command mirrors what is missing: {' '.join(reason.split())[:300]}"
            )

    return guarded


class Mirror:
    """Mirrors the runs of `store`, and artefacts; `warn` receives at most one line."""

    def __init__(self, spec: TrackingSpec, store: Store, warn: Callable[[str], None]) -> None:
        self.spec, self.store, self.warn = spec, store, warn
        self.silent = spec.mode == "disabled"
        self.state = MirrorState(store.root)
        if spec.mode == "online":  # a missing key is worth knowing before hours of training
            self.connect()

    @harmless
    def connect(self) -> None:
        self._ask({"connect": True}, 0)

    @harmless
    def expect(self, keys: Iterable[str], group: str, tags: Sequence[str]) -> None:
        """Remembers that these runs are to be mirrored, should this command be interrupted."""
        self.state.expect(keys, self.spec.target, group, tags)

    @harmless
    def update(self, keys: Iterable[str], group: str, tags: Sequence[str]) -> None:
        """Mirrors, of these runs and of all that were ever to be, those of which the mirror does not show what is stored."""
        self.state.expect(keys, self.spec.target, group, tags)
        stale = [key for key in self.state.known() if self._is_stale(key, self.store.fingerprint)]
        if stale:
            self._ask({"runs": stale}, len(stale))

    @harmless
    def update_artefact(self, name: str, folder: Path, context: Mapping[str, Any]) -> None:
        """Mirrors a figure or table if it is not mirrored as it is."""
        id_ = f"artefact-{name}"
        self.state.expect([id_], self.spec.target, name, [])
        content = content_of_files(
            path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".csv") or path.name == "verdicts.json"
        )
        if self._is_stale(id_, lambda _: content):
            self._ask(
                {"artefact": name, "folder": str(folder.absolute()), "content": content, "context": dict(context)}, 1
            )

    def _is_stale(self, id_: str, content: Callable[[str], str | None]) -> bool:
        shown = self.state.read(id_).get(self.spec.target)
        return shown is not None and content(id_) not in (None, shown.content)

    def _ask(self, request: Mapping[str, Any], steps: int) -> None:
        """Has the request done by a process that runs wandb. Raises MirrorError, OSError."""
        timeouts = (tracking.SERVICE_TIMEOUT, tracking.INIT_TIMEOUT, tracking.FINISH_TIMEOUT)
        ours, theirs = Pipe()
        with ours, tempfile.TemporaryFile() as noise:
            with theirs:
                process = start(theirs, noise)
            try:
                ours.send({**request, "spec": self.spec, "root": str(self.store.root), "timeouts": timeouts})
                with tqdm(total=steps, unit="run", desc="mirroring", disable=steps < MANY, dynamic_ncols=True) as bar:
                    for _ in answers(ours, sum(timeouts) + PATIENCE):
                        bar.update()
                if process.wait(PATIENCE):
                    raise MirrorError(f"its process ended with status {process.returncode}: {last_line(noise)}")
            finally:
                end(process)


def start(theirs: Connection, noise: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process of mirror_process.py, which talks over `theirs`; what it prints goes to `noise`."""
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    return subprocess.Popen(
        [sys.executable, "-m", "noise_reg.mirror_process", str(theirs.fileno())],
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        stdout=noise,
        stderr=noise,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # an interrupt from the keyboard reaches this process, which ends it
    )


def answers(ours: Connection, patience: float) -> Iterable[str]:
    """The ids of what is done, as it is done. Raises MirrorError."""
    while ours.poll(patience):
        try:
            kind, value = ours.recv()
        except (EOFError, ConnectionResetError):
            return
        if kind == "failed":
            raise MirrorError(value)
        yield value
    raise MirrorError(f"no answer for {patience:.0f} s")


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(noise: IO[bytes]) -> str:
    noise.seek(0)
    lines = noise.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing was printed"
