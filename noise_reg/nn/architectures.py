"""The architectures as stacks: every parameter and buffer leads with the replica axis.

Axes: R replicas, B samples, D = C H W pixels, H and W height and width, C channels, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise_reg.nn.block import elu
from noise_reg.nn.convolution import StackedBatchNorm, StackedConv2d, max_pool
from noise_reg.nn.linear import StackedLinear
from noise_reg.nn.noise_node import DenseNode, PixelNode
from noise_reg.nn.places import CLEAN, Places
from noise_reg.precision import low_type
from noise_reg.spec import ArchSpec, ReadingSpec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "identity": lambda z: z}
# of weights; bf16 and tf32 are for products only
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "tf32": torch.float32, "fp64": torch.float64}
IN_CACHE = 32  # images whose representations stay in a processor's cache


class StackedModel(nn.Module):
    """[Conv -> ELU -> BatchNorm -> MaxPool 2] for each of `filters`, then dense ReLU layers `widths`, then K logits.

    Without filters it is the fully connected network of the NINR paper (App. A, Fig. 2a), with them its CNN (Fig. 2b);
    'tanh_mlp' and 'linear' are the former with tanh and without any activation; 'vgg' has
    two [Conv -> ReLU -> BatchNorm] for each of `filters`, then MaxPool 2 and dropout (App. D, Fig. 9).
    `nodes` holds the noise injection nodes by the number of the layer that they stand in front of.
    """

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
        super().__init__()
        self.image, self.arch, self.kinds = image, arch, arch.convolutions
        self.blocks = len(self.kinds)
        self.convolutions, self.norms, self.layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.nodes = nn.ModuleDict()
        shapes = arch.shapes(image)
        for layer, shape in enumerate(shapes[:-1]):
            if layer in node_layers:
                fan_in = torch.Size(shape).numel()  # d_NI: the pixels of the representation
                self.nodes[str(layer)] = PixelNode(seeds_R, shape, fan_in=fan_in, lane=layer, dtype=dtype)
            self.add_block(layer, arch, reading, shape, seeds_R, dtype)
        sizes = [torch.Size(shapes[-1]).numel(), *arch.widths, classes]
        for layer, (inputs, outputs) in enumerate(pairwise(sizes), start=self.blocks):
            self.layers.append(StackedLinear(seeds_R, inputs, outputs, lane=layer, dtype=dtype))
            if layer in node_layers:  # the node is one more input of its layer, hence d_NI = inputs + 1
                self.nodes[str(layer)] = DenseNode(seeds_R, (outputs,), fan_in=inputs + 1, lane=layer, dtype=dtype)

    def add_block(
        self,
        layer: int,
        arch: ArchSpec,
        reading: ReadingSpec,
        shape: tuple[int, int, int],
        seeds_R: Tensor,
        dtype: torch.dtype,
    ) -> None:
        """One convolution of images `shape` (C, H, W), and its batch norm."""
        channels, filters = shape[0], self.kinds[layer].filters
        fan_in = channels * arch.kernel**2 if reading.conv_fan_in == "patch" else channels
        self.convolutions.append(
            StackedConv2d(
                seeds_R, channels, filters, arch.kernel, padding=arch.padding, fan_in=fan_in, lane=layer, dtype=dtype
            )
        )
        self.norms.append(
            StackedBatchNorm(len(seeds_R), filters, reading.batch_norm, dtype=dtype, device=seeds_R.device)
        )

    def forward(self, x_RBD: Tensor, places: Places) -> Tensor:
        """Logits (R, B, K) of standardised pixels (R, B, D), with the noise that `places` brings in."""
        h = places.input(x_RBD)
        if self.blocks:
            h = self.features(h, places)
        last = self.blocks + len(self.layers) - 1
        for layer, linear in enumerate(self.layers, start=self.blocks):
            h = self.dense(layer, cast(StackedLinear, linear), h, places, hidden=layer < last)
            if layer < last:
                places.look(h, layer)
        return h

    def dense(self, layer: int, linear: StackedLinear, x: Tensor, places: Places, hidden: bool) -> Tensor:
        """One dense layer, at once where the optimiser allows that, else step by step: the two give the same. Gradients outside
        training (of attacks, of meters) must not step the weights."""
        if linear.fold is not None and (places.training or not torch.is_grad_enabled()):
            epsilon = places.node(layer)
            node = None if epsilon is None else self.nodes[str(layer)].get_parameter("weight")
            if places.noisy_product(layer):
                h = places.pre_activation(linear.layer(x, node, epsilon, "identity", None), x, layer)
                return places.activation(ACTIVATIONS[self.arch.activation](h), layer) if hidden else h
            drop = places.drop(torch.Size((*x.shape[:2], linear.bias.shape[1])), layer) if hidden else None
            return linear.layer(x, node, epsilon, self.arch.activation if hidden else "identity", drop)
        h = places.pre_activation(self.with_noise(layer, linear(x), places), x, layer)
        return places.activation(ACTIVATIONS[self.arch.activation](h), layer) if hidden else h

    def features(self, x_RBD: Tensor, places: Places) -> Tensor:
        """What the convolutions make of the image (R, B, C H W); without noise on a CPU, of few images at a time."""
        if places is CLEAN and not x_RBD.is_cuda and x_RBD.shape[1] > IN_CACHE:
            return torch.cat([self.features(few, places) for few in x_RBD.split(IN_CACHE, dim=1)], dim=1)
        x = x_RBD.unflatten(2, self.image).permute(0, 1, 3, 4, 2)  # (R, B, H, W, C)
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = self.with_noise(layer, x, places)
            chosen, norm = self.kinds[layer], cast(StackedBatchNorm, norm)
            if self.arch.name == "vgg":
                x = norm(F.relu(convolution(x)), places.training)
                x = max_pool(x) if chosen.pooled else x
                drop = places.built_in_drop(x.shape, layer, chosen.dropout) if chosen.dropout else None
                x = x if drop is None else drop.apply(x)
            else:
                x = self.pooled(norm, convolution(x), places.training)
            x = places.activation(x, layer)
        return x.permute(0, 1, 4, 2, 3).flatten(2)  # (R, B, C H W), the order of the exported model

    def pooled(self, norm: StackedBatchNorm, z: Tensor, training: bool) -> Tensor:
        """The pooled norm of ELU(z); in few passes on a CPU (in training where dense layers are so too)."""
        folded = cast(StackedLinear, self.layers[0]).fold is not None
        if (folded or not training) and not z.is_cuda:
            return norm.pooled(z) if training else norm.pooled_clean(z)
        return max_pool(norm(elu(z), training))

    def with_noise(self, layer: int, z: Tensor, places: Places) -> Tensor:
        epsilon = places.node(layer)
        return z if epsilon is None else self.nodes[str(layer)](z, epsilon)

    @property
    def replicas(self) -> int:
        return len(next(self.parameters()))

    def set_precision(self, precision: str) -> None:
        """What the factors of this stack's products are rounded to, see `low_type`."""
        low = low_type(precision, next(self.parameters()).device)
        for module in (*self.convolutions, *self.layers):
            module.low = low

    def replica(self, place: int) -> StackedModel:
        """A stack of one: a copy of the replica at `place`."""
        alone = copy.deepcopy(self)
        alone.keep(torch.tensor([place], device=next(self.parameters()).device))
        return alone.requires_grad_(any(parameter.requires_grad for parameter in self.parameters()))

    def keep(self, index: Tensor) -> None:
        """Compacts the stack to the replicas at `index`."""
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.detach()[index].clone()))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer[index].clone())


def depth(arch: ArchSpec) -> int:
    """How many layers can have a node in front: convolutions, dense layers and the output layer."""
    return len(arch.convolutions) + len(arch.widths) + 1
