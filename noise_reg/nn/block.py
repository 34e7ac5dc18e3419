"""What follows a convolution in training, ELU, batch norm and 2 x 2 max-pooling, in few passes over memory.

The maximum commutes with a batch norm whose scale is positive, and becomes the minimum where it is negative: only the pooled
quarter is normalised. On a CPU the
images are taken in pieces that stay in its cache.

Axes: R replicas, B samples, H and W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from noise_reg.sums import total

PIECE = 1 << 18  # numbers of a piece: 1 MiB in fp32


def pieces(*images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same few samples of each tensor (B, ...), sized by the first."""
    count = max(1, PIECE // images[0][0].numel())
    return zip(*(x.split(count) for x in images), strict=True)


def channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) as torch's pooling wants it, (B, C, H, W) without a copy."""
    return x.permute(0, 3, 1, 2)


def elu_(x: Tensor) -> Tensor:
    """ELU in place, as the larger of x and exp(min(x, 0)) - 1: to rounding (6e-8 in fp32) that of torch, whose expm1 costs 12 times
    as much on some processors and nowhere less."""
    return torch.maximum(x, x.clamp(max=0).exp_().sub_(1), out=x)


class Elu(torch.autograd.Function):
    """ELU on a CPU."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        out = elu_(z.clone())
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        grad_z: Tensor = torch.ops.aten.elu_backward(grad, 1, 1, 1, True, out)
        return grad_z


def elu(z: Tensor) -> Tensor:
    """ELU (Clevert et al. 2016, Eq. 15, alpha = 1)."""
    out: Tensor = F.elu(z) if z.is_cuda else Elu.apply(z)
    return out


class EluNormPool(torch.autograd.Function):
    """max_pool(batch_norm(elu(z))) of z (R, B, H, W, C) with the batch's statistics, which come along as (R, C).

    z is used up: it is overwritten. A channel whose scale is negative is pooled by its least number.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, scale_RC: Tensor, shift_RC: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        a = z.detach()
        replicas, samples, height, width, channels = a.shape
        pooled = a.new_empty(replicas, samples, height // 2, width // 2, channels)
        place = torch.empty(pooled.shape, dtype=torch.int64, device=a.device)
        sum_RC, square_RC = (torch.zeros_like(scale_RC) for _ in range(2))
        sign_RC = signs(scale_RC)
        for r in range(replicas):
            falls = bool((sign_RC[r] < 0).any())
            for images, top, where in pieces(a[r], pooled[r], place[r]):
                elu_(images)
                sum_RC[r] += images.sum((0, 1, 2))
                square_RC[r] += images.square().sum((0, 1, 2))
                rising = images * sign_RC[r] if falls else images
                torch.ops.aten.max_pool2d_with_indices.out(
                    channels_first(rising), [2, 2], out=channels_first(top), indices=channels_first(where)
                )
            if falls:
                pooled[r].mul_(sign_RC[r])
        count = samples * height * width
        mean_RC = sum_RC.div_(count)
        variance_RC = square_RC.div_(count).addcmul_(mean_RC, mean_RC, value=-1).clamp_(min=0)
        rate_RC = (variance_RC + eps).rsqrt_()
        ctx.save_for_backward(a, pooled, place, mean_RC, rate_RC, scale_RC)
        ctx.mark_non_differentiable(mean_RC, variance_RC)
        gain_RC = rate_RC * scale_RC
        base_RC = shift_RC - mean_RC * gain_RC
        return torch.addcmul(along(base_RC), pooled, along(gain_RC)), mean_RC, variance_RC

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        a, pooled, place, mean_RC, rate_RC, scale_RC = ctx.saved_tensors
        grad = grad.contiguous()  # pooling's backward pass takes five times as long on any other layout
        count = a[0, ..., 0].numel()
        grad_shift_RC = total(grad, 3)
        grad_scale_RC = (total(grad * pooled, 3) - mean_RC * grad_shift_RC) * rate_RC
        # what a batch norm sends to each of its inputs: gain (g - mean(g) - x^ mean(g x^)) = gain g + base + slope a
        gain_RC = scale_RC * rate_RC
        slope_RC = -gain_RC * rate_RC * grad_scale_RC / count
        base_RC = -gain_RC * grad_shift_RC / count - slope_RC * mean_RC
        for r in range(len(a)):
            for images, top, where in pieces(a[r], grad[r] * gain_RC[r], place[r]):
                spread = torch.ops.aten.max_pool2d_with_indices_backward(
                    channels_first(top),
                    channels_first(images),
                    [2, 2],
                    [2, 2],
                    [0, 0],
                    [1, 1],
                    False,
                    channels_first(where),
                )
                grad_a = torch.addcmul(base_RC[r], images, slope_RC[r]).add_(spread.permute(0, 2, 3, 1))
                torch.ops.aten.elu_backward.grad_input(grad_a, 1, 1, 1, True, images, grad_input=images)
        return a, grad_scale_RC, grad_shift_RC, None


class BatchNorm(torch.autograd.Function):
    """Batch norm of x (R, B, H, W, C) with the batch's statistics, which come along as (R, C) (Ioffe and Szegedy 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale_RC: Tensor, shift_RC: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        count = x[0, ..., 0].numel()
        mean_RC = total(x, 3) / count
        centred = x - along(mean_RC)
        variance_RC = total(centred.square(), 3) / count
        rate_RC = (variance_RC + eps).rsqrt()
        ctx.save_for_backward(centred, rate_RC, scale_RC)
        ctx.mark_non_differentiable(mean_RC, variance_RC)
        return torch.addcmul(along(shift_RC), centred, along(rate_RC * scale_RC)), mean_RC, variance_RC

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        centred, rate_RC, scale_RC = ctx.saved_tensors
        count = centred[0, ..., 0].numel()
        grad_shift_RC = total(grad, 3)
        grad_scale_RC = total(grad * centred, 3) * rate_RC
        # gain (g - mean(g) - x^ mean(g x^)), x^ = centred rate
        gain_RC = scale_RC * rate_RC
        grad_x = torch.addcmul(grad - along(grad_shift_RC / count), centred, along(grad_scale_RC * rate_RC / -count))
        return grad_x.mul_(along(gain_RC)), grad_scale_RC, grad_shift_RC, None


def signs(scale: Tensor) -> Tensor:
    """-1 where a scale is negative, else 1: by which numbers rise with what the scale makes of them."""
    return torch.where(scale < 0, -1.0, 1.0).to(scale.dtype)


def along(vector_RC: Tensor) -> Tensor:
    """(R, C) beside images (R, B, H, W, C)."""
    return vector_RC[:, None, None, None]
