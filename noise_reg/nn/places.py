"""The places where a regulariser may act on a forward pass. `CLEAN` leaves them alone: every evaluation runs with it."""

from __future__ import annotations

from torch import Tensor


class Places:
    """What a model asks for on its way forward; this base is the clean pass, in which noise is off (epsilon = 0)."""

    training = False  # batch norms use the batch's statistics, not the running ones

    def input(self, x_RBD: Tensor) -> Tensor:
        """The standardised input."""
        return x_RBD

    def node(self, layer: int) -> Tensor | None:
        """epsilon (R, B) of the noise node in front of `layer`, or None where no noise enters."""
        return None

    def activation(self, h: Tensor, layer: int) -> Tensor:
        """The hidden representation (R, B, ...) that `layer` made."""
        return h


CLEAN = Places()
