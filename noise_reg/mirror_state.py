"""What of a store is shown in Weights & Biases: a small file a run, written when it is asked for and again when it is done.

mirror/<id>.json         <id> is a run's key, or `artefact-<name>`; by target (mode and project) the group and tags it is shown
                         under, the content that was shown (null: none yet), and the folder under wandb/ that holds it
locks/mirror-<id>.lock   held while it is shown, so that no two processes do so at once
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from noise_reg.atomic import StoreError, explained, replace_file
from noise_reg.store.sealed import Damaged, Missing, read_bytes, seal, unseal

ID = re.compile(r"[0-9a-f]{16}|artefact-[A-Za-z0-9._-]+")
LOCK_TIMEOUT = 300.0  # seconds: more than a run takes whose server does not answer


@dataclass(frozen=True)
class Shown:
    """How one run or artefact is shown at one target."""

    group: str
    tags: Sequence[str]
    content: str | None = None
    folder: str | None = None


def read_shown(note: Any) -> Shown | None:
    """None for what no version wrote."""
    if not isinstance(note, dict):
        return None
    group, tags, content, folder = (note.get(name) for name in ("group", "tags", "content", "folder"))
    right = isinstance(group, str) and isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
    right = right and all(one is None or isinstance(one, str) for one in (content, folder))
    return Shown(group, tags, content, folder) if right else None  # type: ignore[arg-type]


class MirrorState:
    def __init__(self, root: Path) -> None:
        self.folder, self.locks = root / "mirror", root / "locks"

    def known(self) -> list[str]:
        """The ids of everything that was ever asked for."""
        return sorted(path.stem for path in self.folder.glob("[!.]*.json") if ID.fullmatch(path.stem))

    def read(self, id_: str) -> dict[str, Shown]:
        """By target; without what is not known, damaged or malformed, so that it is shown anew. What another version of the code added
        is passed over. Raises StoreError."""
        try:
            targets = unseal(read_bytes(self._path(id_))).get("targets")
        except (Missing, Damaged):
            return {}
        found = {target: read_shown(shown) for target, shown in targets.items()} if isinstance(targets, dict) else {}
        return {target: shown for target, shown in found.items() if shown is not None}

    def write(self, id_: str, target: str, shown: Shown) -> None:
        """Of one target; call it with the lock held. Raises StoreError."""
        path = self._path(id_)
        targets = {name: asdict(one) for name, one in {**self.read(id_), target: shown}.items()}
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, [seal({"id": id_, "targets": targets})])

    def expect(self, ids: Iterable[str], target: str, group: str, tags: Sequence[str]) -> None:
        """Remembers that these are to be shown, so that whatever command comes next can make up for it. Raises StoreError."""
        for id_ in ids:
            if target not in self.read(id_):
                with self.lock(id_):
                    if target not in self.read(id_):
                        self.write(id_, target, Shown(group, list(tags)))

    def done(self, id_: str, target: str, content: str, folder: str) -> None:
        """Notes what was shown; call it with the lock held. Raises StoreError."""
        self.write(id_, target, replace(self.read(id_)[target], content=content, folder=folder))

    @contextmanager
    def lock(self, id_: str) -> Iterator[None]:
        """Held by one process at a time. Raises StoreError."""
        path = self.locks / f"mirror-{id_}.lock"
        lock = FileLock(path, thread_local=False)
        try:
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=LOCK_TIMEOUT)
        except Timeout as error:
            raise StoreError(f"{path}: another process has held it for {LOCK_TIMEOUT:.0f} s") from error
        try:
            yield
        finally:
            lock.release()

    def _path(self, id_: str) -> Path:
        return self.folder / f"{id_}.json"
