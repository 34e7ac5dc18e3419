"""Where a plain network takes its random numbers from: PyTorch's generator where time counts, our streams at the gate.

Axes: B samples a batch.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from noise_reg.spec import RunSpec
from noise_reg.streams import Purpose, keep_mask, normal


class Draws(Protocol):
    """The numbers that regularisers draw, of the type and on the device of what they meet."""

    def corruption(self, x: Tensor) -> Tensor:
        """Standard normal numbers in the shape of x."""

    def epsilon(self, z: Tensor, layer: int) -> Tensor:
        """(B,) standard normal numbers, one a sample of z (B, ...)."""

    def drop(self, h: Tensor, probability: float, layer: int) -> Tensor:
        """h (B, ...) with its numbers dropped or scaled by 1 / (1 - probability)."""


class OrdinaryDraws:
    """PyTorch's own generator: what the timed loops use."""

    def corruption(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)

    def epsilon(self, z: Tensor, layer: int) -> Tensor:
        return torch.randn(len(z), dtype=z.dtype, device=z.device)

    def drop(self, h: Tensor, probability: float, layer: int) -> Tensor:
        return F.dropout(h, probability)


class StreamDraws:
    """The numbers that the stack gives this run, so that both must end in the same weights."""

    def __init__(self, spec: RunSpec, steps: int, device: torch.device) -> None:
        self.seed_1 = torch.tensor([spec.seed], device=device)
        self.batch, self.count = spec.optimizer.batch_size, steps
        self.epoch, self.step = 0, -1

    def next_step(self) -> None:
        self.step += 1
        if self.step == self.count:
            self.epoch, self.step = self.epoch + 1, 0

    def corruption(self, x: Tensor) -> Tensor:
        draw = normal(self.seed_1, Purpose.CDT, x.numel(), lane=0, step=self.step, epoch=self.epoch)
        return draw.view_as(x).to(x.dtype)

    def epsilon(self, z: Tensor, layer: int) -> Tensor:
        (draw,) = normal(self.seed_1, Purpose.NODE, self.count * self.batch, lane=layer, step=0, epoch=self.epoch)
        return draw[self.step * self.batch : (self.step + 1) * self.batch].to(z.dtype)

    def drop(self, h: Tensor, probability: float, layer: int) -> Tensor:
        drop_1 = torch.tensor([probability], dtype=torch.float64, device=h.device)
        keep = keep_mask(self.seed_1, drop_1, h.numel(), lane=layer + 1, step=self.step, epoch=self.epoch)
        kept = (
            keep.view(len(h), *h.shape[2:], -1).movedim(-1, 1) if h.dim() == 4 else keep.view_as(h)
        )  # channels are last
        return h * kept / (1 - probability)
