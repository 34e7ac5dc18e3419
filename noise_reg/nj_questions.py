"""Questions that the N+J summary leaves open, measured: cost, lambda x sigma, other losses, noises and perturbations."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from omegaconf import DictConfig
from tqdm import tqdm

from noise_reg.artefacts import MEASURED
from noise_reg.cli.reproduce import outcome, run_provenance
from noise_reg.config import Job, read_evaluations, read_job, read_runtime, read_study
from noise_reg.decimals import shortest
from noise_reg.estimate import estimate
from noise_reg.evaluation_spec import EvaluationSpec
from noise_reg.limits import check_count
from noise_reg.pipeline import Pipeline
from noise_reg.place import deliver, read_place, study_context
from noise_reg.precision import arithmetic
from noise_reg.spec import CONVOLUTIONAL, RunSpec, SpecError
from noise_reg.train import Stack, new_stack, run_epoch

Labelled = list[tuple[dict[str, Any], Job]]  # what a row says of its run, and the run


def study(cfg: DictConfig) -> None:
    """Trains and times what is asked, and draws results/nj_questions."""
    plain, place = read_study(cfg), read_place(cfg, "nj_questions")
    check(plain)
    pipeline = Pipeline(read_runtime(cfg))
    evaluations = read_evaluations(cfg, plain["evaluations"])
    variants, grid = variant_runs(plain, pipeline, evaluations), map_runs(plain, pipeline)
    jobs = [job for _, job in (*variants, *grid)]
    plan = estimate(pipeline, jobs, Path(cfg.results))
    print(f"plan: {plan.needed} runs, {plan.found} found; {plan.range} on {plan.device}", flush=True)
    pipeline.complete(jobs, group="nj_questions", tags=["nj"])
    tables = {
        "cost": pd.DataFrame(costs(plain["cost"], pipeline)),
        "map": pd.DataFrame([{**row, **outcome(pipeline, job)} for row, job in grid]),
        "variants": pd.DataFrame([{**row, **outcome(pipeline, job)} for row, job in variants]),
        "perturbed": pd.DataFrame([r for row, job in variants for r in evaluated(pipeline, row, job)]),
    }
    context = run_provenance(jobs[0].spec, pipeline)
    context |= study_context(plain, place)
    deliver(MEASURED["nj_questions"], tables, context, place)


def check(plain: Mapping[str, Any]) -> None:
    places = (
        ("", plain, ("seeds",)),
        ("map.", plain["map"], ("seeds",)),
        ("cost.", plain["cost"], ("repeats", "steps", "batch_size")),
    )
    for where, group, names in places:
        for name in names:
            check_count(f"{where}{name}", group[name])
    for name, least in (("jacobian", "above 0"), ("noise", "of at least 0")):
        values = plain["map"][name]
        numbers = isinstance(values, list) and values and all(type(v) in (int, float) and v >= 0 for v in values)
        if not numbers or len(set(values)) < len(values) or (name == "jacobian" and min(values) == 0):
            raise SpecError(f"map.{name} = {values}: must be a list of numbers {least}, each once")
    for where, group in (("methods", plain["methods"]), ("cost.methods", plain["cost"]["methods"])):
        first = next(iter(group), None)
        if first not in ("none", "plain"):
            raise SpecError(
                f"{where}: must begin with the plain network ('none', of cost 'plain'), begins with {first}"
            )


def variant_runs(plain: Mapping[str, Any], pipeline: Pipeline, evaluations: Sequence[EvaluationSpec]) -> Labelled:
    """Every method under every variant, over seeds; the first variant's are perturbed too."""
    found = []
    for number, (variant, changes) in enumerate(plain["variants"].items()):
        for method, own in plain["methods"].items():
            job = read_job(hydra.compose("train", overrides=[*plain["overrides"], *own, *changes]))
            chosen = tuple(evaluations) if number == 0 else ()
            for seed in range(plain["seeds"]):
                made = dataclasses.replace(
                    job, spec=job.spec.replace(seed=seed), evaluations=chosen, runtime=pipeline.runtime
                )
                found.append(({"variant": variant, "method": method, "seed": seed}, made))
    return found


