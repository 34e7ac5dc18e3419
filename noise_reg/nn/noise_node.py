"""Noise injection nodes (NINR paper, section 3.1 and Fig. 4): a random scalar per sample behind trained weights W_NI.

Axes: R replicas, B samples, O outputs, C channels, H and W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noise_reg.streams import Purpose, normal


class NoiseNode(nn.Module):
    """R nodes in front of one layer; W_NI ~ N(0, 1/d_NI), d_NI = `fan_in`."""

    def __init__(self, seeds_R: Tensor, shape: tuple[int, ...], *, fan_in: int, lane: int, dtype: torch.dtype) -> None:
        super().__init__()
        count = int(torch.Size(shape).numel())
        draw = normal(seeds_R, Purpose.NOISE_WEIGHTS, count, lane=lane, step=0, epoch=0).to(dtype)
        self.weight = nn.Parameter(draw.view(-1, *shape).mul(fan_in**-0.5))


class DenseNode(NoiseNode):
    """The extra input of a dense layer: z -> z + epsilon W_NI (below Eq. 1)."""

    def forward(self, z_RBO: Tensor, epsilon_RB: Tensor) -> Tensor:
        return torch.addcmul(z_RBO, epsilon_RB[:, :, None], self.weight[:, None, :])


class PixelNode(NoiseNode):
    """The pixel-wise mask of an image: x -> x + W_NI epsilon, W_NI of the image's shape."""

    def forward(self, x: Tensor, epsilon_RB: Tensor) -> Tensor:
        """x (R, B, H, W, C); W_NI is kept as (R, C, H, W)."""
        return torch.addcmul(x, epsilon_RB[:, :, None, None, None], self.weight.permute(0, 2, 3, 1)[:, None])
