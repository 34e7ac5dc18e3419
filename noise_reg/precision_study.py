"""Whether fast arithmetic changes the numbers: the same methods and seeds trained and evaluated in several precisions.

Evaluations are made in the precision of the training, as everywhere in this project: what is compared are whole pipelines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import torch
from omegaconf import DictConfig

from noise_reg.artefacts import MEASURED
from noise_reg.artefacts.markdown import counted
from noise_reg.cli.reproduce import network_facts, run_provenance
from noise_reg.config import Job, Runtime, read_job, read_runtime, read_study
from noise_reg.estimate import estimate
from noise_reg.limits import EPOCHS, REPEATED, check_count
from noise_reg.pipeline import Pipeline, find_device
from noise_reg.place import deliver, read_place, study_context
from noise_reg.precision import products
from noise_reg.spec import PRECISIONS, RunSpec, SpecError
from noise_reg.store import Store

RUNS = ["key", "method", "precision", "seed", "status", "stopped_by", "epochs", "train_accuracy", "test_accuracy"]
RUNS += ["seconds", "device"]
CURVE = ["method", "precision", "seed", "sigma_noise", "accuracy"]
PAPER_SCALE = {"seeds": 10, "max_epochs": 500}  # NINR paper: ten runs, 98 % training accuracy or 500 epochs
OWN_SETTINGS = ("precision", "seed", "max_epochs")  # of a run, which the study's own settings give


def study(cfg: DictConfig) -> None:
    """Trains every method and seed in every precision and draws results/precision."""
    plain, place = read_study(cfg), read_place(cfg, "precision")
    runtime = read_runtime(cfg)
    check(plain, find_device(runtime.device))
    jobs = wanted(plain, runtime)
    pipeline = Pipeline(runtime)
    plan = estimate(pipeline, jobs, Path(cfg.results))
    print(f"plan: {len(jobs)} runs, {plan.found} found; {plan.range} on {plan.device}", flush=True)
    records = pipeline.complete(jobs, group="precision", tags=["precision", str(plain["preset"])])
    tables = {"runs": runs_table(pipeline.store, jobs, records), "curve": curve_table(pipeline.store, jobs)}
    context = run_provenance(jobs[0].spec, pipeline) | study_context(plain, place)
    context |= {"below_paper_scale": below_paper_scale(plain), "network": facts(jobs[0].spec)}
    precisions = (plain["reference"], *plain["fast"])
    context["products"] = {precision: products(precision, pipeline.device) for precision in precisions}
    context["evaluations"] = {settings.label: dataclasses.asdict(settings) for settings in jobs[0].evaluations}
    deliver(MEASURED["precision"], tables, context, place)


def check(plain: Mapping[str, Any], device: torch.device) -> None:
    """Raises SpecError naming field, value and what is allowed on `device`."""
    reference, fast = plain["reference"], plain["fast"]
    allowed = [name for name in PRECISIONS if name != "tf32" or device.type == "cuda"]
    known = ", ".join(allowed)
    for field, values in (("reference", [reference]), ("fast", fast)):
        if not isinstance(values, list) or not values or len(set(map(str, values))) < len(values):
            raise SpecError(f"{field} = {values}: must be a list of at least one, each once, of {known}")
        if "tf32" in values and "tf32" not in allowed:
            raise SpecError(f"{field} = {plain[field]}: tf32 needs device = cuda; must be of {known} on {device}")
        if not all(value in allowed for value in values):
            raise SpecError(f"{field} = {plain[field]}: must be of {known}")
    if reference in fast:
        others = ", ".join(name for name in allowed if name != reference)
        raise SpecError(f"fast = {fast}: must not hold reference = {reference}, which it is compared with; must be of {others}")  # fmt: skip
    margin = plain["margin"]
    if type(margin) not in (int, float) or not (math.isfinite(margin) and margin > 0):
        raise SpecError(f"margin = {margin}: must be a finite number of points above 0")
    for name in ("seeds", "max_epochs"):
        check_count(name, plain[name], 1, EPOCHS if name == "max_epochs" else REPEATED)
    check_overrides(plain)


def check_overrides(plain: Mapping[str, Any]) -> None:
    """Raises SpecError for `overrides` or `methods` that are no lists, or that say what the study's own settings do."""
    methods = plain["methods"]
    if not isinstance(methods, list) or not methods or not all(isinstance(own, list) for own in methods):
        raise SpecError(f"methods = {methods}: must be a list of at least one, each a list of overrides")
    if not isinstance(plain["overrides"], list):
        raise SpecError(f"overrides = {plain['overrides']}: must be a list of overrides")
    for field, overrides in (("overrides", plain["overrides"]), *(("methods", own) for own in methods)):
        for override in overrides:
            if str(override).lstrip("+").partition("=")[0] in OWN_SETTINGS:
                raise SpecError(
                    f"{field} = {overrides}: must not hold {override}; precisions, seeds and epochs are given as reference, "
                    "fast, seeds and max_epochs"
                )


