"""Data sets through torchvision's own classes: raw files that are there already, else a download.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from torchvision import datasets  # type: ignore[import-untyped]
from torchvision.datasets.mnist import read_image_file, read_label_file  # type: ignore[import-untyped]
from torchvision.datasets.utils import calculate_md5  # type: ignore[import-untyped]

from noise_reg.data.dataset import PARTS, DataError, Dataset, build

TIMEOUT = 30.0  # seconds without an answer; torchvision itself would wait for ever
UNPARSED = (AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError)  # what a wrong idx file provokes
Files = list[tuple[Path, str]]  # with their MD5
OFF = "downloading is off"


@dataclass(frozen=True)
class Source:
    """One of torchvision's data sets.

    dataset: its class. files: those whose MD5 it states, in a folder. wrong: what is wrong with files that it would
    parse unverified, or None. counts: training and test images. level_sum: of all training images, in any order, where
    the files parsed have no MD5: Fashion-MNIST's have the names of MNIST's, so one could pass as the other.
    """

    dataset: Any
    files: Callable[[Any, Path], Files]
    wrong: Callable[[Source, Path], str | None]
    counts: tuple[int, int]
    level_sum: int | None = None


def idx_archives(dataset: Any, folder: Path) -> Files:
    return [(folder / dataset.__name__ / "raw" / file, md5) for file, md5 in dataset.resources]


def libsvm_archives(dataset: Any, folder: Path) -> Files:
    return [(folder / file, md5) for _, file, md5 in dataset.split_list.values()]


def pickle_archives(dataset: Any, folder: Path) -> Files:
    batches = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
    unpacked = [(folder / dataset.base_folder / file, md5) for file, md5 in batches]
    return [(folder / dataset.filename, dataset.tgz_md5), *unpacked]


@contextmanager
def opened(path: Path) -> Iterator[None]:
    """A file that the system refuses is not a damaged one: DataError says so."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a parser's own
            raise
        raise DataError(
            f"{path}: cannot be read: {error.strerror}. Remedy: make it readable for you, or choose another data_dir=..."
        ) from error


def damaged(source: Source, folder: Path) -> str | None:
    """The first file that is there with a wrong MD5, or None."""
    for path, expected in source.files(source.dataset, folder):
        with opened(path):
            found = calculate_md5(path) if path.is_file() else expected
        if found != expected:
            return f"{path}: damaged or incomplete, MD5 is {found}, expected {expected}"
    return None


def unreadable(source: Source, folder: Path) -> str | None:
    """The first unpacked idx file that does not parse, or None; torchvision names no file when that happens."""
    for archive, _ in source.files(source.dataset, folder):
        path = archive.with_suffix("")
        reader = read_image_file if "images" in path.name else read_label_file
        try:
            with opened(path):
                if path.is_file():
                    reader(str(path))
        except UNPARSED:
            return f"{path}: damaged or incomplete, not an idx file of the size that its header states"
    return None


SOURCES = {
    "fmnist": Source(datasets.FashionMNIST, idx_archives, unreadable, (60_000, 10_000), 3_431_114_169),
    "mnist": Source(datasets.MNIST, idx_archives, unreadable, (60_000, 10_000), 1_567_298_545),
    "usps": Source(datasets.USPS, libsvm_archives, damaged, (7_291, 2_007)),
    "cifar10": Source(datasets.CIFAR10, pickle_archives, lambda source, folder: None, (50_000, 10_000)),
}


def load_torchvision(name: str, folder: Path, download: bool) -> Dataset:
    """The data set `name` from torchvision's files in `folder`, downloaded if they are not there and `download`.

    DataError names the damaged file with both checksums, or the folder searched, and the remedies.
    """
    source = SOURCES[name]
    try:
        arrays = parse(source, folder, download=False)
    except Exception as error:  # torchvision's parsers raise whatever they meet in the bytes
        if not download:
            raise DataError(explain(name, folder, error, OFF)) from error
        arrays = fetch(name, folder)
    where = f"{folder} (torchvision's {source.dataset.__name__})"
    provenance = {
        "source": "torchvision",
        "file": f"torchvision.datasets.{source.dataset.__name__}",
        "note": "as torchvision parses its files",
    }
    try:
        dataset = build(name, arrays, where, provenance)
        check_contents(dataset, source, where)
    except DataError as error:
        remedy = f"Delete {source.dataset.__name__}'s files there and download them again"
        raise DataError(f"{error}. {remedy}, or put the prepared {name}.npz there") from error
    return dataset


def fetch(name: str, folder: Path) -> dict[str, NDArray[Any]]:
    is_new = not folder.exists()
    try:
        # torchvision writes in place: of several jobs that miss a file one downloads, the others wait and then read it.
        with FileLock(folder / f".{name}.lock"), timeout(TIMEOUT):
            return parse(SOURCES[name], folder, download=True)
    except Exception as error:
        if is_new:
            remove_if_empty(folder, name)  # the folder's name may be a slip of the pen
        raise DataError(explain(name, folder, error, "torchvision could not download it")) from error


def remove_if_empty(folder: Path, name: str) -> None:
    """Takes a folder away in which a failed download left no file but its lock."""
    lock, inner = folder / f".{name}.lock", sorted(folder.rglob("*"), reverse=True)
    if all(path.is_dir() or path == lock for path in inner):
        lock.unlink(missing_ok=True)
        for path in (*(path for path in inner if path != lock), folder):
            path.rmdir()


def parse(source: Source, folder: Path, download: bool) -> dict[str, NDArray[Any]]:
    """torchvision's arrays: `<part>_images` (N, H, W) or (N, H, W, C), `<part>_labels` (N,) int64; raises anything."""
    if problem := source.wrong(source, folder):
        raise DataError(problem)
    arrays = {}
    for part in PARTS:
        parsed = source.dataset(folder, train=part == "train", download=download)
        arrays[f"{part}_images"] = np.asarray(parsed.data)
        arrays[f"{part}_labels"] = np.asarray(parsed.targets, dtype=np.int64)
    return arrays


def check_contents(dataset: Dataset, source: Source, where: str) -> None:
    found = (len(dataset.train_images), len(dataset.test_images))
    if found != source.counts:
        raise DataError(f"{where}: {found} training and test images, expected {source.counts}")
    level_sum = int(dataset.train_images.sum())
    if source.level_sum not in (None, level_sum):
        raise DataError(
            f"{where}: not the images of {dataset.name}: the training images' levels sum to {level_sum}, expected "
            f"{source.level_sum}"
        )


def explain(name: str, folder: Path, error: Exception, what_failed: str) -> str:
    """One line for the user: what is damaged or missing, where, why, and how to mend it."""
    source = SOURCES[name]
    put = f"put the prepared {name}.npz into {folder} (DATA_DIR)"
    if problem := source.wrong(source, folder) or damaged(source, folder):
        return f"{problem}. Delete that file and download it again, or {put}"
    reason = " ".join(str(error).split()) or type(error).__name__
    online = "connect to the network so that torchvision can download it"
    let = "let torchvision download it: download=true" if what_failed == OFF else online
    return (
        f"{name}: no {name}.npz in {folder}, no usable files of torchvision's {source.dataset.__name__} there, and "
        f"{what_failed} ({reason}). Either {put}, or {let}"
    )


@contextmanager
def timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
