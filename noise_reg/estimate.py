"""What a plan will cost: the stacks to train and the evaluations to make, of each of which a little is timed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noise_reg.config import Job
from noise_reg.evaluation_spec import CertificateSpec, EvaluationSpec
from noise_reg.pipeline import Pipeline, merged
from noise_reg.probe import Probe
from noise_reg.spec import RunSpec
from noise_reg.usual_epochs import UsualEpochs

# Seconds on two cores of a server; they matter where a run takes no more than they do.
STORING, STORING_EVALUATION = 0.03, 0.005
STARTING_MIRROR, MIRRORING = 3.0, 0.15


@dataclass(frozen=True)
class Estimate:
    """Seconds that training, evaluation and mirroring will take: `expected` by the epochs that such runs took before (those of the
    store and of the committed rows), `at_most` if all run to their last epoch. `evaluations`: how many are to be made."""

    needed: int
    found: int
    stacks: int
    evaluations: int
    expected: float
    at_most: float
    device: str

    @property
    def range(self) -> str:
        if not self.stacks and not self.evaluations:
            return "nothing to train or to evaluate"
        work = "" if self.stacks else f"nothing to train, {self.evaluations} evaluations: "
        if self.expected > 0.95 * self.at_most:
            return f"{work}about {show_seconds(self.at_most)}"
        return f"{work}about {show_seconds(self.expected)}, at most {show_seconds(self.at_most)}"


def show_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(pipeline: Pipeline, jobs: Sequence[Job], results: Path) -> Estimate:
    """Of what `jobs` still need; `results` holds the committed rows."""
    unique = merged(jobs)
    found = pipeline.stored(job.spec for job in unique.values())
    missing = {key: job for key, job in unique.items() if key not in found}
    pipeline.check_memory([job.spec for job in missing.values()])
    pipeline.usual = UsualEpochs(pipeline.store, results)
    stacks = pipeline.stacks([job.spec for job in missing.values()])
    workers = pipeline.workers(len(stacks))
    probe = Probe(pipeline, single_thread=workers > 1)
    seconds = [stack_seconds(pipeline, probe, specs, unique) for specs in stacks]  # (expected, at most) of each
    pending = list(pending_evaluations(pipeline, unique, found))
    after = sum(evaluation_seconds(pipeline, probe, pending))
    if pipeline.runtime.wandb != "disabled" and (changed := {spec.key for spec, _ in pending} | missing.keys()):
        after += STARTING_MIRROR + MIRRORING * len(changed)
    expected, at_most = (side_by_side([of_stack[n] for of_stack in seconds], workers) + after for n in (0, 1))
    return Estimate(len(unique), len(found), len(stacks), len(pending), expected, at_most, device=str(pipeline.device))


def stack_seconds(
    pipeline: Pipeline, probe: Probe, specs: Sequence[RunSpec], jobs: Mapping[str, Job]
) -> tuple[float, float]:
    """Of training a stack as long as such runs took, and to its last epoch. A stack becomes faster as its runs end."""
    data, spec, most = pipeline.data(specs[0]), specs[0], max(spec.max_epochs for spec in specs)
    methods = [jobs[spec.key].method if spec.key in jobs else "" for spec in specs]
    usual = [pipeline.usual.of(spec, method) for spec, method in zip(specs, methods, strict=True)]
    epochs = sum(spec.max_epochs if n is None else n for n, spec in zip(usual, specs, strict=True)) / len(specs)
    steps = len(data.x) // spec.optimizer.batch_size
    looked_at = len(data.test_y) + (len(data.x) if spec.reading.stop_measure == "clean" else 0)
    step = probe.step(specs, round(steps * epochs))
    image = probe.image(specs, looked_at * epochs, training=True)
    epoch, around = steps * step + looked_at * image, len(data.test_y) * image + STORING * len(specs)
    return epochs * epoch + around, most * epoch + around


def pending_evaluations(
    pipeline: Pipeline, jobs: Mapping[str, Job], found: set[str]
) -> Iterator[tuple[RunSpec, EvaluationSpec]]:
    """What will be evaluated, of runs that are stored and of those to be trained."""
    for key, job in jobs.items():
        if key in found and pipeline.store.read_record(key)["status"] != "completed":
            continue
        for settings in job.evaluations:
            if key not in found or pipeline.lacks(key, settings):
                yield job.spec, settings


def evaluation_seconds(
    pipeline: Pipeline, probe: Probe, pending: Sequence[tuple[RunSpec, EvaluationSpec]]
) -> Iterator[float]:
    """Of each stack that is evaluated, as `Pipeline.evaluate` cuts them."""
    groups: dict[tuple[str, EvaluationSpec], list[RunSpec]] = {}
    for spec, settings in pending:
        groups.setdefault((spec.stack_key(), settings), []).append(spec)
    for (_, settings), specs in groups.items():
        size = 1 if isinstance(settings, CertificateSpec) else pipeline.stack_size(specs[0])
        for first in range(0, len(specs), size):
            chunk = specs[first : first + size]
            yield probe.evaluation(chunk, settings) + STORING_EVALUATION * len(chunk) * len(settings.stored())


def side_by_side(seconds: Sequence[float], workers: int) -> float:
    """How long `workers` take, each at the next task when it is done with one."""
    free = [0.0] * workers
    for task in seconds:
        heapq.heapreplace(free, free[0] + task)
    return max(free)
