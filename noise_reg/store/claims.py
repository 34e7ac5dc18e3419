"""Who works on what: a lock file a run, held by the operating system for a living process and freed with its death."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from noise_reg.atomic import explained


class Claims:
    """The claims of one store; `folder` is created with the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: set[str] = set()

    @contextmanager
    def take(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Those of `keys` that nobody holds, in their order, held until the end of the block. Raises StoreError."""
        with ExitStack() as locks:
            taken = []
            with explained(self.folder):
                for key in dict.fromkeys(keys):
                    if (lock := self._locked(key)) is not None:
                        locks.callback(lock.release)
                        taken.append(key)
            self._held |= set(taken)
            locks.callback(self._held.difference_update, taken)
            yield taken

    def is_elsewhere(self, key: str) -> bool:
        """Whether somebody other than this object holds `key`. Raises StoreError."""
        if key in self._held or not self._path(key).exists():
            return False
        with explained(self.folder):
            if (lock := self._locked(key)) is None:
                return True
            lock.release()
        return False

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Held by whoever moves something out of the store, after one more look at it: so nothing whole is moved."""
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".moving.lock", thread_local=False)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _locked(self, key: str) -> FileLock | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._path(key), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock
