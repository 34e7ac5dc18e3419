"""Contender (b): a job's single runs one after another in ordinary PyTorch, from tensors in memory.

Axes: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from noise_reg.bench.draws import OrdinaryDraws, StreamDraws
from noise_reg.bench.plain import (
    Batches,
    epoch_order,
    in_memory,
    plain_network,
    plain_optimizer,
    plain_step,
    stack_name,
)
from noise_reg.bench.work import Alone, Workload
from noise_reg.nn import DTYPES


class PlainLoop(Alone):
    """Single runs one after another; `batches_of` makes an epoch's mini-batches from its order."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        self.work, self.data, self.batch = work, work.data(precision), work.specs[0].optimizer.batch_size
        self.loss = work.specs[0].reading.loss
        self.x_NCHW = self.data.x.view(-1, *self.data.image)
        self.networks: list[nn.Module] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self.orders = [torch.empty(0)]
        for spec, weights in work.initial(precision):
            streams = StreamDraws(spec, work.steps, work.device)
            network = plain_network(spec, weights, DTYPES[precision], streams if gate else OrdinaryDraws())
            if gate:
                network.register_forward_pre_hook(lambda module, inputs, streams=streams: streams.next_step())
            self.networks.append(network.to(work.device))
            self.optimizers.append(plain_optimizer(network.named_parameters(), spec))
        self.runs = len(self.networks)

    def ready(self, epoch: int) -> None:
        self.orders = [epoch_order(spec, self.work.samples, epoch).to(self.work.device) for spec in self.work.singles]

    def run(self) -> float:
        for network, optimizer, order in zip(self.networks, self.optimizers, self.orders, strict=True):
            for x, y in self.batches_of(order):
                plain_step(network, optimizer, self.loss, x, y)
        return 0.0

    def batches_of(self, order: Tensor) -> Batches:
        return in_memory(self.x_NCHW, self.data.y, order, self.batch)

    def weights(self) -> list[dict[str, np.ndarray]]:
        return [plain_weights(network) for network in self.networks]


def plain_weights(network: nn.Module) -> dict[str, np.ndarray]:
    """A plain network's parameters and buffers by the stack's names."""
    return {stack_name(name): value.cpu().numpy() for name, value in network.state_dict().items()}
