"""What an evaluation asks of a network: R replicas on standardised pixels. A stack is one, and so is a user's own module.

Axes: R replicas, B samples, D = C H W pixels, K classes.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from noise_reg.nn.places import Places


class Network(Protocol):
    @property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W) of the images whose flattened, standardised pixels it takes."""

    @property
    def replicas(self) -> int:
        """R."""

    def __call__(self, x_RBD: Tensor, places: Places, /) -> Tensor:
        """Logits (R, B, K)."""

    def replica(self, place: int) -> Network:
        """The replica at `place` alone."""
