"""A user's own data: an npz archive, or what a function of theirs returns; any image size, channels and number of classes.

A data set is known by its content, never by its path: `content` is the beginning of the SHA-256 of its pixels and labels.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noise_reg.data.dataset import PARTS, DataError, Dataset, as_dataset
from noise_reg.data.prepared import ARRAYS, read_arrays
from noise_reg.errors import UserError
from noise_reg.spec import DATASETS, OWN_NAME

Arrays = Mapping[str, NDArray[Any]]
Loader = Callable[[], Arrays]
LOADERS: dict[str, Loader] = {}  # of plugins, by the name that they registered
LOADED: dict[str, Dataset] = {}  # by content; kept, so that a file that changes under a running sweep changes nothing
CONTENT_DIGITS = 16
FIRST_MISSING = 5  # classes named in a message
AT_MOST_CHANNELS = 4  # of an array whose second axis is taken for channels


def register(name: str) -> Callable[[Loader], Loader]:
    """Decorates a function of no arguments that returns the four arrays of an npz archive: dataset=plugin dataset.name=<name>.

    Raises UserError where the name is no name or taken.
    """
    if not OWN_NAME.fullmatch(name):
        raise UserError(f"noise_reg.data.register({name!r}): must be letters, digits and . _ + -")
    if name in DATASETS or name in LOADERS or name == "npz":
        taken = ", ".join([*DATASETS, "npz", *LOADERS])
        raise UserError(f"noise_reg.data.register({name!r}): the name is taken; choose another than {taken}")

    def keep(loader: Loader) -> Loader:
        LOADERS[name] = loader
        return loader

    return keep


def load_file(path: str | Path) -> Dataset:
    """The data set of the archive at `path`. Raises DataError that names file, array, and remedy."""
    file = Path(path).expanduser().absolute()
    try:
        found = file.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: cannot be read: {reason}. Remedy: give the npz archive of your images") from error
    return read_file(file, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def read_file(file: Path, changed: int, size: int) -> Dataset:
    """`changed` and `size` tell a file from the one of that name before."""
    return keep(read_arrays(file), "npz", str(file), file.name)


def load_registered(name: str) -> Dataset:
    """The data set that a plugin registered as `name`. Raises UserError where its function fails or returns no data set."""
    return call(LOADERS[name], name)


@lru_cache(maxsize=64)
def call(loader: Loader, name: str) -> Dataset:
    where = f"the loader of dataset.name = {name}"
    try:
        given = loader()
    except UserError:
        raise
    except Exception as error:  # the user's code: whatever it raises is theirs to mend
        raise UserError(f"{where} failed: {type(error).__name__}: {error}") from error
    if not isinstance(given, Mapping) or any(array not in given for array in ARRAYS):
        raise DataError(f"{where}: must return a mapping with {', '.join(ARRAYS)}")
    try:
        arrays = {array: np.asarray(given[array]) for array in ARRAYS}
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: returned something that is no array: {error}") from error
    return keep(arrays, "plugin", where, name)


def keep(arrays: Arrays, source: str, where: str, file: str) -> Dataset:
    """The checked data set, kept by its content."""
    classes = check(arrays, where)
    dataset = as_dataset("own", arrays, classes, {"source": source, "file": file, "note": "a user's own data"})
    return LOADED.setdefault(content_of(dataset), dataset)


def content_of(dataset: Dataset) -> str:
    return dataset.sha256[:CONTENT_DIGITS]


def load_content(name: str, content: str) -> Dataset:
    """The own data set of this content, read earlier in this process or made by the plugin's loader `name`. Raises DataError."""
    if content not in LOADED and name in LOADERS:
        load_registered(name)
    if content not in LOADED:
        raise DataError(
            f"own data {name} of content {content}: not given. Remedy: data_files=[<its npz archive>], or plugins=[<the module that "
            "loads it>]"
        )
    return LOADED[content]


def check(arrays: Arrays, where: str) -> int:
    """The number of classes of arrays fit for use; DataError names `where`, the array, and the remedy.

    `<part>_images`: uint8 (N, H, W) or (N, H, W, C). `<part>_labels`: (N,) of any integer type, each of 0..K-1 in training.
    """
    shapes = {}
    for part in PARTS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        shapes[part] = check_images(images, f"{where}: {part}_images")
        check_labels(labels, len(images), f"{where}: {part}_labels")
    if shapes["test"] != shapes["train"]:
        raise DataError(
            f"{where}: test_images holds images of (H, W, C) = {shapes['test']}, train_images of {shapes['train']}: must be the same"
        )
    classes = count_classes(arrays["train_labels"], f"{where}: train_labels")
    if (strange := int(arrays["test_labels"].max())) >= classes:
        raise DataError(
            f"{where}: test_labels holds class {strange}, which train_labels lacks: its classes are 0..{classes - 1}. Remedy: leave "
            "these test images out, or give training images of that class"
        )
    return classes


def check_images(images: NDArray[Any], what: str) -> tuple[int, int, int]:
    """(H, W, C)"""
    if images.dtype != np.uint8:
        kind = images.dtype.kind
        how = "np.rint(255 * images).astype('uint8') of images in [0, 1]" if kind == "f" else "levels 0..255 as uint8"
        raise DataError(f"{what} has dtype {images.dtype}, expected uint8. Remedy: {how}")
    if images.ndim not in (3, 4):
        raise DataError(f"{what} has shape {images.shape}, expected (N, H, W) or (N, H, W, C)")
    if images.size == 0:
        raise DataError(f"{what} is empty, of shape {images.shape}: expected at least one image of at least one pixel")
    if images.ndim == 4 and images.shape[1] <= AT_MOST_CHANNELS < images.shape[3]:
        raise DataError(
            f"{what} has shape {images.shape}, which looks like (N, C, H, W), expected (N, H, W, C). Remedy: "
            "images.transpose(0, 2, 3, 1)"
        )
    height, width = images.shape[1:3]
    return height, width, images.shape[3] if images.ndim == 4 else 1


def check_labels(labels: NDArray[Any], images: int, what: str) -> None:
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{what} has dtype {labels.dtype}, expected whole numbers. Remedy: labels.astype('int64') of class numbers from 0 on"
        )
    if labels.shape != (images,):
        raise DataError(f"{what} has shape {labels.shape}, expected ({images},), one label an image")
    if labels.min() < 0:
        raise DataError(f"{what} holds label {labels.min()}, expected class numbers from 0 on")


def count_classes(labels: NDArray[Any], what: str) -> int:
    """K, where every class 0..K-1 is there."""
    there = np.unique(labels)
    classes, last = len(there), int(there[-1])
    if last != classes - 1:
        gaps = sorted(set(range(min(last, classes + FIRST_MISSING))) - {int(label) for label in there})[:FIRST_MISSING]
        raise DataError(
            f"{what} holds {classes} classes in {int(there[0])}..{last} without {', '.join(map(str, gaps))}: must be 0..K-1, each at "
            "least once. Remedy: number the classes anew, in both parts alike (np.unique(labels, return_inverse=True))"
        )
    if classes < 2:
        raise DataError(f"{what} holds one class, expected at least two")
    return classes
