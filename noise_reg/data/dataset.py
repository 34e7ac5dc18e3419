"""What a data set is, and the checks that every one passes before use, wherever it came from.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noise_reg.errors import UserError
from noise_reg.spec import DATASETS

PARTS = ("train", "test")
IMAGE_SHAPES = {  # (C, H, W)
    "fmnist": (1, 28, 28),
    "mnist": (1, 28, 28),
    "mnist_binary": (1, 28, 28),
    "usps": (1, 16, 16),
    "cifar10": (3, 32, 32),
    "digits": (1, 8, 8),
}


class DataError(UserError):
    """A data set that cannot be used: names the file, what was expected, what was found, and the remedy."""


@dataclass(frozen=True, eq=False)  # eq would compare tensors element by element
class Dataset:
    """A data set as it left its source: grey or RGB levels 0..255, in the source's order.

    train_images, test_images: uint8 (N, C, H, W); train_labels, test_labels: int64 (N,), in 0..classes-1.
    provenance: `source` (npz, torchvision or embedded), `file` (no folder), `note`.
    """

    name: str
    train_images: Tensor
    test_images: Tensor
    train_labels: Tensor
    test_labels: Tensor
    classes: int
    provenance: dict[str, Any]

    @cached_property
    def sha256(self) -> str:
        """64 hexadecimal digits that name the content: all pixels and labels in their order and shapes, whatever file they are from."""
        train = part_sha256(self.train_images, self.train_labels)
        return hashlib.sha256(f"{train} {self.test_sha256}".encode()).hexdigest()

    @cached_property
    def test_sha256(self) -> str:
        """The like for the test images and labels alone."""
        return part_sha256(self.test_images, self.test_labels)


def build(name: str, arrays: Mapping[str, NDArray[Any]], where: str, provenance: dict[str, Any]) -> Dataset:
    """The checked Dataset of four arrays: `<part>_images` uint8 (N, H, W) or (N, H, W, C), `<part>_labels` (N,).

    `where` names the file or files in messages. Raises DataError where shape, type, count or label range is not right.
    """
    for part in PARTS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        check_images(images, IMAGE_SHAPES[name], f"{where}: {part}_images")
        check_labels(labels, len(images), DATASETS[name], f"{where}: {part}_labels")
    return as_dataset(name, arrays, DATASETS[name], provenance)


def as_dataset(name: str, arrays: Mapping[str, NDArray[Any]], classes: int, provenance: dict[str, Any]) -> Dataset:
    """The Dataset of four arrays that were checked."""
    tensors = {}
    for part in PARTS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        images_NCHW = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        tensors[f"{part}_images"] = torch.from_numpy(np.ascontiguousarray(images_NCHW))
        tensors[f"{part}_labels"] = torch.from_numpy(labels.astype(np.int64))
    return Dataset(name=name, classes=classes, provenance=provenance, **tensors)


def check_images(images: NDArray[Any], shape_CHW: tuple[int, int, int], what: str) -> None:
    channels, height, width = shape_CHW
    expected = (height, width) if channels == 1 else (height, width, channels)
    if images.dtype != np.uint8:
        raise DataError(f"{what} has dtype {images.dtype}, expected uint8")
    if images.shape[1:] != expected:
        raise DataError(f"{what} has shape {images.shape}, expected (N, {', '.join(map(str, expected))})")
    if len(images) == 0:
        raise DataError(f"{what} is empty, expected at least one image")


def check_labels(labels: NDArray[Any], images: int, classes: int, what: str) -> None:
    if labels.dtype.kind not in "iu":
        raise DataError(f"{what} has dtype {labels.dtype}, expected whole numbers")
    if labels.shape != (images,):
        raise DataError(f"{what} has shape {labels.shape}, expected ({images},), one label an image")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{what} holds labels {labels.min()}..{labels.max()}, expected 0..{classes - 1}")


def part_sha256(images_u8: Tensor, labels: Tensor) -> str:
    """SHA-256 of the shape, the levels uint8 (N, C, H, W) and the labels (N,) as little-endian int64."""
    digest = hashlib.sha256(str(tuple(images_u8.shape)).encode())
    digest.update(images_u8.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().astype("<i8").data)
    return digest.hexdigest()
