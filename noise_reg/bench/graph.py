"""Contender (c): the plain loop with each run's whole step captured in a CUDA graph.

Axes: B samples a batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from noise_reg.bench.draws import OrdinaryDraws
from noise_reg.bench.given import GivenDraws, Noise
from noise_reg.bench.loops import PlainLoop, plain_weights
from noise_reg.bench.plain import plain_network, plain_optimizer, plain_step
from noise_reg.bench.work import Alone, Weights, Workload
from noise_reg.nn import DTYPES
from noise_reg.spec import RunSpec

WARM_UP = 3  # steps before a capture, as PyTorch's documentation asks


def absent(work: Workload) -> str:
    """Why this contender is not there for a job, or ''."""
    return "" if work.device.type == "cuda" else f"CUDA graphs are CUDA's, the device is {work.device.type}"


class GraphLoop(Alone):
    """One run after another; a step gathers its batch into kept buffers and replays the graph."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        self.work = work
        self.steps = [CapturedStep(work, spec, weights, precision, gate) for spec, weights in work.initial(precision)]
        self.orders = [torch.empty(0)]
        self.runs = len(self.steps)

    ready = PlainLoop.ready

    def run(self) -> float:
        for step, order in zip(self.steps, self.orders, strict=True):
            for index in order.split(self.work.specs[0].optimizer.batch_size):
                step.take(index)
        return 0.0

    def weights(self) -> list[dict[str, np.ndarray]]:
        return [plain_weights(step.network) for step in self.steps]


class CapturedStep:
    """One run's step on the batch in `x` (B, C, H, W) and `y` (B,); at the gate its random numbers lie in buffers too."""

    def __init__(self, work: Workload, spec: RunSpec, weights: Weights, precision: str, gate: bool) -> None:
        self.data, batch = work.data(precision), spec.optimizer.batch_size
        self.x_NCHW = self.data.x.view(-1, *self.data.image)
        self.x, self.y = self.x_NCHW[:batch].clone(), self.data.y[:batch].clone()
        self.noise = Noise(work, [spec], precision) if gate else None
        self.buffers = Noise(work, [spec], precision).next(self.x[None]) if gate else []  # of the right shapes
        self.given = GivenDraws()
        network = plain_network(spec, weights, DTYPES[precision], self.given if gate else OrdinaryDraws())
        self.network, self.loss = network.to(work.device), spec.reading.loss
        self.optimizer = plain_optimizer(self.network.named_parameters(), spec)
        start = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.replay = captured(self.step, work.device)
        self.network.load_state_dict(start)  # in place: what the warm-up did is undone

    def step(self) -> None:
        self.given.give([buffer[0] for buffer in self.buffers])
        plain_step(self.network, self.optimizer, self.loss, self.x, self.y)

    def take(self, index: torch.Tensor) -> None:
        """A step on the samples at `index` (B,)."""
        torch.index_select(self.x_NCHW, 0, index, out=self.x)
        torch.index_select(self.data.y, 0, index, out=self.y)
        if self.noise is not None:
            for buffer, draw in zip(self.buffers, self.noise.next(self.x[None]), strict=True):
                buffer.copy_(draw)
        self.replay()


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What replays `step` as one CUDA graph; it is run a few times before."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    replay: Callable[[], None] = graph.replay
    return replay
