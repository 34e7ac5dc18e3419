"""Which data sets there are and where each is looked for, in order. One is never replaced by another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from noise_reg.data.dataset import DataError, Dataset
from noise_reg.data.embedded import load_embedded_digits
from noise_reg.data.prepared import load_npz
from noise_reg.errors import UserError

HALF_LEVEL = 128  # 255 / 2 rounded up: a level of at least half of full scale is white
DEFAULT_DIR = "data"


def load(name: str, data_dir: str | Path | None, download: bool) -> Dataset:
    """The data set `name`, checked: embedded, or `<name>.npz` in `data_dir`, or torchvision's files there.

    data_dir: the folder searched, see `resolve_data_dir`. download: whether torchvision may fetch what is not there.
    UserError on an unknown name; DataError where the files are missing, damaged or not this data set.
    """
    if name not in LOADERS:
        raise UserError(f"dataset = {name!r}: unknown; known are {', '.join(LOADERS)}")
    return LOADERS[name](resolve_data_dir(data_dir), download)


def resolve_data_dir(data_dir: str | Path | None) -> Path:
    """The folder of the data files, absolute: as given, else NOISE_REG_DATA_DIR, else `data` in the current folder."""
    return Path(data_dir or os.environ.get("NOISE_REG_DATA_DIR") or DEFAULT_DIR).expanduser().absolute()


def from_files(name: str, folder: Path, download: bool) -> Dataset:
    path = folder / f"{name}.npz"
    if os.path.lexists(path):  # a broken link is an error to report, no reason to look elsewhere
        return load_npz(name, path)
    from noise_reg.data.vision import load_torchvision  # here, for torchvision's import takes long

    return load_torchvision(name, folder, download)


def mnist_binary(folder: Path, download: bool) -> Dataset:
    """MNIST with pixels thresholded at one half: from mnist_binary.npz, or made from MNIST's own source."""
    path = folder / "mnist_binary.npz"
    if os.path.lexists(path):
        dataset = load_npz("mnist_binary", path)
        for images in (dataset.train_images, dataset.test_images):
            if not ((images == 0) | (images == 255)).all():
                raise DataError(f"{path}: holds grey levels, expected only 0 and 255: not a binary data set")
        return dataset
    try:
        mnist = from_files("mnist", folder, download)
    except DataError as error:
        raise DataError(f"mnist_binary: no mnist_binary.npz in {folder}, and MNIST to make it from: {error}") from error
    note = f"{mnist.provenance['note']}; pixels thresholded: level >= {HALF_LEVEL} -> 255, else 0"
    return replace(
        mnist,
        name="mnist_binary",
        train_images=binarize(mnist.train_images),
        test_images=binarize(mnist.test_images),
        provenance={**mnist.provenance, "note": note},
    )


def binarize(images_u8: Tensor) -> Tensor:
    return (images_u8 >= HALF_LEVEL).to(images_u8.dtype) * 255


LOADERS: dict[str, Callable[[Path, bool], Dataset]] = {
    "fmnist": partial(from_files, "fmnist"),
    "mnist": partial(from_files, "mnist"),
    "mnist_binary": mnist_binary,
    "usps": partial(from_files, "usps"),
    "cifar10": partial(from_files, "cifar10"),
    "digits": lambda folder, download: load_embedded_digits(),
}
