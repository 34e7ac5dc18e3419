"""Prepared archives `<name>.npz`: four uint8 arrays, read without pickle and checked before use.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noise_reg.data.dataset import PARTS, DataError, Dataset, build

ARRAYS = tuple(f"{part}_{kind}" for part in PARTS for kind in ("images", "labels"))

# A file of a known name with other contents is refused; a file whose name is not listed is taken by its arrays alone.
KNOWN_SHA256 = {
    "fmnist.npz": "0b8ff0e3b709c3fd455824f1614f38914bdc7bc07a0eeb7d70ca917322511f1d",
    "mnist.npz": "5403a42d008200327e3f145cbffaddd81636c9a0c55fa11ef3e864459f4465ee",
    "usps.npz": "353e6f5e334b00feab5feccc30a73186c09237eca72b6d79318317d0c2bb7826",
}

# What numpy and zipfile raise on damaged, foreign, encrypted or pickled archives.
UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def load_npz(name: str, path: Path) -> Dataset:
    """The data set `name` from the archive at `path`; DataError if it is not the prepared file or not usable."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. {remedy(name)}") from error
    known = KNOWN_SHA256.get(path.name)
    if known not in (None, found):
        raise DataError(f"{path}: SHA-256 is {found}, expected {known}. {remedy(name)}")
    provenance = {
        "source": "npz",
        "file": path.name,
        "sha256": {path.name: found},
        "note": "the prepared file of this checksum" if known else "no checksum is known for this file",
    }
    try:
        return build(name, read_arrays(path), str(path), provenance)
    except DataError as error:
        raise DataError(f"{error}. {remedy(name)}") from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The archive's four arrays; DataError if it cannot be read, one is missing, or labels are not uint8."""
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: expected an npz (zip) archive, found a truncated one or another kind of file")
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive.files]
            if missing:
                found = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path}: {', '.join(missing)} missing, expected {', '.join(ARRAYS)}, found {found}")
            arrays = {name: archive[name] for name in ARRAYS}
    except UNREADABLE as error:
        raise DataError(
            f"{path}: expected an npz archive of plain arrays, found one that cannot be read: {error}"
        ) from error
    for name in (f"{part}_labels" for part in PARTS):  # the images' type is checked for every source alike
        if arrays[name].dtype != np.uint8:
            raise DataError(f"{path}: {name} has dtype {arrays[name].dtype}, expected uint8")
    return arrays


def remedy(name: str) -> str:
    return f"Replace it by the prepared {name}.npz, or move it away so that torchvision can fetch the data set"
