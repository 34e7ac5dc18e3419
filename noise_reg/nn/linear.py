"""A stack of dense layers, and the product into whose backward pass plain SGD is folded.

Axes: R replicas, B samples, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from noise_reg.streams import Purpose, normal


class FoldedSGD:
    """W <- shrink W - rate dL/dW inside the product that would have made dL/dW: no gradient is stored, W is passed over once.

    shrink_R (R,): 1 - rate x weight decay of each replica.
    """

    def __init__(self, rate: float, shrink_R: Tensor) -> None:
        self.rate, self.shrink_R = rate, shrink_R
        same = bool((shrink_R == shrink_R[0]).all())
        self.common_shrink = float(shrink_R[0]) if same else None

    def __call__(self, weight_ROI: Tensor, grad_RBO: Tensor, x_RBI: Tensor) -> None:
        if self.common_shrink is None:
            weight_ROI.mul_(self.shrink_R[:, None, None])
        beta = 1.0 if self.common_shrink is None else self.common_shrink
        if grad_RBO.dtype == weight_ROI.dtype:
            weight_ROI.baddbmm_(grad_RBO.mT, x_RBI, beta=beta, alpha=-self.rate)
        else:  # bf16 factors over fp32 weights, where the device has no such mixed product
            weight_ROI.mul_(beta).sub_(torch.bmm(grad_RBO.mT, x_RBI), alpha=self.rate)


class FoldedProduct(torch.autograd.Function):
    """x W^T + b as (R, B, O); its backward updates W in place after the gradient of x has been taken from the old W."""

    @staticmethod
    def forward(ctx: Any, x_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor, fold: FoldedSGD) -> Tensor:
        ctx.save_for_backward(x_RBI)
        ctx.weight, ctx.fold = weight_ROI, fold  # not saved as a tensor: the in-place update is meant
        return stacked_product(x_RBI, weight_ROI, bias_RO)

    @staticmethod
    def backward(ctx: Any, grad_RBO: Tensor) -> tuple[Tensor | None, None, Tensor, None]:
        (x_RBI,) = ctx.saved_tensors
        weight_ROI = ctx.weight.detach()
        grad_x = torch.bmm(grad_RBO, weight_ROI.to(grad_RBO.dtype)) if ctx.needs_input_grad[0] else None
        ctx.fold(weight_ROI, grad_RBO, x_RBI)
        return grad_x, None, grad_RBO.sum(1), None


def stacked_product(x_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor) -> Tensor:
    return torch.baddbmm(bias_RO[:, None].to(x_RBI.dtype), x_RBI, weight_ROI.to(x_RBI.dtype).mT)


class StackedLinear(nn.Module):
    """R dense layers I -> O; weights N(0, 1/I), biases 0 (NINR paper, App. A).

    `fold`, when set, takes over the update of `weight` (see FoldedSGD); without it gradients flow as usual.
    """

    fold: FoldedSGD | None = None

    def __init__(self, seeds_R: Tensor, inputs: int, outputs: int, *, lane: int, dtype: torch.dtype) -> None:
        super().__init__()
        draw = normal(seeds_R, Purpose.WEIGHTS, outputs * inputs, lane=lane, step=0, epoch=0).to(dtype)
        self.weight = nn.Parameter(draw.view(-1, outputs, inputs).mul(inputs**-0.5))
        self.bias = nn.Parameter(torch.zeros(len(seeds_R), outputs, dtype=dtype, device=seeds_R.device))

    def forward(self, x_RBI: Tensor) -> Tensor:
        if self.fold is None:
            return stacked_product(x_RBI, self.weight, self.bias)
        out: Tensor = FoldedProduct.apply(x_RBI, self.weight, self.bias, self.fold)
        return out
