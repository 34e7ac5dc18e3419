"""Stacks of convolutions and batch norms. Images of a stack lie side by side as channels: (B, R C, H, W).

Axes: R replicas, B samples, C channels, O output channels, k kernel size, H and W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise_reg.streams import Purpose, normal

# momentum (the weight of the new batch, torch's sense) and eps of the two conventions, reading 3
BATCH_NORM = {"keras": (0.01, 1e-3), "pytorch": (0.1, 1e-5)}


class StackedConv2d(nn.Module):
    """R convolutions C -> O as one grouped convolution; weights N(0, 1/d), d = `fan_in`, biases 0 (NINR paper, App. A).

    padding 'same' keeps H and W (an even kernel pads one more below and to the right, as Keras does); 'valid' pads nothing.
    """

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
        """(B, R C, H, W) -> (B, R O, H', W')."""
        replicas = len(self.weight)
        if any(self.pad):
            x = F.pad(x, self.pad)
        return F.conv2d(x, self.weight.flatten(0, 1).to(x.dtype), self.bias.flatten().to(x.dtype), groups=replicas)


class StackedBatchNorm(nn.Module):
    """R batch norms over C channels each: a batch norm over R C channels, whose statistics never mix replicas."""

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
        """(B, R C, H, W) normalised by its batch when `training`, else by the running statistics."""
        mean, variance = (
            self.running_mean.view(-1),
            self.running_var.view(-1),
        )  # views: F.batch_norm updates them in place
        scale, shift = self.weight.flatten(), self.bias.flatten()
        return F.batch_norm(x, mean, variance, scale, shift, training, self.momentum, self.eps)
