"""Random numbers as tensors, for a step that cannot ask for them: one with no Python left in it, or of many runs at once.

Axes: R replicas, B samples a batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from noise_reg.bench.draws import StreamDraws
from noise_reg.bench.plain import plain_network
from noise_reg.bench.work import Workload
from noise_reg.nn import DTYPES
from noise_reg.spec import RunSpec


class KeptDraws:
    """The numbers of `source`, kept in the order in which a network takes them."""

    def __init__(self, source: StreamDraws) -> None:
        self.start(source)

    def start(self, source: StreamDraws) -> None:
        self.source = source
        self.kept: list[Tensor] = []

    def keep(self, draw: Tensor) -> Tensor:
        self.kept.append(draw)
        return draw

    def corruption(self, x: Tensor) -> Tensor:
        return self.keep(self.source.corruption(x))

    def epsilon(self, z: Tensor, layer: int) -> Tensor:
        return self.keep(self.source.epsilon(z, layer))

    def drop(self, h: Tensor, probability: float, layer: int) -> Tensor:
        return h * self.keep(self.source.drop(torch.ones_like(h), probability, layer))


class GivenDraws:
    """What `KeptDraws` kept of the same step, in the same order."""

    def __init__(self) -> None:
        self.left: list[Tensor] = []

    def give(self, kept: Sequence[Tensor]) -> None:
        self.left = list(kept)

    def corruption(self, x: Tensor) -> Tensor:
        return self.left.pop(0)

    def epsilon(self, z: Tensor, layer: int) -> Tensor:
        return self.left.pop(0)

    def drop(self, h: Tensor, probability: float, layer: int) -> Tensor:
        return h * self.left.pop(0)


class Noise:
    """What our streams give R runs of one method, step after step. A network of theirs asks for it; its outputs are not used."""

    def __init__(self, work: Workload, specs: Sequence[RunSpec], precision: str) -> None:
        self.streams = [StreamDraws(spec, work.steps, work.device) for spec in specs]
        self.draws = KeptDraws(self.streams[0])
        weights = work.start_of(specs[0], precision)
        self.network = plain_network(specs[0], weights, DTYPES[precision], self.draws).to(work.device)

    @torch.no_grad()
    def next(self, x_RBCHW: Tensor) -> list[Tensor]:
        """The next step's numbers, each (R, B, ...)."""
        taken = []
        for stream, x in zip(self.streams, x_RBCHW, strict=True):
            stream.next_step()
            self.draws.start(stream)
            self.network(x)
            taken.append(self.draws.kept)
        return [torch.stack(draws) for draws in zip(*taken, strict=True)]
