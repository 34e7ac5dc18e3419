"""Numbers of a stream for several steps in one call: small draws cost mostly their calls.

Axes: A active replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from noise_reg.regularizers.active import Active

AHEAD = 1 << 17  # numbers drawn in one call, if they are those of several steps
Number = int | Tensor  # of a step or an epoch; a tensor (1,) where a CUDA graph reads it
Draw = Callable[[Tensor, Tensor, int], Tensor]  # of seeds (N,), steps (N,) and a count: (N, count)


class Ahead:
    """Of one epoch at a time."""

    def start_epoch(self, steps: int) -> None:
        self.steps = steps
        self.drawn: dict[Hashable, tuple[int, Tensor]] = {}  # by what draws: the first step, and (steps, A, numbers)

    def numbers(self, what: Hashable, active: Active, count: int, draw: Draw, step: Number) -> Tensor:
        """This step's `count` numbers for each active replica, (A, count)."""
        if isinstance(step, Tensor):
            return draw(active.seeds_A, step.expand(len(active)), count)
        first, drawn = self.drawn.get(what, (step + 1, None))
        if drawn is None or not 0 <= step - first < len(drawn):
            ahead = max(1, min(AHEAD // (len(active) * count), self.steps - step))
            first, step_S = step, torch.arange(step, step + ahead, device=active.seeds_A.device)
            drawn = draw(active.seeds_A.repeat(ahead), step_S.repeat_interleave(len(active)), count)
            drawn = drawn.unflatten(0, (ahead, -1))
            self.drawn[what] = first, drawn
        return drawn[step - first]
