"""NINR: a noise injection node at the input (in-NINR) or at every layer (full-NINR). Its place is the pre-activation of a
dense layer or the image that enters a convolution; the nodes themselves are in `noise_reg/nn/noise_node.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from noise_reg.spec import ArchSpec, DistributionSpec, ReadingSpec, Strengths
from noise_reg.streams import drawn


def node_layers(arch: ArchSpec, reading: ReadingSpec, strengths: Sequence[Strengths], depth: int) -> list[int]:
    """The layers that need a node because some replica's noise enters there."""
    hidden = range(1, depth if reading.output_nin else depth - 1)
    at_input = any(s.nin_input > 0 for s in strengths)
    return [*([0] if at_input else []), *(hidden if any(s.nin_hidden > 0 for s in strengths) else [])]


def epoch_noise(
    distribution: DistributionSpec,
    seeds_R: Tensor,
    layer: int,
    order_RN: Tensor,
    samples: int,
    epoch: int,
    reading: ReadingSpec,
) -> Tensor:
    """epsilon / sigma_epsilon (R, N) of `distribution` for the samples of an epoch in their order: drawn per sample, 'afresh
    each epoch' or 'once' for all epochs (reading 11), one for each layer or one shared by all layers (reading 10)."""
    lane = 0 if reading.full_noise == "shared" else layer
    if reading.noise_redraw == "epoch":
        return drawn(distribution, seeds_R, order_RN.shape[1], lane=lane, step=0, epoch=epoch)
    fixed = drawn(distribution, seeds_R, samples, lane=lane, step=1, epoch=0)
    return torch.gather(fixed, 1, order_RN)
