"""The task of `scripts/train.py` for one configuration or for all of a multirun's together."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from noise_reg import entry
from noise_reg.config import Job, read_job
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import ValidationSpec
from noise_reg.spec import SpecError
from noise_reg.store import Store

VALIDATION = ValidationSpec()
OBJECTIVES = ("validation_accuracy", "test_accuracy", "train_accuracy")
WORST = 0.0  # accuracy, of a run that diverged or failed: below what guessing gives
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"  # tries every value, whatever a run returns

SHOWN_RUNS = 6  # a sweep of more ends in one line a method


def stacked(task: Callable[[DictConfig], float]) -> Callable[[DictConfig], float]:
    """Lets the stacked launcher hand over all jobs of a multirun at once."""
    task.run_together = entry.told(train_jobs)  # type: ignore[attr-defined]
    return task


def train_jobs(configs: Sequence[DictConfig]) -> list[float]:
    """Trains, evaluates and reports the configurations; the objective of each, see `objective_of`.

    Validation accuracy is measured for a sweeper that searches by it; a grid and a single run do without, and it is NaN there unless it
    is stored already.
    """
    jobs = read_jobs(configs)
    if not jobs:
        raise UserError("the sweep is empty: give at least one seed and one value of everything swept over")
    runtimes = {job.runtime for job in jobs}
    if len(runtimes) > 1:
        raise UserError("store, device, data_dir and the other settings of where runs are made must not be swept over")
    objectives = [read_objective(cfg) for cfg in configs]
    if is_search():
        jobs = [searched(job, objective) for job, objective in zip(jobs, objectives, strict=True)]
    from noise_reg.pipeline import Pipeline  # torch takes seconds to import: a mistake is told before it

    pipeline = Pipeline(jobs[0].runtime)
    records = pipeline.complete(jobs, group="train", tags=["train"])
    report(jobs, records)
    return [
        objective_of(job, record, objective, pipeline.store)
        for job, record, objective in zip(jobs, records, objectives, strict=True)
    ]


def is_search() -> bool:
    """Whether a sweeper runs us that chooses by what is returned. Raises UserError if it would look for the smallest accuracy."""
    running = HydraConfig.get() if HydraConfig.initialized() else None
    if running is None or running.mode != RunMode.MULTIRUN or running.sweeper.get("_target_") == GRID:
        return False
    direction = running.sweeper.get("direction")
    if direction is not None and str(getattr(direction, "name", direction)) != "maximize":
        raise UserError(
            f"hydra.sweeper.direction = {getattr(direction, 'name', direction)}: the objective is an accuracy, so it must be maximize. Remedy: give "
            "hydra.sweeper.direction=maximize"
        )
    return True


def read_objective(cfg: DictConfig) -> str:
    objective = cfg.get("objective")
    if objective not in OBJECTIVES:
        raise SpecError(f"objective = {objective}: must be one of {', '.join(OBJECTIVES)}")
    return str(objective)


def searched(job: Job, objective: str) -> Job:
    """`job` with the evaluation that `objective` needs. Raises SpecError where no image is kept from training to validate on."""
    if objective != "validation_accuracy":
        return job
    if job.spec.reading.train_fraction == 1:
        raise SpecError(
            "objective = validation_accuracy: reading.train_fraction = 1 keeps no image from training to validate on. Remedy: give "
            "reading.train_fraction below 1 (0.6 is the paper's), or objective=test_accuracy"
        )
    return dataclasses.replace(job, evaluations=(*job.evaluations, VALIDATION))


def objective_of(job: Job, record: dict[str, Any], objective: str, store: Store) -> float:
    """What a sweeper maximises of a run: an accuracy as a fraction, `WORST` of a run that did not complete, so that a search goes on."""
    if record["status"] != "completed":
        return WORST
    if objective != "validation_accuracy":
        return float(record[objective])
    rows = store.evaluation(job.spec.key, VALIDATION.label, {})
    return float("nan") if rows is None else float(rows["accuracy"].iloc[0])


def read_jobs(configs: Sequence[DictConfig]) -> list[Job]:
    """The checked jobs. Raises UserError that names every mistake once, with how many of the sweep's jobs it is in."""
    jobs, mistakes = [], Counter[str]()
    for cfg in configs:
        try:
            entry.check(cfg)
            jobs.append(read_job(cfg))
        except UserError as error:
            mistakes[str(error)] += 1
    if mistakes and len(configs) == 1:
        raise UserError(next(iter(mistakes)))
    if mistakes:
        lines = [f"  {mistake} (in {count})" for mistake, count in mistakes.items()]
        wrong = f"{mistakes.total()} of the sweep's {len(configs)} jobs cannot be run; nothing was trained:"
        raise UserError("\n".join([wrong, *lines]))
    return jobs


def report(jobs: Sequence[Job], records: Sequence[dict[str, Any]]) -> None:
    """A line a run where they are few, else a line a method; what failed on stderr; then where the runs are and what comes next."""
    import pandas as pd

    from noise_reg.pipeline import describe_spec
    from noise_reg.reevaluate import kinds, mean_and_spread

    few, percent = len(jobs) <= SHOWN_RUNS, {}
    for job, record in zip(jobs, records, strict=True):
        line = f"{job.spec.key}  {describe_spec(job.spec, job.method)}: "
        if record["status"] != "completed":
            print(line + f"{record['status']} at epoch {record['epochs']}", file=sys.stderr)
            continue
        percent[job.spec.key] = 100 * record["test_accuracy"], 100 * record["train_accuracy"], float(record["epochs"])
        if few:
            line += f"test accuracy {100 * record['test_accuracy']:.2f} %, training {100 * record['train_accuracy']:.2f} %, "
            print(line + f"stopped by {record['stopped_by']} at epoch {record['epochs']}, {record['seconds']:.1f} s")
    if not few and percent:
        alike = kinds([job for job in dict.fromkeys(jobs) if job.spec.key in percent])
        columns = ["test accuracy (%)", "training (%)", "epochs"]
        table = alike.join(pd.DataFrame.from_dict(percent, orient="index", columns=columns))
        groups = table.groupby(list(alike.columns), sort=False)
        shown = groups[columns].agg(mean_and_spread)
        shown.insert(0, "runs", groups.size())
        print(
            f"mean ± standard deviation over runs that differ in their seed alone\n{shown.reset_index().to_string(index=False)}"
        )
    store = jobs[0].runtime.store
    print(f"stored in {store}/ (from Python: Store({store!r}).runs()); next: python scripts/evaluate.py store={store}")
