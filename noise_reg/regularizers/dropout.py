"""Dropout (inverted: kept units are scaled by 1/(1 - p)); p = 0 is exactly the identity. Its place is the activation."""

from __future__ import annotations

from torch import Tensor


def drop(h: Tensor, keep: Tensor, drop_R: Tensor) -> Tensor:
    """h with the replica axis first, (R, ...); keep is bool of h's shape; drop_R (R,) are the probabilities."""
    scale = (1 / (1 - drop_R)).view(-1, *[1] * (h.dim() - 1))
    return h * (keep * scale.to(h.dtype))
