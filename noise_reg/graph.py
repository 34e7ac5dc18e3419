"""A training step as one CUDA graph: hundreds of launches become one, and a step that is bound by launches is bound by memory.

What a graph may hold: work whose shapes and addresses stay, without a look at any value from the host. What changes from step
to step must be the contents of tensors (the numbers of step and epoch, the order, the nodes' noise).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

EAGER = 3  # steps done one launch at a time first, so that libraries and optimisers have set up what they set up once


class Repeated:
    """Calls `step`, from its fourth time on as a CUDA graph of it. On a CPU, or with `capture` off, it is called as it is."""

    def __init__(self, step: Callable[[], None], device: torch.device, capture: bool = True) -> None:
        self.step, self.calls, self.replay = step, 0, step
        self.stream = torch.cuda.Stream(device) if capture and device.type == "cuda" else None

    def __call__(self) -> None:
        if self.stream is not None and self.calls < EAGER:
            now = torch.cuda.current_stream(self.stream.device)
            self.stream.wait_stream(now)
            with torch.cuda.stream(self.stream):  # where it is captured too: autograd remembers a parameter's stream
                self.step()
            now.wait_stream(self.stream)
        else:
            if self.stream is not None and self.calls == EAGER:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self.stream):
                    self.step()  # recorded, not done
                self.replay = graph.replay
            self.replay()
        self.calls += 1
