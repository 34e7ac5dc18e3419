"""Bytes to disk so that a reader, after a crash too, finds a whole file or folder or none.

Everything is written under a `.part` name first, synced, then renamed. The `.part` name carries host and process, so what a
killed process left can be told from what a living one is writing.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from noise_reg.errors import UserError
from noise_reg.faults import OTHER_PLACE, REMEDIES

Chunks = Iterable[bytes | memoryview]

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
PART = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)\.[0-9a-f]{8}\.part\Z")
OLD = re.compile(
    r"\.(?P<name>.+)\.old\.[0-9a-f]{8}-\d+\.[0-9a-f]{8}\.part\Z"
)  # a folder that a new one was about to replace
ABANDONED_AFTER = 3600.0  # seconds without a write; the only sign when the writer is on another host


class StoreError(UserError):
    """A store that cannot be read or written: names the file, what is wrong with it and the remedy."""


@contextmanager
def explained(path: Path, setting: str = "store") -> Iterator[None]:
    """An OSError while `path` is written becomes a StoreError that names the file and the remedy; `setting` says where it lies."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = REMEDIES.get(error.errno or 0, OTHER_PLACE).format(setting=setting)
        raise StoreError(
            f"{path}: cannot be written: {reason}. Remedy: {remedy}; nothing already stored is lost; "
            "run the same command again."
        ) from error


def check_writable(folder: Path) -> None:
    """Raises StoreError where results could not be written under `folder`, before any work for them; leaves nothing behind."""
    try:
        with explained(folder, "results"), tempfile.TemporaryFile(dir=nearest(folder.absolute())):
            pass
    except ValueError as error:  # a character that the system knows in no path
        raise StoreError(
            f"results = {str(folder)!r}: no path can have this name. Remedy: choose another results=..."
        ) from error


def nearest(path: Path) -> Path:
    """`path` or the lowest of its parents that is there. Raises OSError, ValueError where `path` can be none."""
    for one in (path, *path.parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            one.lstat()
            return one
    return Path(path.anchor)


def at_home(path: Any) -> Any:
    """`path`, with the home folder for a leading `~`; what is no text stays as it is."""
    return os.path.expanduser(path) if isinstance(path, str) else path


def part_name(name: str) -> str:
    return f".{name}.{HOST}-{os.getpid()}.{secrets.token_hex(4)}.part"


def write_file(path: Path, chunks: Chunks) -> dict[str, str | int]:
    """A new file, synced; returns its `sha256` and `size`. Raises OSError, and leaves what was written until then."""
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "size": size}


def replace_file(path: Path, chunks: Chunks) -> None:
    """`path` holds all of `chunks`, or what it held before. Raises OSError."""
    part = path.with_name(part_name(path.name))
    try:
        write_file(part, chunks)
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def is_placed(part: Path, final: Path) -> bool:
    """Renames the folder `part`; False if something is in the way. Raises OSError for anything else."""
    try:
        os.replace(part, final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


@contextmanager
def replacing_folder(final: Path) -> Iterator[Path]:
    """An empty folder beside `final`, which takes its place as a whole once the block ends. Where the block does not end, or the
    process is killed, `final` stays as it was; between the two renames the next `recover_folders` brings the old one back.
    Raises OSError."""
    final = Path(os.path.realpath(final))
    if final.exists() and not final.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file stands in the folder's place", str(final))
    final.parent.mkdir(parents=True, exist_ok=True)
    recover_folders(final.parent)
    part = final.with_name(part_name(final.name))
    part.mkdir()
    try:
        yield part
        sync_folder(part)
        take_place(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def take_place(part: Path, final: Path) -> None:
    """Renames the folder `part` to `final`; what stood there is removed, or stands there again if that fails."""
    olds = []
    try:
        while not is_placed(part, final):  # again where another process was faster
            olds.append(final.with_name(part_name(f"{final.name}.old")))
            with suppress(FileNotFoundError):
                os.rename(final, olds[-1])
        sync_folder(final.parent)
    finally:
        recover_folders(final.parent)
        for old in olds:
            shutil.rmtree(old, ignore_errors=True)


def recover_folders(parent: Path) -> None:
    """Brings back the folders under `parent` that a killed process had moved out of the way of new ones, and removes what else
    it left. Raises OSError."""
    found = [(path, match["name"]) for path in parent.glob(".*.old.*.part") if (match := OLD.match(path.name))]
    for old, name in sorted(found, key=lambda one: one[0].lstat().st_mtime, reverse=True):
        if not os.path.lexists(parent / name):
            with suppress(FileNotFoundError):
                os.rename(old, parent / name)
    remove_abandoned(path for path in parent.glob(".*.part") if path.is_dir())


def move_aside(path: Path, into: Path, label: str, reason: str) -> Path:
    """Moves a file or folder to the first free `into`/`label`-n and says why in reason.txt. Raises StoreError."""
    target = next(free for n in itertools.count(1) if not os.path.lexists(free := into / f"{label}-{n}"))
    with explained(target):
        into.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            os.rename(path, target)
        else:
            target.mkdir()
            os.rename(path, target / path.name)
    with suppress(OSError):  # on a full disk the move matters more
        (target / "reason.txt").write_text(f"{reason}\n")
    return target


def sync_folder(folder: Path) -> None:
    """Renames and new names in `folder` outlast a power failure only after this. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_abandoned(part: Path) -> bool:
    """Whether nobody will finish this `.part`: its process on this host is dead, or it has not grown for an hour."""
    name = PART.match(part.name)
    if name and name["host"] == HOST and not is_alive(int(name["pid"])):
        return True
    try:
        written = max(path.stat().st_mtime for path in (part, *part.glob("*")))
    except OSError:  # finished or removed meanwhile
        return False
    return time.time() - written > ABANDONED_AFTER


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True


def remove_abandoned(parts: Iterable[Path]) -> None:
    """Removes the abandoned among `parts`; one that cannot be removed only wastes space, so it stays without an error."""
    for part in parts:
        if is_abandoned(part):
            shutil.rmtree(part, ignore_errors=True)
            with suppress(OSError):
                part.unlink(missing_ok=True)
