"""Stacks of convolutions and batch norms, as products over image patches.

Images keep their channels last, (R, B, H, W, C): a small convolution is then one batched product over shifted slices, and
pooling and batch norm run along memory. On a CPU this takes half the time of grouped convolution on channels-first images.

Axes: R replicas, B samples, H and W height and width, C channels, O output channels, k kernel size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise_reg.nn.block import BatchNorm, EluNormPool, along, elu, signs
from noise_reg.nn.linear import product
from noise_reg.streams import Purpose, normal

# momentum (the weight of the new batch, torch's sense) and eps of the two conventions, reading 3
BATCH_NORM = {"keras": (0.01, 1e-3), "pytorch": (0.1, 1e-5)}


class Patches(torch.autograd.Function):
    """(R, B, H, W, C) -> (R, B, H - k + 1, W - k + 1, k k C): under each position the pixels that its kernel covers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int) -> Tensor:
        ctx.shape, ctx.kernel = x.shape, kernel
        return torch.cat([x[:, :, rows, columns] for rows, columns in slices(x.shape, kernel)], dim=-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad_x = grad.new_zeros(ctx.shape)
        channels = ctx.shape[-1]
        for place, (rows, columns) in enumerate(slices(ctx.shape, ctx.kernel)):
            grad_x[:, :, rows, columns] += grad[..., place * channels : (place + 1) * channels]
        return grad_x, None


def slices(shape: torch.Size, kernel: int) -> list[tuple[slice, slice]]:
    """The k k shifts of a kernel over (R, B, H, W, C), row by row."""
    height, width = shape[2] - kernel + 1, shape[3] - kernel + 1
    return [(slice(i, i + height), slice(j, j + width)) for i in range(kernel) for j in range(kernel)]


def max_pool(x: Tensor) -> Tensor:
    """2 x 2 max-pooling, (R, B, H, W, C) -> (R, B, H // 2, W // 2, C)."""
    pooled = F.max_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), 2)
    return pooled.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class StackedConv2d(nn.Module):
    """R convolutions C -> O; weights (R, O, C, k, k) N(0, 1/d), d = `fan_in`, biases 0 (NINR paper, App. A).

    padding 'same' keeps H and W (an even kernel pads one more below and to the right, as Keras does); 'valid' pads nothing.
    `low`: see StackedLinear.
    """

    low: torch.dtype | None = None

    def __init__(
        self,
        seeds_R: Tensor,
        channels: int,
        outputs: int,
        kernel: int,
        *,
        padding: str,
        fan_in: int,
        lane: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        count = outputs * channels * kernel**2
        draw = normal(seeds_R, Purpose.WEIGHTS, count, lane=lane, step=0, epoch=0).to(dtype)
        self.weight = nn.Parameter(draw.view(-1, outputs, channels, kernel, kernel).mul(fan_in**-0.5))
        self.bias = nn.Parameter(torch.zeros(len(seeds_R), outputs, dtype=dtype, device=seeds_R.device))
        before = (kernel - 1) // 2 if padding == "same" else 0
        after = kernel - 1 - before if padding == "same" else 0
        self.pad = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, H, W, C) -> (R, B, H', W', O)."""
        replicas, outputs, _, kernel, _ = self.weight.shape
        if any(self.pad):
            x = F.pad(x, (0, 0, *self.pad))
        patches: Tensor = Patches.apply(x, kernel)
        weight_ROI = self.weight.permute(0, 1, 3, 4, 2).reshape(replicas, outputs, -1)  # I = k k C
        return product(patches.flatten(1, 3), weight_ROI, self.bias, self.low).view(*patches.shape[:-1], outputs)


class StackedBatchNorm(nn.Module):
    """R batch norms over C channels each: one over R C channels, whose statistics never mix replicas."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, replicas: int, channels: int, convention: str, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self.momentum, self.eps = BATCH_NORM[convention]
        zeros = torch.zeros(replicas, channels, dtype=dtype, device=device)
        self.weight = nn.Parameter(torch.ones_like(zeros))
        self.bias = nn.Parameter(zeros.clone())
        self.register_buffer("running_mean", zeros.clone())
        self.register_buffer("running_var", torch.ones_like(zeros))

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """(R, B, H, W, C) normalised by its batch when `training`, else by the running statistics."""
        if not training:
            gain_RC, base_RC = self.affine()
            return torch.addcmul(along(base_RC), x, along(gain_RC))
        out, mean_RC, variance_RC = BatchNorm.apply(x, self.weight, self.bias, self.eps)
        self.remember(mean_RC, variance_RC, x[0, ..., 0].numel())
        normalised: Tensor = out
        return normalised

    def affine(self) -> tuple[Tensor, Tensor]:
        """Gain and base (R, C) of the norm by the running statistics: x -> base + gain x."""
        gain_RC = (self.running_var + self.eps).rsqrt() * self.weight
        return gain_RC, self.bias - self.running_mean * gain_RC

    @torch.no_grad()
    def remember(self, mean_RC: Tensor, variance_RC: Tensor, count: int) -> None:
        """Moves the running statistics towards those of a batch of `count` numbers a channel."""
        self.running_mean.lerp_(mean_RC, self.momentum)
        self.running_var.lerp_(variance_RC * (count / (count - 1)), self.momentum)

    def pooled_clean(self, z: Tensor) -> Tensor:
        """In evaluation, max-pooling of this batch norm of ELU(z), z (R, B, H, W, C): norm and ELU see a quarter of the numbers."""
        gain_RC, base_RC = self.affine()
        if bool((gain_RC < 0).any()):
            sign = along(signs(gain_RC))
            top = max_pool(z * sign) * sign
        else:
            top = max_pool(z)
        return torch.addcmul(along(base_RC), elu(top), along(gain_RC))

    def pooled(self, z: Tensor) -> Tensor:
        """In training, ELU, this batch norm and max-pooling of z (R, B, H, W, C) at once, see EluNormPool; z is used up."""
        out, mean_RC, variance_RC = EluNormPool.apply(z, self.weight, self.bias, self.eps)
        self.remember(mean_RC, variance_RC, z[0, ..., 0].numel())
        pooled: Tensor = out
        return pooled
