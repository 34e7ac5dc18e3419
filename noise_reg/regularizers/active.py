"""The replicas of a stack that a regulariser acts on.

Axes: R replicas, A those that it acts on.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Active:
    """The replicas of a stack whose strength is above 0: where they stand, their strengths (A,) and seeds (A,)."""

    def __init__(self, strength_R: Tensor, seeds_R: Tensor) -> None:
        index = strength_R.nonzero().flatten()
        self.strength_A, self.seeds_A = strength_R[index], seeds_R[index]
        first = int(index[0]) if len(index) else 0
        adjacent = bool((index == torch.arange(first, first + len(index), device=index.device)).all())
        self.rows: slice | Tensor = slice(first, first + len(index)) if adjacent else index

    def __len__(self) -> int:
        return len(self.seeds_A)

    def add(self, tensor: Tensor, change: Tensor, alpha: float = 1.0) -> None:
        """tensor (R, ...) += alpha change (A, ...) at these replicas, in place."""
        if isinstance(self.rows, slice):
            tensor[self.rows].add_(change, alpha=alpha)
        else:
            tensor[self.rows] = tensor[self.rows].add_(change, alpha=alpha)  # index_add_ rounds otherwise than add_
