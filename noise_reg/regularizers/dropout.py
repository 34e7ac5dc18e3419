"""Dropout (inverted: kept units are scaled by 1/(1 - p)); p = 0 is exactly the identity. Its place is the activation.

Axes: R replicas, A those that drop.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Dropped:
    """What one layer drops in one step: `keep` (A, ...) is 0 or 1, of the replicas at `rows`; `scale` (A, 1, ...) is 1/(1 - p)."""

    rows: slice | Tensor
    keep: Tensor
    scale: Tensor

    def apply(self, h: Tensor) -> Tensor:
        """h (R, ...) with units dropped; differentiable."""
        out = h.clone()
        self.apply_(out)
        return out

    def apply_(self, h: Tensor) -> None:
        """The same in place."""
        self.multiply_(h, self.keep)
        self.multiply_(h, self.scale)

    def scale_(self, grad: Tensor) -> None:
        """In place: the gradient that reaches kept units; a dropped unit's gradient must be 0 already."""
        self.multiply_(grad, self.scale)

    def multiply_(self, h: Tensor, factor: Tensor) -> None:
        if isinstance(self.rows, slice):
            h[self.rows].mul_(factor)  # a view
        else:
            h[self.rows] *= factor
