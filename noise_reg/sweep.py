"""The task of `scripts/train.py` for one configuration or for all of a multirun's together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig

from noise_reg.config import Job, read_job
from noise_reg.errors import UserError


def stacked(task: Callable[[DictConfig], float]) -> Callable[[DictConfig], float]:
    """Lets the stacked launcher hand over all jobs of a multirun at once."""
    task.run_together = train_jobs  # type: ignore[attr-defined]
    return task


def train_jobs(configs: Sequence[DictConfig]) -> list[float]:
    """Trains, evaluates and reports the configurations; the test accuracy of each (NaN where a run diverged)."""
    jobs = [read_job(cfg) for cfg in configs]
    if not jobs:
        raise UserError("the sweep is empty: give at least one seed and one value of everything swept over")
    runtimes = {job.runtime for job in jobs}
    if len(runtimes) > 1:
        raise UserError("store, device, data_dir and the other settings of where runs are made must not be swept over")
    from noise_reg.pipeline import Pipeline  # torch takes seconds to import: a mistake is told before it

    records = Pipeline(jobs[0].runtime).complete(jobs, group="train", tags=["train"])
    report(jobs, records)
    return [float(record["test_accuracy"]) for record in records]


def report(jobs: Sequence[Job], records: Sequence[dict[str, Any]]) -> None:
    from noise_reg.pipeline import describe_spec

    for job, record in zip(jobs, records, strict=True):
        line = f"{job.spec.key}  {describe_spec(job.spec, job.method)}: "
        if record["status"] == "completed":
            line += f"test accuracy {100 * record['test_accuracy']:.2f} %, training {100 * record['train_accuracy']:.2f} %, "
            print(line + f"stopped by {record['stopped_by']} at epoch {record['epochs']}, {record['seconds']:.1f} s")
        else:
            print(line + f"{record['status']} at epoch {record['epochs']}", file=sys.stderr)
