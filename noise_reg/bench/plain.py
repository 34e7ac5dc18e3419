"""What the stack is measured against: one run at a time in ordinary PyTorch, every regulariser included.

The same loop is the slow half of the benchmark's gate, where it takes its random numbers from our streams.

Axes: B samples a batch, N samples, C channels, H and W height and width, I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise_reg.bench.draws import Draws
from noise_reg.losses import KERAS_EPSILON
from noise_reg.nn.convolution import BATCH_NORM
from noise_reg.nn.export import ACTIVATIONS
from noise_reg.regularizers import corrupt, gradient_factor, is_decayed
from noise_reg.spec import RunSpec
from noise_reg.streams import permutation

Batches = Iterable[tuple[Tensor, Tensor]]


class Corrupt(nn.Module):
    def __init__(self, sigma: float, draws: Draws) -> None:
        super().__init__()
        self.sigma, self.draws = sigma, draws

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return corrupt(x, self.sigma, self.draws.corruption(x))


class Node(nn.Module):
    """A noise injection node: x + sigma epsilon W_NI, one epsilon a sample."""

    def __init__(self, shape: tuple[int, ...], sigma: float, layer: int, draws: Draws) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.sigma, self.layer, self.draws = sigma, layer, draws

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        epsilon = self.sigma * self.draws.epsilon(x, self.layer)
        return torch.addcmul(x, epsilon.view(-1, *[1] * self.weight.dim()), self.weight)


class Drop(nn.Module):
    def __init__(self, probability: float, layer: int, draws: Draws) -> None:
        super().__init__()
        self.probability, self.layer, self.draws = probability, layer, draws

    def forward(self, h: Tensor) -> Tensor:
        return self.draws.drop(h, self.probability, self.layer) if self.training else h


def plain_network(spec: RunSpec, weights: Mapping[str, np.ndarray], dtype: torch.dtype, draws: Draws) -> nn.Sequential:
    """Logits (B, K) of standardised images (B, C, H, W), on the CPU and in training mode, from the stack's initial `weights` of this
    run."""
    tensors = {name.replace(".", "_", 1): torch.from_numpy(np.array(value)) for name, value in weights.items()}
    strengths, blocks = spec.strengths, len(spec.arch.filters)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if strengths.cdt:
        parts["corrupt"] = Corrupt(strengths.cdt, draws)

    def node(layer: int) -> OrderedDict[str, nn.Module]:
        name, sigma = f"nodes_{layer}", strengths.nin_hidden if layer else strengths.nin_input
        weight = tensors.get(f"{name}.weight")
        return OrderedDict() if weight is None else OrderedDict({name: Node(tuple(weight.shape), sigma, layer, draws)})

    def drop(layer: int) -> OrderedDict[str, nn.Module]:
        return OrderedDict({f"drop_{layer}": Drop(strengths.dropout, layer, draws)} if strengths.dropout else {})

    for layer in range(blocks):
        parts |= node(layer) | convolution_block(spec, tensors, layer) | drop(layer)
    parts["flatten"] = nn.Flatten()
    last = blocks + len(spec.arch.widths)
    for layer in range(blocks, last + 1):
        outputs, inputs = tensors[f"layers_{layer - blocks}.weight"].shape
        parts[f"layers_{layer - blocks}"] = nn.Linear(inputs, outputs)
        parts |= node(layer)
        if layer < last:
            parts |= {f"activation_{layer}": ACTIVATIONS[spec.arch.activation](), **drop(layer)}
    network = nn.Sequential(parts).to(dtype)
    network.load_state_dict(tensors | {n: b for n, b in network.named_buffers() if n.endswith("tracked")})
    return network


def convolution_block(spec: RunSpec, tensors: Mapping[str, Tensor], layer: int) -> OrderedDict[str, nn.Module]:
    outputs, channels, kernel, _ = tensors[f"convolutions_{layer}.weight"].shape
    before = (kernel - 1) // 2 if spec.arch.padding == "same" else 0
    after = kernel - 1 - before if spec.arch.padding == "same" else 0
    momentum, eps = BATCH_NORM[spec.reading.batch_norm]
    pad = nn.ZeroPad2d((before, after, before, after))
    block: OrderedDict[str, nn.Module] = OrderedDict({f"pad_{layer}": pad} if before or after else {})
    block[f"convolutions_{layer}"] = nn.Conv2d(channels, outputs, kernel)
    block[f"elu_{layer}"] = nn.ELU()
    block[f"norms_{layer}"] = nn.BatchNorm2d(outputs, eps, momentum)
    block[f"pool_{layer}"] = nn.MaxPool2d(2)
    return block


def plain_optimizer(named: Iterable[tuple[str, Tensor]], spec: RunSpec) -> torch.optim.SGD:
    """SGD on a plain network's parameters, its weight decay on those that the reading decays."""
    decay = float(gradient_factor(torch.tensor([spec.strengths.weight_decay], dtype=torch.float64), spec.reading))
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in named:
        groups[bool(decay) and is_decayed(stack_name(name), spec.reading)].append(parameter)
    kinds = [{"params": members, "weight_decay": decay * decayed} for decayed, members in groups.items() if members]
    return torch.optim.SGD(kinds, lr=spec.optimizer.learning_rate)


def stack_name(name: str) -> str:
    """What the stack calls a plain network's parameter or buffer: 'layers.0.weight' for 'layers_0.weight'."""
    return name.replace("_", ".", 1)


def clamped_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Keras' cross-entropy of clamped probabilities (reading 2)."""
    each = F.cross_entropy(logits, labels, reduction="none")
    return each.clamp(-math.log1p(-KERAS_EPSILON), -math.log(KERAS_EPSILON)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"exact": F.cross_entropy, "clamped": clamped_loss}


def in_memory(x: Tensor, y: Tensor, order: Tensor, batch: int) -> Batches:
    for first in range(0, len(order) - batch + 1, batch):
        index = order[first : first + batch]
        yield x.index_select(0, index), y.index_select(0, index)


def plain_step(network: nn.Module, optimizer: torch.optim.Optimizer, loss: str, x: Tensor, y: Tensor) -> None:
    """Nothing is measured or logged on the way."""
    value = LOSSES[loss](network(x), y)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()


def epoch_order(spec: RunSpec, samples: int, epoch: int) -> Tensor:
    """(N,): the stack's order of the samples in this run's epoch, on the CPU."""
    return permutation(torch.tensor([spec.seed]), samples, epoch=epoch)[0]
