"""The task of `scripts/evaluate.py`: evaluations of runs that are in a store already."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd
from omegaconf import DictConfig

from noise_reg.config import Job, read_evaluations, read_runtime
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import EvaluationSpec
from noise_reg.pipeline import Pipeline
from noise_reg.spec import RunSpec, flatten, parse


def reevaluate(cfg: DictConfig) -> None:
    """Evaluates the completed runs of the store (or those of `runs`) and prints the mean accuracy at each strength over runs
    that differ in their seed alone."""
    evaluations = read_evaluations(cfg, cfg.evaluations)
    runtime = read_runtime(cfg)
    pipeline = Pipeline(runtime)
    runs = pipeline.store.runs().set_index("key")
    if isinstance(cfg.runs, str):
        raise UserError(f"runs = {cfg.runs}: must be a list, as runs=[{cfg.runs}]")
    keys = list(runs.index) if cfg.runs is None else [str(key) for key in cfg.runs]
    unknown = [key for key in keys if key not in runs.index]
    for key in unknown:
        pipeline.say(f"runs = {key}: not in the store {runtime.store}, which holds {len(runs)} runs")
    keys = [key for key in dict.fromkeys(keys) if key in runs.index]
    if not keys and not unknown:
        raise UserError(
            f"store = {runtime.store}: holds no runs; train some with scripts/train.py store={runtime.store}"
        )
    jobs = [
        Job(parse(RunSpec, pipeline.store.spec(key)), str(runs.loc[key, "method"]), evaluations, runtime)
        for key in keys
    ]
    pipeline.evaluate_and_mirror(jobs, "train", ["train"])
    if jobs:
        show(pipeline, jobs, evaluations)
    if unknown:
        raise UserError(f"{len(unknown)} of the runs asked for were not evaluated: {', '.join(unknown)}")


def show(pipeline: Pipeline, jobs: Sequence[Job], evaluations: Sequence[EvaluationSpec]) -> None:
    """Prints the mean accuracy of runs that differ in their seed alone."""
    rows, keys = pipeline.store.evaluations(), [job.spec.key for job in jobs]
    alike = kinds(jobs)
    shown = rows[rows["key"].isin(keys)].merge(alike, left_on="key", right_index=True)
    for settings in evaluations:
        of = shown[shown["evaluation"] == settings.label]
        groups = of.groupby([*alike.columns, "strength"], sort=False)["accuracy"]
        table = 100 * groups.mean().unstack("strength")
        if len(table):
            table.insert(0, "runs", groups.count().unstack("strength").max(axis=1))
            print(f"{settings.label}, mean accuracy in %\n{table.round(1).reset_index().to_string(index=False)}")


def kinds(jobs: Sequence[Job]) -> pd.DataFrame:
    """By key, what a run is beside its seed: data set, architecture, method, and every other setting in which `jobs` differ,
    strengths too where a method's name does not tell them apart."""
    named = {"dataset.name": "dataset", "arch.name": "arch"}
    flat = [flatten(dataclasses.asdict(job.spec)) for job in jobs]
    table = pd.DataFrame(flat, index=[job.spec.key for job in jobs])
    others = [n for n in flat[0] if n not in named and n != "seed" and not n.startswith("strengths.")]
    told = [name for name in others if table[name].map(str).nunique() > 1]
    methods = pd.Series([job.method for job in jobs], index=table.index)
    strengths = [name for name in flat[0] if name.startswith("strengths.")]
    told += [name for name in strengths if table[name].groupby(methods).nunique().max() > 1]  # under one method's name
    table = table[[*named, *told]].map(str).rename(columns=named)
    table.insert(2, "method", methods)
    return table
