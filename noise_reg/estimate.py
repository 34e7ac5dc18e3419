"""What a plan will cost, from a short timed probe of every stack that would be trained."""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from noise_reg.config import Job
from noise_reg.pipeline import Pipeline
from noise_reg.plan import strengths_key
from noise_reg.precision import arithmetic
from noise_reg.spec import RunSpec
from noise_reg.train import new_stack, run_epoch

PROBE_STEPS = 6
EVALUATION_SHARE = 1 / 3  # a forward pass of a training step's time


@dataclass(frozen=True)
class Estimate:
    """Seconds that training and evaluation will take: `expected` by the epochs that such runs took before (those of the
    committed rows), `at_most` if all run to their last epoch."""

    needed: int
    found: int
    stacks: int
    expected: float
    at_most: float
    device: str

    @property
    def range(self) -> str:
        if not self.stacks:
            return "nothing to train"
        if self.expected > 0.95 * self.at_most:
            return f"about {show_seconds(self.at_most)}"
        return f"about {show_seconds(self.expected)}, at most {show_seconds(self.at_most)}"


def show_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(pipeline: Pipeline, jobs: Sequence[Job], results: Path) -> Estimate:
    """Probes the stacks that `jobs` still need; `results` holds the committed rows."""
    unique = {job.spec.key: job for job in jobs}
    found = pipeline.stored(job.spec for job in unique.values())
    stacks = pipeline.stacks([job.spec for key, job in unique.items() if key not in found])
    before = epochs_before(results)
    workers = pipeline.workers(len(stacks))
    probed: dict[tuple[str, ...], float] = {}
    expected, at_most = [], []  # by stack
    for specs in stacks:
        kind = (specs[0].stack_key(), str(len(specs)), *sorted({strengths_key(spec) for spec in specs}))
        if kind not in probed:
            probed[kind] = probe(pipeline, specs, single_thread=workers > 1)
        methods = [unique[spec.key].method if spec.key in unique else "" for spec in specs]
        usual = [
            before.get((spec.dataset.name, spec.arch.name, method), float(spec.max_epochs))
            for spec, method in zip(specs, methods, strict=True)
        ]
        expected.append(sum(probed[kind] * min(n, spec.max_epochs) for n, spec in zip(usual, specs, strict=True)))
        at_most.append(sum(probed[kind] * spec.max_epochs for spec in specs))
    evaluation = sum(
        evaluation_epochs(pipeline, unique[s.key]) * probed_epoch(probed, s)
        for g in stacks
        for s in g
        if s.key in unique
    )
    if workers > 1:  # it is trained by all of them, and evaluated by this process
        evaluation /= workers
    return Estimate(
        len(unique),
        len(found),
        len(stacks),
        side_by_side(expected, workers) + evaluation,
        side_by_side(at_most, workers) + evaluation,
        str(pipeline.device),
    )


def side_by_side(seconds: Sequence[float], workers: int) -> float:
    """How long `workers` take, each at the next task when it is done with one."""
    free = [0.0] * workers
    for task in seconds:
        heapq.heapreplace(free, free[0] + task)
    return max(free)


def probed_epoch(probed: dict[tuple[str, ...], float], spec: RunSpec) -> float:
    return next(seconds for kind, seconds in probed.items() if kind[0] == spec.stack_key())


def evaluation_epochs(pipeline: Pipeline, job: Job) -> float:
    """The cost of a run's evaluation in training epochs."""
    data = pipeline.data(job.spec)
    passes = sum(settings.passes(len(data.test_y)) for settings in job.evaluations)
    return EVALUATION_SHARE * passes * len(data.test_y) / len(data.x)


def probe(pipeline: Pipeline, specs: Sequence[RunSpec], *, single_thread: bool) -> float:
    """Seconds of one epoch a replica, from a few steps of the real loop, the epoch's test pass added in proportion."""
    data = pipeline.data(specs[0])
    batch = specs[0].optimizer.batch_size
    few = dataclasses.replace(data, x=data.x[: PROBE_STEPS * batch], y=data.y[: PROBE_STEPS * batch])
    stack = new_stack(specs, few)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if single_thread else threads)
    with arithmetic(specs[0].precision, pipeline.device):
        run_epoch(stack, few)
        started = time.perf_counter()
        run_epoch(stack, few)
        seconds = time.perf_counter() - started
    torch.set_num_threads(threads)
    steps = len(few.x) // batch
    epoch = seconds / steps * (len(data.x) // batch)
    return epoch * (1 + EVALUATION_SHARE * len(data.test_y) / len(data.x)) / len(specs)


def epochs_before(results: Path) -> dict[tuple[str, str, str], float]:
    """Mean epochs of the committed runs by (dataset, arch, method); paths that hold no rows are passed over."""
    frames = [pd.read_csv(path) for path in sorted(results.glob("[!.]*/runs.csv"))]
    needed = ["key", "dataset", "arch", "method", "epochs"]
    frames = [frame[needed] for frame in frames if set(needed) <= set(frame)]  # studies have runs of other columns
    if not frames:
        return {}
    runs = pd.concat(frames, ignore_index=True).drop_duplicates("key")
    means: dict[Any, float] = runs.groupby(["dataset", "arch", "method"])["epochs"].mean().to_dict()
    return means
