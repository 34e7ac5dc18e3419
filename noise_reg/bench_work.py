"""The contenders of the benchmark, by the letters of its protocol, and the work that all of them do.

A new contender is a class with `ready`, `run`, `weights` and `runs`, and a row of `CONTENDERS`.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torchvision.transforms as T  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from noise_reg.bench_plain import (
    Batches,
    Draws,
    OrdinaryDraws,
    StreamDraws,
    epoch_order,
    in_memory,
    plain_network,
    plain_optimizer,
    train_plain,
)
from noise_reg.data import DataError, Dataset, load, resolve_data_dir, split
from noise_reg.data.dataset import IMAGE_SHAPES, build
from noise_reg.errors import UserError
from noise_reg.nn import DTYPES
from noise_reg.plan import cut, shares, stack_size
from noise_reg.precision import arithmetic
from noise_reg.prepare import TrainingData, prepare
from noise_reg.spec import RunSpec
from noise_reg.train import new_stack, run_epoch
from noise_reg.workers import possible_workers, start_fork

CPU = torch.device("cpu")
SYNTHETIC_IMAGES = {"fmnist": (60_000, 10_000), "mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}


@dataclass(frozen=True)
class Recipe:
    """A job of the benchmark: its runs, those of them that loops over single runs train, and the epochs of one repeat with the
    steps of each."""

    name: str
    specs: tuple[RunSpec, ...]
    single: tuple[int, ...]
    steps: int
    epochs: int
    data_dir: str | None
    stack_size: Any


class Workload:
    """A recipe with its data, cut to the samples that one repeat trains on."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.specs, self.steps = recipe, recipe.specs, recipe.steps
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
            data = prepare(self.dataset, self.specs[0].replace(precision=precision), CPU)
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

    def initial(self, precision: str) -> Iterator[tuple[RunSpec, Mapping[str, np.ndarray]]]:
        """Every single run with the weights that it starts from."""
        for spec in self.singles:
            yield spec, new_stack([spec.replace(precision=precision)], self.data(precision)).weights(0)


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
    other processes that took part."""

    runs: int

    @property
    def elsewhere_mib(self) -> float: ...

    def ready(self, epoch: int) -> None:
        """What comes before an epoch and is not timed."""

    def run(self) -> float:
        """One epoch of all its runs: what is timed. Returns the CPU seconds of other processes that took part."""


class Runner(Timed, Protocol):
    """One contender at one job."""

    def weights(self) -> list[dict[str, np.ndarray]]:
        """The weights of the job's single runs."""


class PlainLoop:
    """Single runs one after another; `batches_of` makes an epoch's mini-batches from its order."""

    elsewhere_mib = 0.0

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        self.work, self.data = work, work.data(precision)
        self.x_NCHW = self.data.x.view(-1, *self.data.image)
        self.networks, self.optimizers, self.orders = [], [], [torch.empty(0)]
        for spec, weights in work.initial(precision):
            streams = StreamDraws(spec, work.steps)
            draws: Draws = streams if gate else OrdinaryDraws()
            network = plain_network(spec, weights, DTYPES[precision], draws)
            if gate:
                network.register_forward_pre_hook(lambda module, inputs, streams=streams: streams.next_step())
            self.networks.append(network)
            self.optimizers.append(plain_optimizer(network, spec))
        self.runs = len(self.networks)

    def ready(self, epoch: int) -> None:
        self.orders = [epoch_order(spec, self.work.samples, epoch) for spec in self.work.singles]

    def run(self) -> float:
        loss = self.work.specs[0].reading.loss
        for network, optimizer, order in zip(self.networks, self.optimizers, self.orders, strict=True):
            train_plain(network, optimizer, loss, self.batches_of(order))
        return 0.0

    def batches_of(self, order: Tensor) -> Batches:
        return in_memory(self.x_NCHW, self.data.y, order, self.work.specs[0].optimizer.batch_size)

    def weights(self) -> list[dict[str, np.ndarray]]:
        states = [network.state_dict() for network in self.networks]
        return [{name.replace("_", ".", 1): value.numpy() for name, value in state.items()} for state in states]


