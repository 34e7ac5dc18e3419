"""The task of `scripts/evaluate.py`: evaluations of runs that are in a store already."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd
from omegaconf import DictConfig

from noise_reg.config import Job, read_evaluations, read_runtime
from noise_reg.data.own import load_file
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import EvaluationSpec
from noise_reg.own_model import evaluate_composed, named_model
from noise_reg.pipeline import Pipeline
from noise_reg.plugins import load_plugins
from noise_reg.spec import RunSpec, flatten, parse
from noise_reg.store.nearby import where_else


def reevaluate(cfg: DictConfig) -> None:
    """Evaluates the completed runs of the store (or those of `runs`) and prints the mean accuracy at each strength over runs
    that differ in their seed alone."""
    load_plugins(cfg.plugins)
    if cfg.model is not None:
        evaluate_own(cfg)
        return
    if cfg.get("dataset") is not None or cfg.name is not None:
        raise UserError(
            "dataset, name: only with model=; a stored run is evaluated on the data set that it was trained on"
        )
    if isinstance(cfg.data_files, str) or not all(isinstance(file, str) for file in cfg.data_files):
        raise UserError(f"data_files = {cfg.data_files}: must be a list of npz archives, as data_files=[mine.npz]")
    for file in cfg.data_files:
        load_file(file)
    evaluations = read_evaluations(cfg, cfg.evaluations)
    runtime = read_runtime(cfg)
    pipeline = Pipeline(runtime)
    if isinstance(cfg.runs, str):
        raise UserError(f"runs = {cfg.runs}: must be a list, as runs=[{cfg.runs}]")
    there = pipeline.store.keys()
    asked = there if cfg.runs is None else list(dict.fromkeys(map(str, cfg.runs)))
    for key in (unknown := [key for key in asked if key not in there]):
        pipeline.say(f"runs = {key}: not in the store {runtime.store}, which holds {len(there)} runs")
    if not asked:
        raise UserError(
            f"store = {runtime.store}: holds no runs{where_else(pipeline.store.root)}; train some with scripts/train.py store={runtime.store}"
        )
    usable, unusable = usable_runs(pipeline, [key for key in asked if key in there])
    jobs = [Job(spec, method, evaluations, runtime) for spec, method in usable]
    pipeline.evaluate_and_mirror(jobs, "train", ["train"])
    if jobs:
        show(pipeline, jobs, evaluations)
    if left_out := [*unknown, *unusable]:
        raise UserError(f"{len(left_out)} of the runs asked for were not evaluated: {', '.join(left_out)}")
    print(f"stored in {runtime.store}/ (from Python: Store({runtime.store!r}).evaluations())")


def evaluate_own(cfg: DictConfig) -> None:
    """Evaluates the user's own model `cfg.model`, prints its accuracy at each strength, and stores it under `cfg.name`."""
    if cfg.runs is not None:
        raise UserError(f"runs = {cfg.runs}: stored runs and model = {cfg.model} are evaluated by two commands")
    read_evaluations(cfg, cfg.evaluations)  # a mistake is told before a model is built
    rows = evaluate_composed(named_model(cfg.model), cfg, str(cfg.model))
    for name, curve in rows.groupby("evaluation", sort=False):
        table = (100 * curve.set_index("strength")["accuracy"]).round(1).to_frame().T
        print(f"{name}: accuracy in % of {cfg.model}\n{table.to_string(index=False)}")
    if cfg.name is not None:
        print(f"stored in {cfg.store}/ (from Python: Store({cfg.store!r}).model_evaluations())")


def usable_runs(pipeline: Pipeline, keys: Sequence[str]) -> tuple[list[tuple[RunSpec, str]], list[str]]:
    """Specification and method of each run that can be evaluated, and the keys of those that cannot: damaged, or with settings
    that this version of the code does not know. Each of those is named."""
    usable, unusable = [], []
    for key in keys:
        state = pipeline.store.state(key)
        if state == "missing":  # taken away meanwhile
            continue
        try:
            if state != "complete":
                raise UserError(f"{state}. Remedy: run the command that trained it again, which makes it anew")
            usable.append((parse(RunSpec, pipeline.store.spec(key)), str(pipeline.store.read_record(key)["method"])))
        except UserError as error:
            unusable.append(key)
            pipeline.say(f"not evaluated: run {key} of the store {pipeline.runtime.store}: {error}")
    return usable, unusable


def mean_and_spread(values: pd.Series[float]) -> str:
    """'97.2 ± 0.4': the mean and, of two or more, the standard deviation."""
    return f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else f"{values.mean():.1f}"


def show(pipeline: Pipeline, jobs: Sequence[Job], evaluations: Sequence[EvaluationSpec]) -> None:
    """Prints the mean accuracy and its spread over runs that differ in their seed alone, sorted by what they are."""
    rows, keys = pipeline.store.evaluations(), [job.spec.key for job in jobs]
    alike = kinds(jobs)
    shown = rows[rows["key"].isin(keys)].merge(alike, left_on="key", right_index=True)
    for settings in evaluations:
        of = shown[shown["evaluation"] == settings.label]
        groups = (100 * of.set_index([*alike.columns, "strength"])["accuracy"]).groupby([*alike.columns, "strength"])
        table = groups.agg(mean_and_spread).unstack("strength")
        if len(table):
            table.insert(0, "runs", groups.count().unstack("strength").max(axis=1))
            told = f"{settings.label}: accuracy in %, mean ± standard deviation over runs"
            print(f"{told}\n{table.reset_index().to_string(index=False)}")


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