def map_runs(plain: Mapping[str, Any], pipeline: Pipeline) -> Labelled:
    found = []
    base = read_job(hydra.compose("train", overrides=[*plain["overrides"], *plain["methods"]["none"]]))
    for strength in plain["map"]["jacobian"]:
        for noise in plain["map"]["noise"]:
            strengths = {
                **dataclasses.asdict(base.spec.strengths),
                "jacobian": float(strength),
                "jacobian_noise": float(noise),
            }
            for seed in range(plain["map"]["seeds"]):
                spec = base.spec.replace(seed=seed, strengths=strengths)
                job = dataclasses.replace(
                    base,
                    spec=spec,
                    evaluations=(),
                    method=f"nj_{shortest(strength)}_{shortest(noise)}",
                    runtime=pipeline.runtime,
                )
                found.append(({"jacobian": strength, "noise": noise, "seed": seed}, job))
    return found


def evaluated(pipeline: Pipeline, row: Mapping[str, Any], job: Job) -> list[dict[str, Any]]:
    """Accuracy at each strength of what a run was perturbed by."""
    found = []
    for name, asked, shown in (entry for settings in job.evaluations for entry in settings.stored()):
        frame = pipeline.store.evaluation(job.spec.key, name, asked)
        if frame is not None:
            found += [{**row, "evaluation": shown, **one} for one in frame.to_dict("records")]
    return found


def costs(cost: Mapping[str, Any], pipeline: Pipeline) -> list[dict[str, Any]]:
    """Milliseconds a step of one replica, one row a repeat; the methods of a network take turns, so that a slow moment of the
    machine meets them all. Of a method that the network refuses there is no row."""
    rows = []
    asked = {network: timed_specs(cost, arch) for network, arch in cost["networks"].items()}
    total = sum(map(len, asked.values())) * (cost["repeats"] + 1)
    with tqdm(total=total, unit="measurement", desc="timing", dynamic_ncols=True) as bar:
        for network, specs in asked.items():
            stacks = {name: timed_stack(cost, spec, pipeline) for name, spec in specs.items()}
            for repeat in range(-1, cost["repeats"]):  # the first warms up
                for name, (stack, data) in stacks.items():
                    with arithmetic(stack.specs[0].precision, pipeline.device):
                        started = time.perf_counter()
                        run_epoch(stack, data)
                        seconds = time.perf_counter() - started
                    if repeat >= 0:
                        rows.append(
                            {"network": network, "method": name, "repeat": repeat, "ms": 1000 * seconds / cost["steps"]}
                        )
                    bar.update()
    return rows


def timed_specs(cost: Mapping[str, Any], arch: Sequence[str]) -> dict[str, RunSpec]:
    """The methods that there are of a network: a Jacobian penalty does not go with batch norm."""
    found = {}
    for name, own in cost["methods"].items():
        overrides = [*cost["overrides"], *arch, *own, f"optimizer.batch_size={cost['batch_size']}"]
        cfg = hydra.compose("train", overrides=overrides)
        if cfg.arch.name not in CONVOLUTIONAL or not cfg.regularizer.jacobian:
            found[name] = read_job(cfg).spec
    return found


def timed_stack(cost: Mapping[str, Any], spec: RunSpec, pipeline: Pipeline) -> tuple[Stack, Any]:
    data, count = pipeline.data(spec), cost["steps"] * cost["batch_size"]
    if count > len(data.x):
        raise SpecError(
            f"cost.steps = {cost['steps']}: must be at most {len(data.x) // cost['batch_size']}, the steps of an epoch"
        )
    few = dataclasses.replace(data, x=data.x[:count], y=data.y[:count])
    return new_stack([spec], few), few
