"""A data set made ready for one kind of run: split, standardised, on its device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noise_reg.data import Dataset, Standardizer, split, split_digest, to_field
from noise_reg.evaluation_spec import ShiftSpec
from noise_reg.nn import DTYPES
from noise_reg.spec import RunSpec, SpecError


@dataclass(frozen=True)
class TrainingData:
    """x, test_x: standardised pixels (N, D); test_pixels (N, D) in [0, 1]; y, test_y: int64 (N,); all on one device.

    facts: what the record of a run says of its data (source, checksum, split).
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_pixels: Tensor
    test_y: Tensor
    image: tuple[int, int, int]
    classes: int
    standardizer: Standardizer
    facts: dict[str, Any]


def prepare(dataset: Dataset, spec: RunSpec, device: torch.device) -> TrainingData:
    """`dataset` for `spec`: the part that it trains on, standardised by that part's statistics (readings 1 and 5)."""
    dtype = DTYPES[spec.precision]
    index, _ = split(len(dataset.train_images), spec.reading.train_fraction, spec.dataset.split_seed)
    train = dataset.train_images[index]
    standardizer = Standardizer.fit(train, spec.reading.standardize, spec.reading.standardize_per)
    on_device = Standardizer(standardizer.mean.to(device), standardizer.scale.to(device))
    tested = first(spec.dataset.test_images)
    test_pixels = (dataset.test_images[tested].to(dtype) / 255).to(device)
    channels, height, width = train.shape[1:]
    return TrainingData(
        x=on_device.from_bytes(train.to(device), dtype).flatten(1),
        y=dataset.train_labels[index].to(device),
        test_x=on_device(test_pixels).flatten(1),
        test_pixels=test_pixels.flatten(1),
        test_y=dataset.test_labels[tested].to(device),
        image=(channels, height, width),
        classes=dataset.classes,
        standardizer=on_device,
        facts={
            "data_source": dataset.provenance["source"],
            "data_file": dataset.provenance["file"],
            "data_sha256": dataset.sha256,
            "split_sha256": split_digest(index),
            "train_images": len(index),
        },
    )


def first(count: int) -> slice:
    """The first `count` of a set's images; 0 means all."""
    return slice(count or None)


def shifted(data: TrainingData, other: Dataset, spec: RunSpec, settings: ShiftSpec) -> TrainingData:
    """`data` with the test half of `other` as its test images, in the format of the training images (reading 14)."""
    if data.image != (1, 28, 28):
        raise SpecError(
            f"shift to {settings.dataset}: the run's images are {data.image}, must be (1, 28, 28) as those of MNIST"
        )
    device, dtype = data.x.device, data.x.dtype
    levels = to_field(other.test_images, settings.centring, settings.mode)
    standardizer, reading, tested = data.standardizer, spec.reading, first(spec.dataset.test_images)
    if settings.statistics == "target":
        own = Standardizer.fit(levels, reading.standardize, reading.standardize_per)
        standardizer = Standardizer(own.mean.to(device), own.scale.to(device))
    pixels = (levels[tested].to(dtype) / 255).to(device)
    return replace(
        data,
        test_x=standardizer(pixels).flatten(1),
        test_pixels=pixels.flatten(1),
        test_y=other.test_labels[tested].to(device),
        standardizer=standardizer,
    )


def held_out(data: TrainingData, dataset: Dataset, spec: RunSpec) -> TrainingData:
    """`data` with its validation images, those that `spec` does not train on, as its test images."""
    _, index = split(len(dataset.train_images), spec.reading.train_fraction, spec.dataset.split_seed)
    if not len(index):
        raise SpecError(
            f"reading.train_fraction = {spec.reading.train_fraction}: must be below 1 for a validation: nothing is kept from training"
        )
    index = index[first(spec.dataset.test_images)]
    pixels = (dataset.train_images[index].to(data.x.dtype) / 255).to(data.x.device)
    return replace(
        data,
        test_x=data.standardizer(pixels).flatten(1),
        test_pixels=pixels.flatten(1),
        test_y=dataset.train_labels[index].to(data.x.device),
    )


def data_key(spec: RunSpec) -> tuple[Any, ...]:
    """Runs with equal data keys share one prepared data set."""
    reading = spec.reading
    return (
        spec.dataset, reading.train_fraction, reading.standardize, reading.standardize_per, DTYPES[spec.precision]
    )  # fmt: skip
