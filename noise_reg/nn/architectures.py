"""The architectures as stacks: every parameter and buffer leads with the replica axis.

Axes: R replicas, B samples, D = C H W pixels, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise_reg.errors import UserError
from noise_reg.nn.convolution import StackedBatchNorm, StackedConv2d, max_pool
from noise_reg.nn.linear import StackedLinear
from noise_reg.nn.noise_node import DenseNode, PixelNode
from noise_reg.nn.places import Places
from noise_reg.spec import ArchSpec, ReadingSpec, SpecError

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}  # of weights; bf16 is for products only


class StackedModel(nn.Module):
    """Logits (R, B, K) of standardised pixels (R, B, D). `image` is (C, H, W); `node_layers` are the layers with a node."""

    def __init__(self, image: tuple[int, int, int], node_layers: Sequence[int]) -> None:
        super().__init__()
        self.image = image
        self.nodes = nn.ModuleDict({str(layer): nn.Identity() for layer in node_layers})

    def with_noise(self, layer: int, z: Tensor, places: Places) -> Tensor:
        epsilon = places.node(layer)
        return z if epsilon is None else self.nodes[str(layer)](z, epsilon)

    def keep(self, index: Tensor) -> None:
        """Compacts the stack to the replicas at `index`."""
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.detach()[index].clone()))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer[index].clone())

    def dense(self, layer: int) -> StackedLinear:
        raise NotImplementedError


class FC(StackedModel):
    """D -> widths -> K with ReLU (NINR paper, App. A, Fig. 2a)."""

    def __init__(
        self,
        arch: ArchSpec,
        reading: ReadingSpec,
        image: tuple[int, int, int],
        classes: int,
        seeds_R: Tensor,
        node_layers: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(image, node_layers)
        sizes = [int(torch.Size(image).numel()), *arch.widths, classes]
        shapes = list(itertools.pairwise(sizes))
        self.layers = nn.ModuleList(
            StackedLinear(seeds_R, i, o, lane=layer, dtype=dtype) for layer, (i, o) in enumerate(shapes)
        )
        for layer in node_layers:  # the node is one more input of its layer, hence fan-in I + 1
            inputs, outputs = shapes[layer]
            self.nodes[str(layer)] = DenseNode(seeds_R, (outputs,), fan_in=inputs + 1, lane=layer, dtype=dtype)

    def forward(self, x_RBD: Tensor, places: Places) -> Tensor:
        h = places.input(x_RBD)
        last = len(self.layers) - 1
        for layer, linear in enumerate(self.layers):
            h = self.with_noise(layer, linear(h), places)
            if layer < last:
                h = places.activation(F.relu(h), layer)
        return h


class CNN(StackedModel):
    """[Conv -> ELU -> BatchNorm -> MaxPool 2] for each of `filters`, then dense ReLU `widths`, then K (App. A, Fig. 2b)."""

    def __init__(
        self,
        arch: ArchSpec,
        reading: ReadingSpec,
        image: tuple[int, int, int],
        classes: int,
        seeds_R: Tensor,
        node_layers: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(image, node_layers)
        replicas, device = len(seeds_R), seeds_R.device
        channels, height, width = image
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for layer, filters in enumerate(arch.filters):
            if str(layer) in self.nodes:
                fan_in = channels * height * width
                shape = (channels, height, width)
                self.nodes[str(layer)] = PixelNode(seeds_R, shape, fan_in=fan_in, lane=layer, dtype=dtype)
            fan_in = channels * arch.kernel**2 if reading.conv_fan_in == "patch" else channels
            self.convolutions.append(
                StackedConv2d(
                    seeds_R,
                    channels,
                    filters,
                    arch.kernel,
                    padding=arch.padding,
                    fan_in=fan_in,
                    lane=layer,
                    dtype=dtype,
                )
            )
            self.norms.append(StackedBatchNorm(replicas, filters, reading.batch_norm, dtype=dtype, device=device))
            lost = 0 if arch.padding == "same" else arch.kernel - 1
            channels, height, width = filters, (height - lost) // 2, (width - lost) // 2
            if min(height, width) < 1:
                raise SpecError(
                    f"arch.filters = {list(arch.filters)}: too many blocks for an image of {image[1:]} pixels"
                )
        blocks = len(arch.filters)
        sizes = [channels * height * width, *arch.widths, classes]
        self.layers = nn.ModuleList()
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=blocks):
            self.layers.append(StackedLinear(seeds_R, inputs, outputs, lane=layer, dtype=dtype))
            if str(layer) in self.nodes:
                self.nodes[str(layer)] = DenseNode(seeds_R, (outputs,), fan_in=inputs + 1, lane=layer, dtype=dtype)

    def forward(self, x_RBD: Tensor, places: Places) -> Tensor:
        x = places.input(x_RBD).unflatten(2, self.image).permute(0, 1, 3, 4, 2)  # (R, B, H, W, C)
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = self.with_noise(layer, x, places)
            x = max_pool(norm(F.elu(convolution(x)), places.training))
            x = places.activation(x, layer)
        h = x.permute(0, 1, 4, 2, 3).flatten(2)  # (R, B, C H W), the order of the exported model
        blocks, last = len(self.convolutions), len(self.convolutions) + len(self.layers) - 1
        for layer, linear in enumerate(self.layers, start=blocks):
            h = self.with_noise(layer, linear(h), places)
            if layer < last:
                h = places.activation(F.relu(h), layer)
        return h


ARCHITECTURES: dict[str, type[FC | CNN]] = {"fc": FC, "cnn": CNN}


def depth(arch: ArchSpec) -> int:
    """How many layers can have a node in front: convolutions, dense layers and the output layer."""
    return len(arch.filters) + len(arch.widths) + 1


def build(
    arch: ArchSpec,
    reading: ReadingSpec,
    image: tuple[int, int, int],
    classes: int,
    seeds_R: Tensor,
    node_layers: Sequence[int],
    dtype: torch.dtype,
) -> StackedModel:
    """The stack of R freshly initialised networks, one for each seed (int64 (R,), on the device of the stack)."""
    if arch.name not in ARCHITECTURES:
        raise UserError(f"arch.name = {arch.name}: must be one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[arch.name](arch, reading, image, classes, seeds_R, node_layers, dtype)
