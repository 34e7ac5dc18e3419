"""Contenders (f) and (g): a job's runs as the stacks that the pipeline would train them in, by as many workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from noise_reg.bench.processes import Workers
from noise_reg.bench.work import Workload
from noise_reg.plan import cut, shares, stack_size
from noise_reg.precision import arithmetic
from noise_reg.prepare import TrainingData
from noise_reg.spec import RunSpec
from noise_reg.train import new_stack, run_epoch
from noise_reg.workers import possible_workers


class StackedPart:
    """The share of a job's runs that one worker trains."""

    def __init__(self, specs: Sequence[RunSpec], data: TrainingData, wanted_size: Any) -> None:
        device = data.x.device
        size = stack_size(specs[0], data.image, data.classes, device.type, wanted_size)
        self.stacks, self.data, self.precision, self.device = (
            [new_stack(c, data) for c in cut(specs, size)],
            data,
            specs[0].precision,
            device,
        )

    def ready(self, epoch: int) -> None:
        for stack in self.stacks:
            stack.epoch = epoch

    def run(self) -> None:
        with arithmetic(self.precision, self.device):
            for stack in self.stacks:
                run_epoch(stack, self.data)

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """By the run's key."""
        return {spec.key: stack.weights(r) for stack in self.stacks for r, spec in enumerate(stack.specs)}


class Stacked:
    """All runs of a job."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        self.work, self.precision = work, precision
        self.runs = len(work.specs)
        specs, data = [spec.replace(precision=precision) for spec in work.specs], work.data(precision)
        count = min(possible_workers(work.device), len(specs))
        parts = [StackedPart(share, data, work.recipe.stack_size) for share in shares(specs, count)]
        self.alone = parts[0] if count == 1 else None
        self.workers = Workers([] if self.alone else [made(part) for part in parts], work.device)

    def ready(self, epoch: int) -> None:
        if self.alone is not None:
            self.alone.ready(epoch)
        self.workers.ask("ready", epoch)

    def run(self) -> float:
        if self.alone is not None:
            self.alone.run()
        return float(sum(self.workers.ask("run")))

    @property
    def elsewhere_mib(self) -> float:
        return self.workers.mib

    def weights(self) -> list[dict[str, np.ndarray]]:
        found = [*([] if self.alone is None else [self.alone.weights()]), *self.workers.ask("weights")]
        by_key = {key: weights for part in found for key, weights in part.items()}
        return [by_key[spec.replace(precision=self.precision).key] for spec in self.work.singles]

    def close(self) -> None:
        self.workers.close()


def made(part: StackedPart) -> Callable[[], StackedPart]:
    """A maker of what is there: forked workers share it."""
    return lambda: part
