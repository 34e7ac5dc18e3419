"""The regularisers of a stack, at their places in the forward pass of training.

Each draws and acts on the replicas whose strength is above 0 alone, so a method costs nothing to its neighbours, and
strength 0 is the identity because nothing is done. (Replicas of one method stand together in a plan: their rows are a view.)

Axes: R replicas, B samples a batch, N samples an epoch, D pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from noise_reg.losses import Soft
from noise_reg.nn.places import Places
from noise_reg.regularizers.active import Active
from noise_reg.regularizers.ahead import Ahead, Number
from noise_reg.regularizers.cdt import Corruption
from noise_reg.regularizers.dropout import Dropped
from noise_reg.regularizers.label_smoothing import smoothed
from noise_reg.regularizers.ninr import epoch_noise
from noise_reg.regularizers.weight_noise import sample_noise
from noise_reg.spec import DistributionSpec, ReadingSpec, Strengths
from noise_reg.streams import Purpose, drawn, keep_mask, normal

INPUT, CDT_INPUT, NOISE_INPUT = -1, -2, -3  # the layer numbers under which what acts on the input draws
INPUT_LANE = (1 << 16) + 1  # of input noise; nodes draw from the same streams under their layers' numbers


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
        distribution: DistributionSpec,
        dtype: torch.dtype,
    ) -> None:
        def vector(name: str) -> Tensor:
            return torch.tensor([getattr(s, name) for s in strengths], dtype=torch.float64, device=seeds_R.device)

        self.seeds_R, self.reading, self.node_layers, self.batch = seeds_R, reading, node_layers, batch
        self.distribution, self.dtype = distribution, dtype
        self.cdt, self.dropout = Active(vector("cdt"), seeds_R), Active(vector("dropout"), seeds_R)
        self.noise, self.smoothing = Active(vector("input_noise"), seeds_R), Active(vector("label_smoothing"), seeds_R)
        by_sample = reading.weight_noise_draw == "sample"
        self.sample_noise = Active(vector("weight_noise") * by_sample, seeds_R)
        self.corruption = Corruption(self.cdt.strength_A.to(dtype))
        self.epsilon_RN: dict[int, Tensor] = {}  # by layer
        self.ahead = Ahead()
        self.sigma_R = {layer: vector("nin_hidden" if layer else "nin_input") for layer in node_layers}

    def start_epoch(self, epoch: int, order_RN: Tensor, samples: int) -> None:
        """order_RN: the samples of this epoch in their order, of `samples` there are."""
        self.ahead.start_epoch(order_RN.shape[1] // self.batch)
        for layer, sigma_R in self.sigma_R.items():
            drawn = epoch_noise(self.distribution, self.seeds_R, layer, order_RN, samples, epoch, self.reading)
            epsilon_RN = (sigma_R[:, None] * drawn).to(self.dtype)
            old_RN = self.epsilon_RN.setdefault(layer, epsilon_RN)
            if old_RN is not epsilon_RN:  # a CUDA graph keeps to the first epoch's tensor
                old_RN.copy_(epsilon_RN)

    def start_step(self, step: Number, epoch: Number) -> None:
        self.step, self.epoch = step, epoch
        self.hidden: dict[int, Tensor] = {}  # the dense layers' representations, by layer

    def input(self, x_RBD: Tensor) -> Tensor:
        if self.cdt:
            x_ABD = x_RBD[self.cdt.rows]
            delta = self.ahead.numbers(CDT_INPUT, self.cdt, x_ABD[0].numel(), self.cdt_noise, self.step).view_as(x_ABD)
            corrupted = self.corruption.apply_(x_ABD, delta.to(x_RBD.dtype))
            if not isinstance(self.cdt.rows, slice):
                x_RBD[self.cdt.rows] = corrupted
        if self.noise:
            count = x_RBD.shape[1:].numel()
            delta = self.ahead.numbers(NOISE_INPUT, self.noise, count, self.input_noise, self.step).view(
                -1, *x_RBD.shape[1:]
            )
            self.noise.add(x_RBD, (self.noise.strength_A[:, None, None] * delta).to(x_RBD.dtype))
        return self.activation(x_RBD, INPUT) if self.reading.dropout_input else x_RBD

    def input_noise(self, seeds: Tensor, step: Tensor, count: int) -> Tensor:
        return drawn(self.distribution, seeds, count, lane=INPUT_LANE, step=step, epoch=self.epoch)

    def look(self, h: Tensor, layer: int) -> None:
        self.hidden[layer] = h

    def targets(self, labels_RB: Tensor, classes: int) -> Soft | None:
        """The targets of replicas whose labels are smoothed."""
        if not self.smoothing:
            return None
        rows = self.smoothing.rows
        return rows, smoothed(labels_RB[rows], self.smoothing.strength_A, classes, self.dtype)

    def noisy_product(self, layer: int) -> bool:
        return bool(self.sample_noise)

    def pre_activation(self, z: Tensor, x: Tensor, layer: int) -> Tensor:
        return sample_noise(self.sample_noise, z, x, layer, self.step, self.epoch) if self.sample_noise else z

    def cdt_noise(self, seeds: Tensor, step: Tensor, count: int) -> Tensor:
        return normal(seeds, Purpose.CDT, count, lane=0, step=step, epoch=self.epoch)

    def node(self, layer: int) -> Tensor | None:
        if layer not in self.epsilon_RN:
            return None
        return of_step(self.epsilon_RN[layer], self.step, self.batch)

    def drop(self, shape: torch.Size, layer: int) -> Dropped | None:
        if not self.dropout:
            return None

        def draw(seeds: Tensor, step: Tensor, count: int) -> Tensor:
            drop = self.dropout.strength_A.repeat(len(seeds) // len(self.dropout))
            return keep_mask(seeds, drop, count, lane=layer + 1, step=step, epoch=self.epoch, dtype=self.dtype)

        keep = self.ahead.numbers(layer, self.dropout, shape[1:].numel(), draw, self.step).view(-1, *shape[1:])
        scale_A = (1 / (1 - self.dropout.strength_A)).to(self.dtype)
        return Dropped(self.dropout.rows, keep, scale_A.view(-1, *[1] * (len(shape) - 1)))

    def built_in_drop(self, shape: torch.Size, layer: int, probability: float) -> Dropped:
        drop_R = torch.full((len(self.seeds_R),), probability, dtype=torch.float64, device=self.seeds_R.device)
        keep = keep_mask(
            self.seeds_R, drop_R, shape[1:].numel(), lane=layer, step=self.step, epoch=self.epoch, dtype=self.dtype,
            purpose=Purpose.ARCH_DROPOUT,
        )  # fmt: skip
        scale_R = (1 / (1 - drop_R)).to(self.dtype).view(-1, *[1] * (len(shape) - 1))
        return Dropped(slice(None), keep.view(shape), scale_R)


def of_step(numbers_RN: Tensor, step: Number, batch: int) -> Tensor:
    """(R, B): what an epoch's numbers, in the order of its samples, hold for one step."""
    if isinstance(step, Tensor):
        return numbers_RN.index_select(1, step * batch + torch.arange(batch, device=step.device))
    return numbers_RN[:, step * batch : (step + 1) * batch]
