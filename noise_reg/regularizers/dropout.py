"""Dropout (inverted: kept units are scaled by 1/(1 - p)); p = 0 is exactly the identity. Its place is the activation.

Axes: R replicas, A those that drop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dropped:
    """What one layer drops in one step: `keep` (A, ...) is 0 or 1, of the replicas at `rows`; `scale` (A, 1, ...) is 1/(1 - p)."""

    rows: slice | Tensor
    keep: Tensor
    scale: Tensor

    def apply(self, h: Tensor) -> Tensor:
        """h (R, ...) with units dropped; differentiable."""
        if isinstance(self.rows, slice) and len(self.keep) == len(h):
            return h * (self.keep * self.scale)
        index = rows_index(self.rows, h)
        return h.index_copy(0, index, h[index] * (self.keep * self.scale))

    def apply_(self, h: Tensor) -> None:
        """The same in place."""
        if isinstance(self.rows, slice):
            h[self.rows].mul_(self.keep).mul_(self.scale)
        else:
            h[self.rows] = h[self.rows] * (self.keep * self.scale)

    def scale_(self, grad: Tensor) -> None:
        """In place: the gradient that reaches kept units; a dropped unit's gradient must be 0 already."""
        if isinstance(self.rows, slice):
            grad[self.rows].mul_(self.scale)
        else:
            grad[self.rows] *= self.scale


def rows_index(rows: slice | Tensor, x: Tensor) -> Tensor:
    return torch.arange(rows.start, rows.stop, device=x.device) if isinstance(rows, slice) else rows
