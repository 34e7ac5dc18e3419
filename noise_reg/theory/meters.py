"""What a noise injection node adds to the loss (NINR paper, section 2.1): R_k, the local gradient and the local Hessian.

Everything is of a stack of networks on one batch, with batch norms at their running statistics, in the precision of the
weights (fp64 is advised). The node in front of layer l shifts that layer's pre-activation (dense: z, of O numbers) or the image
that enters it (convolution: x, of C H W numbers); either is meant by z, and its size by O.

Axes: R replicas, B samples, D pixels, K classes, O numbers of z, V random vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noise_reg.losses import LOSSES
from noise_reg.nn import CLEAN, StackedModel


@dataclass(frozen=True)
class Meter:
    """A stack, a batch (x_RBD standardised, y_RB) and the layer in front of which the node stands."""

    model: StackedModel
    x_RBD: Tensor
    y_RB: Tensor
    layer: int
    loss: str = "exact"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of z, of one sample."""
        blocks = self.model.blocks
        if self.layer >= blocks:
            return (self.model.layers[self.layer - blocks].bias.shape[1],)  # type: ignore[index,return-value]
        if self.layer == 0:
            channels, height, width = self.model.image
            return height, width, channels
        found: list[tuple[int, ...]] = []

        def look(module: nn.Module, args: Any) -> None:
            found.append(tuple(args[0].shape[2:]))

        handle = self.model.convolutions[self.layer].register_forward_pre_hook(look)
        with torch.no_grad():
            self.model(self.x_RBD[:, :1], CLEAN)
        handle.remove()
        return found[0]

    def losses(self, shift: Tensor | None) -> Tensor:
        """(R, B), each sample's loss with z moved by `shift` (R, B or 1, *shape)."""
        with shifted(self.model, self.layer, shift):
            return LOSSES[self.loss](self.model(self.x_RBD, CLEAN), self.y_RB)

    def local_gradients(self) -> Tensor:
        """g (R, B, *shape) of Eq. 5, each sample's gradient of its loss by z."""
        with torch.enable_grad():
            zero = self.x_RBD.new_zeros(*self.x_RBD.shape[:2], *self.shape, requires_grad=True)
            (grad,) = torch.autograd.grad(self.losses(zero).sum(), zero)
        return grad

    def mean_gradient(self) -> Tensor:
        """<g> (R, *shape)."""
        return self.local_gradients().mean(1)

    def hessian_times(self, vector: Tensor) -> Tensor:
        """<H> v (R, *shape) for v (R, *shape): one pass back and one through it, no Hessian is held."""
        with torch.enable_grad():
            common = torch.zeros_like(vector)[:, None].requires_grad_()  # a shift that all samples share
            (grad,) = torch.autograd.grad(self.losses(common).mean(1).sum(), common, create_graph=True)
            if not grad.requires_grad:  # piecewise linear all the way
                return torch.zeros_like(vector)
            (product,) = torch.autograd.grad(grad, common, vector[:, None], materialize_grads=True)
        return product[:, 0]

    def hessian(self) -> Tensor:
        """<H> (R, O, O), whole; for a z of few numbers."""
        count = math.prod(self.shape)
        columns = []
        for n in range(count):
            unit = self.x_RBD.new_zeros(len(self.x_RBD), count)
            unit[:, n] = 1
            columns.append(self.hessian_times(unit.view(-1, *self.shape)).flatten(1))
        return torch.stack(columns, dim=2)

    def trace(self, vectors: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tr <H> (R,) by Hutchinson's estimator from so many random signs, and its standard error (R,)."""
        return hutchinson(
            lambda v: (v * self.hessian_times(v)).flatten(1).sum(1), self.signs(vectors, generator, self.shape)
        )

    def corrupted_r2(self, sigma: float, vectors: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """R_2 of inputs corrupted by N(0, sigma^2) (Eq. 7) for a dense first layer, (R,) with its standard error (R,): sigma^2/2
        Tr(W^T <H_0> W)."""
        weight_ROD = self.model.layers[0].get_parameter("weight").detach()

        def measure(v_RD: Tensor) -> Tensor:
            moved = torch.bmm(weight_ROD, v_RD[:, :, None])[:, :, 0]
            return (moved * self.hessian_times(moved)).sum(1) * sigma**2 / 2

        return hutchinson(measure, self.signs(vectors, generator, (self.x_RBD.shape[2],)))

    def signs(self, vectors: int, generator: torch.Generator, shape: tuple[int, ...]) -> Iterator[Tensor]:
        for _ in range(vectors):
            draw = torch.randint(0, 2, (len(self.x_RBD), *shape), generator=generator)
            yield (2 * draw - 1).to(self.x_RBD)

    def along(self, epsilon_RB: Tensor, direction: Tensor) -> Callable[[float], Tensor]:
        """t -> the mean loss (R,) with z moved by t epsilon W_NI; direction: W_NI (R, *shape)."""
        ones = (1,) * (direction.dim() - 1)
        shift = epsilon_RB.view(*epsilon_RB.shape, *ones) * direction[:, None]
        return lambda t: self.losses(t * shift).mean(1)

    def terms(self, epsilon_RB: Tensor, direction: Tensor, orders: int = 2) -> Tensor:
        """R_1, R_2, ... (orders, R) of Eqs 3 and 4: the derivatives along the noise over k!, exactly. Within a ReLU network they
        are those of the linear piece that it is in."""
        ones = (1,) * (direction.dim() - 1)
        shift = epsilon_RB.view(*epsilon_RB.shape, *ones) * direction[:, None]
        found = []
        with torch.enable_grad():
            t_R = torch.zeros(len(shift), dtype=shift.dtype, device=shift.device, requires_grad=True)
            value_R = self.losses(t_R.view(-1, 1, *ones) * shift).mean(1)
            for k in range(1, orders + 1):
                if value_R.requires_grad:
                    (value_R,) = torch.autograd.grad(
                        value_R.sum(), t_R, create_graph=k < orders, materialize_grads=True
                    )
                else:  # a polynomial that has come to its end
                    value_R = torch.zeros_like(t_R)
                found.append(value_R.detach() / math.factorial(k))
        return torch.stack(found)

    def finite_r(self, epsilon_RB: Tensor, direction: Tensor, step: float) -> Tensor:
        """R_1 to R_4 as (4, R), by central differences of the noisy loss at t = 0, +-step and +-2 step."""
        noisy = self.along(epsilon_RB, direction)
        with torch.no_grad():
            low2, low, middle, high, high2 = (noisy(n * step) for n in (-2, -1, 0, 1, 2))
        first = (low2 - 8 * low + 8 * high - high2) / 12
        second = (-low2 + 16 * low - 30 * middle + 16 * high - high2) / 12
        third = (-low2 + 2 * low - 2 * high + high2) / 2
        fourth = low2 - 4 * low + 6 * middle - 4 * high + high2
        return torch.stack([d / (step**k * math.factorial(k)) for k, d in enumerate((first, second, third, fourth), 1)])


@contextmanager
def shifted(model: StackedModel, layer: int, shift: Tensor | None) -> Iterator[None]:
    """The model with `shift` added to what the node in front of `layer` would move."""
    if shift is None:
        yield
        return

    def after(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out + shift

    def before(module: nn.Module, args: Any) -> tuple[Any, ...]:
        return (args[0] + shift, *args[1:])

    if layer >= model.blocks:
        handle = model.layers[layer - model.blocks].register_forward_hook(after)
    else:
        handle = model.convolutions[layer].register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def hutchinson(measure: Callable[[Tensor], Tensor], vectors: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (R,) of `measure` over `vectors`, and its standard error (R,)."""
    found_VR = torch.stack([measure(v) for v in vectors])
    return found_VR.mean(0), found_VR.std(0) / math.sqrt(len(found_VR))
