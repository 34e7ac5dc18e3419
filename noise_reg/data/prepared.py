"""Prepared archives `<name>.npz`: four uint8 arrays, read without pickle and checked before use.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noise_reg.data.dataset import PARTS, DataError, Dataset, build
from noise_reg.data.known import KNOWN_CONTENT

ARRAYS = tuple(f"{part}_{kind}" for part in PARTS for kind in ("images", "labels"))

# What numpy and zipfile raise on damaged, foreign, encrypted or pickled archives.
UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def load_npz(name: str, path: Path) -> Dataset:
    """The data set `name` from the archive at `path`; DataError if it is not usable, or has a known name and other contents."""
    known = KNOWN_CONTENT.get((name, path.name))
    note = "the prepared file of this content" if known else "no content is known for this file"
    try:
        arrays = read_arrays(path)
        for part in PARTS:  # the images' type is checked for every source alike
            if (labels := arrays[f"{part}_labels"]).dtype != np.uint8:
                raise DataError(f"{path}: {part}_labels has dtype {labels.dtype}, expected uint8")
        dataset = build(name, arrays, str(path), {"source": "npz", "file": path.name, "note": note})
    except DataError as error:
        raise DataError(f"{error}. {remedy(name)}") from error
    if known not in (None, dataset.sha256):
        raise DataError(f"{path}: SHA-256 of its arrays is {dataset.sha256}, expected {known}. {remedy(name)}")
    return dataset


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The archive's four arrays; DataError if it cannot be read, one is missing or holds Python objects."""
    try:
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:  # ValueError: no path has that name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}. Make it readable") from error
    name = "its list of arrays"
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: expected an npz (zip) archive, found a truncated one or another kind of file")
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive.files]
            if missing:
                found = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path}: {', '.join(missing)} missing, expected {', '.join(ARRAYS)}, found {found}")
            arrays = {}
            for name in ARRAYS:
                arrays[name] = np.asarray(archive[name])
    except UNREADABLE as error:
        raise DataError(
            f"{path}: expected an npz archive of plain arrays, found one whose {name} cannot be read: {error}"
        ) from error
    return arrays


def remedy(name: str) -> str:
    return f"Replace it by the prepared {name}.npz, or move it away so that torchvision can fetch the data set"
