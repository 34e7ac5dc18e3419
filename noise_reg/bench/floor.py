"""The floor of a training step: its bare products with nothing between them, and one pass over its weights.

Axes: R replicas, B samples, C channels, H and W height and width, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise_reg.bench.draws import OrdinaryDraws
from noise_reg.bench.plain import plain_network
from noise_reg.bench.work import Alone, Workload
from noise_reg.plan import stack_size
from noise_reg.precision import arithmetic

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Product = Callable[[], Any]


class Products(Alone):
    """Every product of a step in the order of a step: forward, then from the last layer to the first the gradients of weights
    and inputs (but the first layer's input), factors and results in the precision; then a copy of the weights in fp32, which an
    update at least reads and writes. For stacks as large as ours."""

    def __init__(self, work: Workload, precision: str) -> None:
        data, spec = work.data("fp32"), work.specs[0]
        size = stack_size(spec, data.image, data.classes, work.device.type, work.recipe.stack_size)
        self.work, self.runs, self.precision = work, len(work.specs), precision
        self.products: list[Product] = []
        layers = layer_shapes(work)
        for replicas, times in ((size, self.runs // size), (self.runs % size, 1)):
            if replicas and times:
                made = [layer_products(*layer, replicas, DTYPES[precision], work.device) for layer in layers]
                made[0] = made[0][:-1]  # nobody asks for the gradient of the data
                forward = [products[0] for products in made]
                backward = [product for products in reversed(made) for product in products[1:]]
                copies = [copy_of(layer, replicas, work.device) for layer, _ in layers]
                self.products += [*forward, *backward, *copies] * times

    def ready(self, epoch: int) -> None:
        pass

    @torch.no_grad()
    def run(self) -> float:
        with arithmetic(self.precision, self.work.device):
            for _ in range(self.work.steps):
                for product in self.products:
                    product()
        return 0.0


def layer_shapes(work: Workload) -> list[tuple[nn.Module, torch.Size]]:
    """The layers of a plain run in their order, each with the shape of its input."""
    spec, weights = next(work.initial("fp32"))
    network = plain_network(spec, weights, torch.float32, OrdinaryDraws()).to(work.device)
    found: list[tuple[nn.Module, torch.Size]] = []
    for module in network:
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_pre_hook(lambda layer, inputs: found.append((layer, inputs[0].shape)))
    data = work.data("fp32")
    network(data.x[: spec.optimizer.batch_size].view(-1, *data.image))
    return found


def copy_of(layer: nn.Module, replicas: int, device: torch.device) -> Product:
    weight = torch.randn(replicas, *layer.get_parameter("weight").shape, device=device)
    kept = torch.empty_like(weight)
    return lambda: kept.copy_(weight)


def layer_products(
    layer: nn.Module, shape: torch.Size, replicas: int, dtype: torch.dtype, device: torch.device
) -> list[Product]:
    """Forward, gradient of the weights, gradient of the input."""
    if isinstance(layer, nn.Linear):
        return dense(layer, shape, replicas, dtype, device)
    assert isinstance(layer, nn.Conv2d)
    return convolution(layer, shape, replicas, dtype, device)


def dense(
    layer: nn.Linear, shape: torch.Size, replicas: int, dtype: torch.dtype, device: torch.device
) -> list[Product]:
    lead = [replicas] if replicas > 1 else []
    product = torch.bmm if replicas > 1 else torch.mm
    x, weight, grad = (
        torch.randn(*lead, *sizes, device=device).to(dtype)
        for sizes in (shape, layer.weight.shape, (shape[0], layer.out_features))
    )
    z, grad_x, grad_weight = torch.empty_like(grad), torch.empty_like(x), torch.empty_like(weight)
    return [
        lambda: product(x, weight.mT, out=z),
        lambda: product(grad.mT, x, out=grad_weight),
        lambda: product(grad, weight, out=grad_x),
    ]


def convolution(
    layer: nn.Conv2d, shape: torch.Size, replicas: int, dtype: torch.dtype, device: torch.device
) -> list[Product]:
    x = torch.randn(shape[0], replicas * shape[1], *shape[2:], device=device).to(dtype)
    weight = torch.randn(replicas * layer.out_channels, *layer.weight.shape[1:], device=device).to(dtype)
    grad = torch.randn_like(F.conv2d(x, weight, groups=replicas))

    def backward(of_input: bool) -> Tensor:
        mask = [of_input, not of_input, False]
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], replicas, mask
        )

    return [lambda: F.conv2d(x, weight, groups=replicas), lambda: backward(False), lambda: backward(True)]
