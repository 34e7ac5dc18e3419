"""The places where a regulariser may act on a forward pass. `CLEAN` leaves them alone: every evaluation runs with it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Drop(Protocol):
    """What dropout does to one hidden representation (R, B, ...) in one step."""

    def apply(self, h: Tensor) -> Tensor:
        """h with units dropped and the others scaled; differentiable."""

    def apply_(self, h: Tensor) -> None:
        """The same in place."""

    def scale_(self, grad: Tensor) -> None:
        """Takes the gradient back through `apply_`, in place; that of dropped units must be 0 already."""


class Places:
    """What a model asks for on its way forward; this base is the clean pass, in which noise is off (epsilon = 0)."""

    training = False  # batch norms use the batch's statistics, not the running ones

    def input(self, x_RBD: Tensor) -> Tensor:
        """The standardised input, which may be changed in place."""
        return x_RBD

    def node(self, layer: int) -> Tensor | None:
        """epsilon (R, B) of the noise node in front of `layer`, or None where no noise enters."""
        return None

    def drop(self, shape: torch.Size, layer: int) -> Drop | None:
        """What dropout does to the hidden representation of `shape` (R, B, ...) that `layer` made, or None."""
        return None

    def built_in_drop(self, shape: torch.Size, layer: int, probability: float) -> Drop | None:
        """What the architecture's own dropout does to the representation of `shape` (R, B, ...) that `layer` made."""
        return None

    def look(self, h: Tensor, layer: int) -> None:
        """Shows the hidden representation that dense layer `layer` hands on."""

    def noisy_product(self, layer: int) -> bool:
        """Whether `pre_activation` changes the products of dense layer `layer`."""
        return False

    def pre_activation(self, z: Tensor, x: Tensor, layer: int) -> Tensor:
        """The product z (R, B, O) that dense layer `layer` made of x (R, B, I), as its activation gets it."""
        return z

    def activation(self, h: Tensor, layer: int) -> Tensor:
        """The hidden representation (R, B, ...) that `layer` made, as the next layer gets it."""
        drop = self.drop(h.shape, layer)
        return h if drop is None else drop.apply(h)


CLEAN = Places()
