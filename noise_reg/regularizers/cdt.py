"""Corrupted-data training: Eq. 8 on the training inputs, afresh each time a sample is seen. Its place is the input."""

from __future__ import annotations

from torch import Tensor


def corrupt(x: Tensor, sigma: Tensor | float, delta: Tensor) -> Tensor:
    """sqrt(1 - sigma^2) x + sigma delta (NINR paper, Eq. 8), delta standard normal of x's shape; sigma 0 gives x exactly."""
    return (1 - sigma**2) ** 0.5 * x + sigma * delta


def corrupt_(x: Tensor, sigma: Tensor, delta: Tensor) -> Tensor:
    """The same in place."""
    return x.mul_((1 - sigma**2).sqrt_()).addcmul_(delta, sigma)