def wanted(plain: Mapping[str, Any], runtime: Runtime) -> list[Job]:
    """The runs: the reference first, then each fast precision, method by method. Raises SpecError for methods that cannot be
    told apart, or that differ in more than their regulariser."""
    found: dict[str, Job] = {}
    for own in plain["methods"]:
        chosen = [*plain["overrides"], *own, f"max_epochs={plain['max_epochs']}"]
        job = read_job(hydra.compose("train", overrides=chosen))
        if job.method in found:
            raise SpecError(f"methods = {plain['methods']}: must be of different methods, {job.method} is there twice")
        found[job.method] = job
        first = next(iter(found.values()))
        if job.spec.stack_key() != first.spec.stack_key():
            raise SpecError(f"methods = {plain['methods']}: must differ in their regularizer alone, as {own} does not")
    return [
        Job(job.spec.replace(precision=precision, seed=seed), job.method, job.evaluations, runtime)
        for precision in (plain["reference"], *plain["fast"])
        for job in found.values()
        for seed in range(plain["seeds"])
    ]


def below_paper_scale(plain: Mapping[str, Any]) -> str:
    """'' at the paper's scale, else what is less."""
    if all(plain[name] >= least for name, least in PAPER_SCALE.items()):
        return ""
    seeds, epochs = counted(plain["seeds"], "seed"), counted(plain["max_epochs"], "epoch")
    return f"{seeds}, at most {epochs} (the paper: {PAPER_SCALE['seeds']} seeds, {PAPER_SCALE['max_epochs']} epochs)"


def facts(spec: RunSpec) -> dict[str, Any]:
    """What all runs share."""
    return network_facts(spec) | {"stop_accuracy": spec.stop_accuracy}


def runs_table(store: Store, jobs: Sequence[Job], records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a run; accuracies are fractions, test_accuracy that of the evaluation 'clean' (NaN where a run did not complete)."""
    rows = []
    for job, record in zip(jobs, records, strict=True):
        clean = store.evaluation(job.spec.key, "clean", {})
        row = {name: record[name] for name in ("status", "stopped_by", "epochs", "train_accuracy", "seconds", "device")}
        row |= {"key": job.spec.key, "method": job.method, "precision": job.spec.precision, "seed": job.spec.seed}
        row["test_accuracy"] = math.nan if clean is None else float(clean["accuracy"].iloc[0])
        rows.append(row)
    return pd.DataFrame(rows, columns=RUNS)


def curve_table(store: Store, jobs: Sequence[Job]) -> pd.DataFrame:
    """Accuracy (a fraction) against sigma_noise (Eq. 8) of every run that completed."""
    rows = []
    for job in jobs:
        name, asked, _ = job.evaluations[0].stored()[0]
        stored = store.evaluation(job.spec.key, name, asked)
        if stored is not None:
            of = (job.method, job.spec.precision, job.spec.seed)
            rows += [(*of, s, a) for s, a in zip(stored["strength"], stored["accuracy"], strict=True)]
    return pd.DataFrame(rows, columns=CURVE)
