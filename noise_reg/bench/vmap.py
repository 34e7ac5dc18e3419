"""Contender (d): ensembles by `torch.func`, the plain network vectorised over the runs of a method.

A method's regulariser is part of the network's structure, so every method is an ensemble of its own. The forward pass is
`vmap` of `functional_call`; the backward pass is one of autograd's on the sum of the losses (R,), which lets batch
norm keep its running statistics as in the plain loop.

Axes: R replicas, B samples a batch, N samples, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from noise_reg.bench.draws import OrdinaryDraws
from noise_reg.bench.given import GivenDraws, Noise
from noise_reg.bench.plain import LOSSES, plain_network, plain_optimizer, stack_name
from noise_reg.bench.work import Alone, Workload, free_bytes
from noise_reg.nn import DTYPES
from noise_reg.plan import strengths_key
from noise_reg.spec import RunSpec
from noise_reg.streams import permutation

SHARE = 0.8  # of the free memory that an ensemble may take
DOUBLE = 8  # bytes of a number at the gate


def absent(work: Workload) -> str:
    """Why this contender is not there for a job, or ''."""
    if len(work.specs) == 1:
        return "an ensemble of one run is the plain loop"
    needed, free = needed_bytes(work), free_bytes(work.device)
    if needed > SHARE * free:
        return (
            f"all runs at once need about {needed / (1 << 30):.0f} GiB at the gate, {free / (1 << 30):.0f} GiB are free"
        )
    return ""


def needed_bytes(work: Workload) -> float:
    """At the gate: weights and gradients of all runs, and what the largest ensemble keeps for its backward pass, twice, for there
    it is used up into as much again."""
    spec, weights = next(work.initial("fp32"))
    network, data = plain_network(spec, weights, torch.float32, OrdinaryDraws()), work.data("fp32")
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    x = data.x[: spec.optimizer.batch_size].view(-1, *data.image).cpu()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x)
    count = sum(parameter.numel() for parameter in network.parameters())
    largest = max(len(runs) for runs in by_method(work.specs))
    return DOUBLE * (2.0 * count * len(work.specs) + 2.0 * sum(kept.values()) * largest)


def by_method(specs: Sequence[RunSpec]) -> list[list[int]]:
    """Places of the runs of each method."""
    order = sorted(range(len(specs)), key=lambda n: strengths_key(specs[n]))
    return [list(places) for _, places in groupby(order, key=lambda n: strengths_key(specs[n]))]


class Ensembles(Alone):
    """All runs of a job: one ensemble after another."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        self.work, self.runs = work, len(work.specs)
        self.places = by_method(work.specs)
        self.ensembles = [Ensemble(work, [work.specs[n] for n in runs], precision, gate) for runs in self.places]

    def ready(self, epoch: int) -> None:
        for ensemble in self.ensembles:
            ensemble.ready(epoch)

    def run(self) -> float:
        for ensemble in self.ensembles:
            ensemble.run()
        return 0.0

    def weights(self) -> list[dict[str, np.ndarray]]:
        found = {n: (e, r) for e, runs in zip(self.ensembles, self.places, strict=True) for r, n in enumerate(runs)}
        return [ensemble.weights(r) for ensemble, r in (found[n] for n in self.work.recipe.single)]


class Ensemble:
    """R runs of one method, each in its own order of the samples."""

    def __init__(self, work: Workload, specs: Sequence[RunSpec], precision: str, gate: bool) -> None:
        self.work, self.data, self.batch = work, work.data(precision), specs[0].optimizer.batch_size
        self.x_NCHW = self.data.x.view(-1, *self.data.image)
        self.seeds_R = torch.tensor([spec.seed for spec in specs])
        self.order_RN = torch.empty(0)
        self.noise = Noise(work, specs, precision) if gate else None
        draws = GivenDraws() if gate else OrdinaryDraws()
        dtype = DTYPES[precision]
        networks = [plain_network(spec, work.start_of(spec, precision), dtype, draws) for spec in specs]
        self.parameters, self.buffers = stack_module_state([network.to(work.device) for network in networks])
        self.optimizer = plain_optimizer(self.parameters.items(), specs[0])
        self.losses = losses_of(networks[0], specs[0].reading.loss, draws)

    def ready(self, epoch: int) -> None:
        self.order_RN = permutation(self.seeds_R, self.work.samples, epoch=epoch).to(self.work.device)

    def run(self) -> None:
        for index_RB in self.order_RN.split(self.batch, dim=1):
            x_RBCHW = self.x_NCHW.index_select(0, index_RB.flatten()).unflatten(0, index_RB.shape)
            noise = [] if self.noise is None else self.noise.next(x_RBCHW)
            loss_R = self.losses(self.parameters, self.buffers, x_RBCHW, self.data.y.take(index_RB), noise)
            self.optimizer.zero_grad()
            loss_R.sum().backward()  # over replicas: each gets its own gradient
            self.optimizer.step()

    def weights(self, replica: int) -> dict[str, np.ndarray]:
        state = {**self.parameters, **self.buffers}
        return {stack_name(name): value[replica].detach().cpu().numpy() for name, value in state.items()}


def losses_of(network: nn.Module, loss: str, draws: OrdinaryDraws | GivenDraws) -> Callable[..., Tensor]:
    """(R,) from stacked parameters and buffers, x (R, B, C, H, W), y (R, B) and the noise where it is given."""
    criterion = LOSSES[loss]

    def loss_of_one(
        parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor, noise: list[Tensor]
    ) -> Tensor:
        if isinstance(draws, GivenDraws):
            draws.give(noise)
        return criterion(functional_call(network, (parameters, buffers), (x,)), y)

    return vmap(loss_of_one, randomness="different")