class Images(TorchDataset[tuple[Tensor, int]]):
    """A data set class in torchvision's manner: levels in memory, transformed sample by sample."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[np.ndarray], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class LoaderLoop(PlainLoop):
    """The plain loop fed by torchvision's transforms and a DataLoader in the same process."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        super().__init__(work, precision, gate)
        standardizer = self.data.standardizer
        if standardizer.mean[0].numel() > 1:
            raise UserError("contender a: torchvision's Normalize needs reading.standardize_per = global")
        normalize = T.Normalize(standardizer.mean.flatten().tolist(), standardizer.scale.flatten().tolist())
        self.images = Images(*work.training_bytes(), T.Compose([T.ToTensor(), normalize]))

    def batches_of(self, order: Tensor) -> Batches:
        batch = self.work.specs[0].optimizer.batch_size
        return DataLoader(self.images, batch, sampler=order.tolist(), num_workers=0, drop_last=True)


class Part:
    """The share of a job's runs that one worker trains, as the stacks that the pipeline would cut it into."""

    def __init__(self, specs: Sequence[RunSpec], data: TrainingData, wanted_size: Any) -> None:
        size = stack_size(specs[0], data.image, data.classes, "cpu", wanted_size)
        self.stacks, self.data, self.precision = (
            [new_stack(c, data) for c in cut(specs, size)],
            data,
            specs[0].precision,
        )

    def run(self, epoch: int) -> None:
        with arithmetic(self.precision, CPU):
            for stack in self.stacks:
                stack.epoch = epoch
                run_epoch(stack, self.data)

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        return {spec.key: stack.weights(r) for stack in self.stacks for r, spec in enumerate(stack.specs)}


def serve(part: Part, end: Connection) -> None:
    """A worker of the benchmark: does an epoch and tells its CPU seconds, or tells its own memory, or its weights."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            asked = end.recv()
        except EOFError:
            return
        if asked == "weights":
            end.send(part.weights())
        elif asked == "memory":
            end.send(own_mib())
        else:
            started = time.process_time()
            part.run(asked)
            end.send(time.process_time() - started)


class Stacked:
    """Ours: the job's runs as the stacks that the pipeline would train them in, by as many workers."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        self.work, self.precision, self.epoch = work, precision, 0
        self.runs = len(work.specs)
        specs, data = [spec.replace(precision=precision) for spec in work.specs], work.data(precision)
        count = min(possible_workers(CPU), len(specs))
        parts = [Part(share, data, work.recipe.stack_size) for share in shares(specs, count)]
        self.alone = parts[0] if count == 1 else None
        self.ends: list[Connection] = []
        for part in parts if count > 1 else []:
            ours, theirs = multiprocessing.Pipe()
            start_fork(serve, part, theirs)
            self.ends.append(ours)

    def ready(self, epoch: int) -> None:
        self.epoch = epoch

    def run(self) -> float:
        if self.alone is not None:
            self.alone.run(self.epoch)
            return 0.0
        return float(sum(self.ask(self.epoch)))

    def ask(self, what: int | str) -> list[Any]:
        """What each worker answers."""
        for end in self.ends:
            end.send(what)
        return [end.recv() for end in self.ends]

    @property
    def elsewhere_mib(self) -> float:
        return float(sum(self.ask("memory")))

    def weights(self) -> list[dict[str, np.ndarray]]:
        found = self.ask("weights") if self.alone is None else [self.alone.weights()]
        by_key = {key: weights for part in found for key, weights in part.items()}
        return [by_key[spec.replace(precision=self.precision).key] for spec in self.work.singles]


def peak_mib() -> float:
    """The most memory that this process ever held, MiB."""
    try:  # ru_maxrss would count what the parent process had before this one was started from it
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def own_mib() -> float:
    """The memory that this process shares with no other, MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@dataclass(frozen=True)
class Contender:
    """`build(work, precision, gate)` makes its runner. At the gate it trains in `gate_precision` and must end as near to the
    plain loop in fp64 as `tolerance`, a fraction of the way that the weights have gone."""

    title: str
    precision: str
    build: Callable[[Workload, str, bool], Runner]
    gate_precision: str
    tolerance: float


BASE = "b"  # the contender that ratios refer to
CONTENDERS = {
    "a": Contender("plain loop, torchvision transforms and DataLoader", "fp32", LoaderLoop, "fp32", 5e-2),
    "b": Contender("plain loop, tensors in memory", "fp32", PlainLoop, "fp32", 5e-2),
    "f": Contender("ours", "fp32", Stacked, "fp64", 1e-8),
    "g": Contender("ours", "bf16", Stacked, "bf16", 5e-1),
}
