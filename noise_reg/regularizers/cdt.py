"""Corrupted-data training: Eq. 8 on the training inputs, afresh each time a sample is seen. Its place is the input."""

from __future__ import annotations

from torch import Tensor


def corrupt(x: Tensor, sigma: Tensor | float, delta: Tensor) -> Tensor:
    """sqrt(1 - sigma^2) x + sigma delta (NINR paper, Eq. 8), delta standard normal of x's shape; sigma 0 gives x exactly."""
    return (1 - sigma**2) ** 0.5 * x + sigma * delta


class Corruption:
    """The same in place, with the factors of `sigma_A` (A,) made once for many batches (A, B, D)."""

    def __init__(self, sigma_A: Tensor) -> None:
        self.noisy, self.clean = sigma_A[:, None, None], (1 - sigma_A**2).sqrt()[:, None, None]

    def apply_(self, x_ABD: Tensor, delta_ABD: Tensor) -> Tensor:
        return x_ABD.mul_(self.clean).addcmul_(delta_ABD, self.noisy)
