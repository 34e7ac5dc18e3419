"""What the contenders of the benchmark do: a job's runs on data cut to the steps of one repeat, and what is asked of a runner.

Axes: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from noise_reg.data import DataError, Dataset, load, resolve_data_dir, split
from noise_reg.data.dataset import IMAGE_SHAPES, build
from noise_reg.errors import UserError
from noise_reg.nn import DTYPES
from noise_reg.prepare import TrainingData, prepare
from noise_reg.spec import RunSpec
from noise_reg.train import new_stack

SYNTHETIC_IMAGES = {"fmnist": (60_000, 10_000), "mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}
Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """A job of the benchmark: its runs, those of them that loops over single runs train, and the epochs of one repeat with the
    steps of each; `device` is torch's name of where all contenders run."""

    name: str
    specs: tuple[RunSpec, ...]
    single: tuple[int, ...]
    steps: int
    epochs: int
    data_dir: str | None
    stack_size: Any
    device: str


class Workload:
    """A recipe with its data, cut to the samples that one repeat trains on."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.specs, self.steps = recipe, recipe.specs, recipe.steps
        self.device = torch.device(recipe.device)
        self.prepared: dict[torch.dtype, TrainingData] = {}

    @property
    def singles(self) -> list[RunSpec]:
        return [self.specs[r] for r in self.recipe.single]

    @property
    def samples(self) -> int:
        return self.steps * self.specs[0].optimizer.batch_size

    @property
    def dataset(self) -> Dataset:
        return load_or_make(self.specs[0].dataset.name, self.recipe.data_dir)

    def data(self, precision: str) -> TrainingData:
        dtype = DTYPES[precision]
        if dtype not in self.prepared:
            data = prepare(self.dataset, self.specs[0].replace(precision=precision), self.device)
            if len(data.x) < self.samples:
                raise UserError(
                    f"steps.{self.recipe.name} = {self.steps}: needs {self.samples} training images, there are {len(data.x)}"
                )
            self.prepared[dtype] = dataclasses.replace(data, x=data.x[: self.samples], y=data.y[: self.samples])
        return self.prepared[dtype]

    def training_bytes(self) -> tuple[np.ndarray, np.ndarray]:
        """The same samples as `data` in levels: uint8 (N, H, W, C) and labels (N,)."""
        spec = self.specs[0]
        index, _ = split(len(self.dataset.train_images), spec.reading.train_fraction, spec.dataset.split_seed)
        images = self.dataset.train_images[index[: self.samples]].permute(0, 2, 3, 1).contiguous()
        return images.numpy(), self.dataset.train_labels[index[: self.samples]].numpy()

    def initial(self, precision: str) -> Iterator[tuple[RunSpec, Weights]]:
        """Every single run with the weights that it starts from."""
        for spec in self.singles:
            yield spec, self.start_of(spec, precision)

    def start_of(self, spec: RunSpec, precision: str) -> Weights:
        return new_stack([spec.replace(precision=precision)], self.data(precision)).weights(0)


@cache
def load_or_make(name: str, data_dir: str | None) -> Dataset:
    """The data set, or where it is not on this machine random images of its shape: for time alone, and said so."""
    try:
        return load(name, data_dir, download=False)
    except DataError:
        if name not in SYNTHETIC_IMAGES or os.path.lexists(resolve_data_dir(data_dir) / f"{name}.npz"):
            raise
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    channels, height, width = IMAGE_SHAPES[name]
    shape = (height, width) if channels == 1 else (height, width, channels)
    for part, count in zip(("train", "test"), SYNTHETIC_IMAGES[name], strict=True):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 10, count)
    return build(name, arrays, "random images", {"source": "synthetic", "file": None, "note": "random images"})


class Timed(Protocol):
    """Something that does the steps of one job. `runs` says for how many of the job's runs, `elsewhere_mib` the memory of
    other processes that take part."""

    runs: int

    @property
    def elsewhere_mib(self) -> float: ...

    def ready(self, epoch: int) -> None:
        """What comes before an epoch and is not timed."""

    def run(self) -> float:
        """One epoch of all its runs: what is timed. Returns the CPU seconds of other processes that took part."""

    def close(self) -> None:
        """Ends those processes."""


class Runner(Timed, Protocol):
    """One contender at one job."""

    def weights(self) -> list[dict[str, np.ndarray]]:
        """The weights of the job's single runs."""


class Alone:
    """What has no other processes."""

    elsewhere_mib = 0.0

    def close(self) -> None:
        pass


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_bytes(device: torch.device) -> float:
    """Of the device's memory; without bound where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")


def peak_mib(device: torch.device) -> float:
    """The most memory that this process ever held, MiB; on a GPU, of the GPU's, without its context."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / (1 << 20)
    try:  # ru_maxrss would count what the parent process had before this one was started from it
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def own_mib(device: torch.device) -> float:
    """The memory that this process shares with no other, MiB; on a GPU, its peak."""
    if device.type == "cuda":
        return peak_mib(device)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
