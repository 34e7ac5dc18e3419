"""The task of `scripts/evaluate.py`: evaluations of runs that are in a store already."""

from __future__ import annotations

from omegaconf import DictConfig

from noise_reg.config import Job, read_evaluations, read_runtime
from noise_reg.errors import UserError
from noise_reg.pipeline import Pipeline
from noise_reg.spec import RunSpec, parse


def reevaluate(cfg: DictConfig) -> None:
    """Evaluates the completed runs of the store (or those of `runs`) and prints their mean accuracy at each strength."""
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
    keys = [key for key in keys if key in runs.index]
    if not keys and not unknown:
        raise UserError(
            f"store = {runtime.store}: holds no runs; train some with scripts/train.py store={runtime.store}"
        )
    jobs = [
        Job(parse(RunSpec, pipeline.store.spec(key)), str(runs.loc[key, "method"]), evaluations, runtime)
        for key in keys
    ]
    pipeline.evaluate(jobs)
    rows = pipeline.store.evaluations()
    shown = rows[rows["key"].isin(keys)].merge(runs.reset_index()[["key", "dataset", "arch", "method"]], on="key")
    for settings in evaluations:
        of = shown[shown["evaluation"] == settings.label]
        table = of.groupby(["dataset", "arch", "method", "strength"])["accuracy"].mean().unstack()
        if len(table):
            print(f"{settings.label}, accuracy in %\n{(100 * table).round(1).to_string()}")
    if unknown:
        raise UserError(f"{len(unknown)} of the runs asked for were not evaluated: {', '.join(unknown)}")
