"""The regularisers of a stack, at their places in the forward pass of training.

Each draws and acts on the replicas whose strength is above 0 alone, so a method costs nothing to its neighbours, and
strength 0 is the identity because nothing is done.

Axes: R replicas, B samples a batch, N samples an epoch, D pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from noise_reg.nn.places import Places
from noise_reg.regularizers.cdt import corrupt
from noise_reg.regularizers.dropout import drop
from noise_reg.regularizers.ninr import epoch_noise
from noise_reg.spec import ReadingSpec, Strengths
from noise_reg.streams import Purpose, keep_mask, normal

INPUT = -1  # the layer number under which dropout of the input draws


class Active:
    """The replicas of a stack whose strength is above 0, and how to act on them alone."""

    def __init__(self, strength_R: Tensor, seeds_R: Tensor) -> None:
        self.index = strength_R.nonzero().flatten()
        self.strength_A, self.seeds_A = strength_R[self.index], seeds_R[self.index]
        self.all = len(self.index) == len(strength_R)

    def __bool__(self) -> bool:
        return len(self.index) > 0

    def apply(self, act: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """x (R, ...) with `act` applied to the active replicas' rows."""
        if self.all:
            return act(x)
        return x.index_copy(0, self.index, act(x[self.index]))


class TrainingPlaces(Places):
    """The noise of one stack in training; `start_epoch` and `start_step` say which numbers of its streams are next."""

    training = True

    def __init__(
        self,
        strengths: Sequence[Strengths],
        seeds_R: Tensor,
        reading: ReadingSpec,
        node_layers: Sequence[int],
        batch: int,
    ) -> None:
        def vector(name: str) -> Tensor:
            return torch.tensor([getattr(s, name) for s in strengths], dtype=torch.float64, device=seeds_R.device)

        self.seeds_R, self.reading, self.node_layers, self.batch = seeds_R, reading, node_layers, batch
        self.cdt, self.dropout = Active(vector("cdt"), seeds_R), Active(vector("dropout"), seeds_R)
        self.sigma_R = {layer: vector("nin_hidden" if layer else "nin_input") for layer in node_layers}

    def start_epoch(self, epoch: int, order_RN: Tensor, samples: int, dtype: torch.dtype) -> None:
        """order_RN: the samples of this epoch in their order, of `samples` there are."""
        self.epoch, self.dtype = epoch, dtype
        self.epsilon_RN = {
            layer: (sigma_R[:, None] * epoch_noise(self.seeds_R, layer, order_RN, samples, epoch, self.reading)).to(
                dtype
            )
            for layer, sigma_R in self.sigma_R.items()
        }

    def start_step(self, step: int) -> None:
        self.step = step

    def input(self, x_RBD: Tensor) -> Tensor:
        if self.cdt:
            x_RBD = self.cdt.apply(self.corrupt_active, x_RBD)
        return self.activation(x_RBD, INPUT) if self.reading.dropout_input else x_RBD

    def corrupt_active(self, x_ABD: Tensor) -> Tensor:
        count = x_ABD[0].numel()
        delta = normal(self.cdt.seeds_A, Purpose.CDT, count, lane=0, step=self.step, epoch=self.epoch)
        sigma = self.cdt.strength_A.to(x_ABD.dtype)[:, None, None]
        return corrupt(x_ABD, sigma, delta.view_as(x_ABD).to(x_ABD.dtype))

    def node(self, layer: int) -> Tensor | None:
        if layer not in self.epsilon_RN:
            return None
        return self.epsilon_RN[layer][:, self.step * self.batch : (self.step + 1) * self.batch]

    def activation(self, h: Tensor, layer: int) -> Tensor:
        return self.dropout.apply(lambda h_A: self.drop_active(h_A, layer), h) if self.dropout else h

    def drop_active(self, h_A: Tensor, layer: int) -> Tensor:
        drop_A, count = self.dropout.strength_A, h_A[0].numel()
        keep = keep_mask(self.dropout.seeds_A, drop_A, count, lane=layer + 1, step=self.step, epoch=self.epoch)
        return drop(h_A, keep.view(h_A.shape), drop_A)
