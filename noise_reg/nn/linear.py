"""A stack of dense layers, and the layer into whose backward pass plain SGD is folded.

Axes: R replicas, B samples, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from noise_reg.nn.places import Drop
from noise_reg.nn.products import add_batched_, batched, scale_
from noise_reg.streams import Purpose, normal
from noise_reg.sums import total


class FoldedSGD:
    """W <- shrink W - rate dL/dW inside the product that would have made dL/dW: no gradient is stored, W is passed over once.

    shrink_R (R,): 1 - rate x weight decay of each replica.
    """

    def __init__(self, rate: float, shrink_R: Tensor) -> None:
        self.rate, self.shrink_R, self.shrinks = rate, shrink_R, tuple(shrink_R.tolist())

    def __call__(self, weight_ROI: Tensor, grad_RBO: Tensor, x_RBI: Tensor) -> None:
        if x_RBI.dtype == weight_ROI.dtype:
            add_batched_(weight_ROI, grad_RBO.mT, x_RBI, betas=self.shrinks, alpha=-self.rate)
        else:  # there is no product of bf16 factors onto fp32 weights
            scale_(weight_ROI, self.shrinks)
            weight_ROI.sub_(batched(grad_RBO.mT, x_RBI), alpha=self.rate)


def rounded(x: Tensor, low: torch.dtype | None) -> Tensor:
    """A factor of products: x in the type `low`, or x itself."""
    return x if low is None else x.to(low)


class Product(torch.autograd.Function):
    """x W^T + b as (R, B, O), with factors rounded to `low`; without it, differentiable twice. (torch's own gradient of W
    comes transposed, and taking it over costs more than all products.)"""

    @staticmethod
    def forward(ctx: Any, x_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor, low: torch.dtype | None) -> Tensor:
        x_RBI, weight_ROI = rounded(x_RBI, low), rounded(weight_ROI, low)
        ctx.save_for_backward(x_RBI, weight_ROI)
        ctx.low = low
        return batched(x_RBI, weight_ROI.mT).add_(bias_RO[:, None])

    @staticmethod
    def backward(ctx: Any, grad_RBO: Tensor) -> tuple[Tensor | None, ...]:
        x_RBI, weight_ROI = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        factor_RBO = rounded(grad_RBO, ctx.low)
        return (
            batched(factor_RBO, weight_ROI) if of_x else None,
            batched(factor_RBO.mT, x_RBI) if of_weight else None,
            total(grad_RBO) if of_bias else None,
            None,
        )


def product(x_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor, low: torch.dtype | None) -> Tensor:
    out: Tensor = Product.apply(x_RBI, weight_ROI, bias_RO, low)
    return out


class DenseLayer(torch.autograd.Function):
    """A whole layer, dropout(activation(x W^T + b + epsilon W_NI)) as (R, B, O), in few passes over memory.

    The backward pass takes the gradient of x from the old W and then steps W in place (`fold`): W gets no gradient. The
    incoming gradient is used up: it belongs to this layer alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_RBI: Tensor,
        weight_ROI: Tensor,
        bias_RO: Tensor,
        node_RO: Tensor | None,
        epsilon_RB: Tensor | None,
        activation: str,
        drop: Drop | None,
        fold: FoldedSGD,
        low: torch.dtype | None,
    ) -> Tensor:
        x_RBI, factor_ROI = rounded(x_RBI, low), rounded(weight_ROI, low)
        h = batched(x_RBI, factor_ROI.mT).add_(bias_RO[:, None])
        if node_RO is not None and epsilon_RB is not None:
            h.addcmul_(epsilon_RB[:, :, None], node_RO[:, None])
        if activation == "relu":
            h.relu_()
        elif activation == "tanh":
            h.tanh_()
        active = h
        if drop is not None:
            h = h.clone() if activation == "tanh" else h  # its slope needs what was dropped
            drop.apply_(h)
        ctx.save_for_backward(x_RBI, h if activation == "relu" else active, epsilon_RB)
        ctx.weight, ctx.factor, ctx.fold = weight_ROI, factor_ROI, fold  # W not saved: its in-place update is meant
        ctx.activation, ctx.drop, ctx.low = activation, drop, low
        return h

    @staticmethod
    def backward(ctx: Any, grad_RBO: Tensor) -> tuple[Tensor | None, ...]:
        x_RBI, h, epsilon_RB = ctx.saved_tensors
        weight_ROI = ctx.weight.detach()
        if ctx.activation == "relu":  # 0 where ReLU or dropout cut off
            torch.ops.aten.threshold_backward.grad_input(grad_RBO, h, 0, grad_input=grad_RBO)
            if ctx.drop is not None:
                ctx.drop.scale_(grad_RBO)
        else:
            if ctx.drop is not None:
                ctx.drop.apply_(grad_RBO)
            if ctx.activation == "tanh":
                torch.ops.aten.tanh_backward.grad_input(grad_RBO, h, grad_input=grad_RBO)
        grad_node = total(epsilon_RB[:, :, None] * grad_RBO) if ctx.needs_input_grad[3] else None
        factor_RBO = rounded(grad_RBO, ctx.low)
        grad_x = batched(factor_RBO, ctx.factor.detach()) if ctx.needs_input_grad[0] else None
        ctx.fold(weight_ROI, factor_RBO, x_RBI)
        return grad_x, None, total(grad_RBO), grad_node, None, None, None, None, None


class StackedLinear(nn.Module):
    """R dense layers I -> O; weights N(0, 1/I), biases 0 (NINR paper, App. A).

    With `fold` set, `layer` takes over the update of `weight`; gradients flow as usual through the plain call. `low` is the
    type that the factors of products are rounded to, or None.
    """

    fold: FoldedSGD | None = None
    low: torch.dtype | None = None

    def __init__(self, seeds_R: Tensor, inputs: int, outputs: int, *, lane: int, dtype: torch.dtype) -> None:
        super().__init__()
        draw = normal(seeds_R, Purpose.WEIGHTS, outputs * inputs, lane=lane, step=0, epoch=0).to(dtype)
        self.weight = nn.Parameter(draw.view(-1, outputs, inputs).mul(inputs**-0.5))
        self.bias = nn.Parameter(torch.zeros(len(seeds_R), outputs, dtype=dtype, device=seeds_R.device))

    def forward(self, x_RBI: Tensor) -> Tensor:
        return product(x_RBI, self.weight, self.bias, self.low)

    def layer(
        self, x_RBI: Tensor, node_RO: Tensor | None, epsilon_RB: Tensor | None, activation: str, drop: Drop | None
    ) -> Tensor:
        """See DenseLayer; only where `fold` is set."""
        out: Tensor = DenseLayer.apply(
            x_RBI, self.weight, self.bias, node_RO, epsilon_RB, activation, drop, self.fold, self.low
        )
        return out
