"""The N+J table (Rifai, Glorot, Bengio, Vincent): strengths searched by validation accuracy, then runs over seeds, tested.

Axes: R replicas, B samples, H units of a layer.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from noise_reg.artefacts import MEASURED
from noise_reg.cli.reproduce import outcome, run_provenance
from noise_reg.config import Job, read_job, read_runtime, read_study
from noise_reg.estimate import estimate
from noise_reg.evaluation_spec import ValidationSpec
from noise_reg.limits import check_count
from noise_reg.nn import Places, StackedModel
from noise_reg.nn.export import stacked_model
from noise_reg.pipeline import Pipeline
from noise_reg.place import deliver, read_place, study_context
from noise_reg.spec import SpecError

PLAIN = "none"
CHUNK = 1000  # samples a forward pass
BySeed = dict[int, float]


@dataclass(frozen=True)
class Candidate:
    """A method on one panel (data set and depth) at one strength and rate, as Hydra's overrides."""

    panel: str
    cell: tuple[str, int]
    method: str
    rate: float
    strength: float  # of what is searched; 0 for the plain network
    overrides: tuple[str, ...]

    def job(self, seed: int, pipeline: Pipeline) -> Job:
        made = read_job(hydra.compose("train", overrides=[*self.overrides, f"seed={seed}"]))
        return dataclasses.replace(made, evaluations=(ValidationSpec(),), runtime=pipeline.runtime)


def study(cfg: DictConfig) -> None:
    """Searches, trains, and draws results/nj_table and results/nj_histogram."""
    plain, place = read_study(cfg), read_place(cfg, "nj")
    check(plain)
    pipeline = Pipeline(read_runtime(cfg))
    plain["cells"] = cells(plain)
    rates = [candidate(plain, panel, PLAIN, rate, 0.0) for panel in plain["panels"] for rate in plain["rates"]]
    tried = scores(plain, rates, pipeline, "the rate")
    rate_of = {panel: best(tried, panel, PLAIN).rate for panel in plain["panels"]}
    strengths = [
        candidate(plain, panel, method, rate_of[panel], strength)
        for panel in plain["panels"]
        for method, searched in plain["search"].items()
        for values in searched.values()
        for strength in values
    ]
    tried |= scores(plain, strengths, pipeline, "strengths")
    chosen = [best(tried, panel, method) for panel in plain["panels"] for method in (PLAIN, *plain["search"])]
    finals = [(one, seed, one.job(seed, pipeline)) for one in chosen for seed in range(plain["seeds"])]
    complete(pipeline, [job for _, _, job in finals], "final runs", Path(cfg.results))
    search = pd.DataFrame(
        [
            {**row_of(one), "seed": seed, "validation_accuracy": accuracy, "chosen": one in chosen}
            for one, by_seed in tried.items()
            for seed, accuracy in by_seed.items()
        ]
    )
    runs = pd.DataFrame(
        [
            {
                **row_of(one),
                "key": job.spec.key,
                "seed": seed,
                **outcome(pipeline, job),
                "validation_accuracy": validation(pipeline, job),
            }
            for one, seed, job in finals
        ]
    )
    histogram = pd.DataFrame([row for final in finals for row in activations(pipeline, *final, plain["bins"])])
    context = run_provenance(finals[0][2].spec, pipeline)
    datasets = {job.spec.dataset.name: pipeline.data(job.spec).facts for _, _, job in finals}
    context |= study_context(plain, place) | {"data": datasets}
    context["dataset"] = ", ".join(datasets)
    for name, tables in (("nj_table", {"search": search, "runs": runs}), ("nj_histogram", {"activations": histogram})):
        deliver(MEASURED[name], tables, context, place)


def check(plain: Mapping[str, Any]) -> None:
    for name, least in (("seeds", 1), ("bins", 4)):
        check_count(name, plain[name], least)
    found = plain["search_seeds"]
    if (
        not isinstance(found, list)
        or not found
        or any(type(s) is not int or s < plain["seeds"] for s in found)
        or len(set(found)) < len(found)
    ):
        raise SpecError(
            f"search_seeds = {found}: must be a list of whole numbers, each once, of at least seeds = {plain['seeds']}, so that no run of the "
            "search is tested"
        )
    if not plain["panels"]:
        raise SpecError("panels: at least one must be given")
    lists = {"rates": plain["rates"]}
    for method, searched in plain["search"].items():
        if len(searched) != 1:
            raise SpecError(f"search.{method} = {searched}: must name one strength and its candidates")
        lists |= {f"search.{method}.{name}": values for name, values in searched.items()}
    for name, values in lists.items():
        numbers = isinstance(values, list) and values and all(type(v) in (int, float) and v > 0 for v in values)
        if not numbers or len(set(values)) < len(values):
            raise SpecError(f"{name} = {values}: must be a list of numbers above 0, each once")


def cells(plain: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Data set and number of hidden layers of each panel. Raises SpecError for two of the same."""
    found: dict[str, tuple[str, int]] = {}
    for panel, own in plain["panels"].items():
        spec = read_job(hydra.compose("train", overrides=[*plain["overrides"], *own])).spec
        cell = spec.dataset.name, len(spec.arch.widths)
        twin = next((name for name, other in found.items() if other == cell), None)
        if twin is not None:
            raise SpecError(
                f"panels.{panel}: is of {cell[0]} with {cell[1]} hidden layers, and so is panels.{twin}; leave one out"
            )
        found[panel] = cell
    return found


def candidate(plain: Mapping[str, Any], panel: str, method: str, rate: float, strength: float) -> Candidate:
    own = [f"regularizer={method}", *(f"regularizer.{name}={strength!r}" for name in plain["search"].get(method, {}))]
    overrides = [*plain["overrides"], *plain["panels"][panel], f"optimizer.learning_rate={rate!r}", *own]
    return Candidate(panel, plain["cells"][panel], method, float(rate), float(strength), tuple(overrides))


def scores(
    plain: Mapping[str, Any], candidates: Sequence[Candidate], pipeline: Pipeline, what: str
) -> dict[Candidate, BySeed]:
    """Each one's validation accuracies by the search's seeds, fractions; NaN of a run that diverged."""
    jobs = {one: {seed: one.job(seed, pipeline) for seed in plain["search_seeds"]} for one in candidates}
    every = [job for own in jobs.values() for job in own.values()]
    complete(pipeline, every, f"the search for {what}", Path(plain["results"]))
    return {one: {seed: validation(pipeline, job) for seed, job in own.items()} for one, own in jobs.items()}


def complete(pipeline: Pipeline, jobs: Sequence[Job], what: str, results: Path) -> None:
    plan = estimate(pipeline, jobs, results)
    print(f"{what}: {plan.needed} runs, {plan.found} found; {plan.range} on {plan.device}", flush=True)
    pipeline.complete(jobs, group="nj", tags=["nj"])


def validation(pipeline: Pipeline, job: Job) -> float:
    found = pipeline.store.evaluation(job.spec.key, ValidationSpec.label, {})
    return math.nan if found is None else float(found["accuracy"].iloc[0])


def best(tried: Mapping[Candidate, BySeed], panel: str, method: str) -> Candidate:
    """The highest mean validation accuracy of those no run of which diverged; of equal ones the first. Raises SpecError if there is
    none."""
    mean = {one: sum(by_seed.values()) / len(by_seed) for one, by_seed in tried.items()}
    own = [one for one in mean if (one.panel, one.method) == (panel, method) and math.isfinite(mean[one])]
    if not own:
        raise SpecError(f"panels.{panel}: every run of {method} in the search diverged; give lower rates or strengths")
    return max(own, key=lambda one: mean[one])


def row_of(one: Candidate) -> dict[str, Any]:
    return {
        "dataset": one.cell[0], "depth": one.cell[1], "method": one.method, "rate": one.rate, "strength": one.strength
    }  # fmt: skip


def activations(pipeline: Pipeline, one: Candidate, seed: int, job: Job, bins: int) -> list[dict[str, Any]]:
    """How many activations of test images fall into each bin of [-1, 1], as a JSON list a layer; none of a diverged run."""
    key = job.spec.key
    if pipeline.store.read_record(key)["status"] != "completed":
        return []
    data = pipeline.data(job.spec)
    model = stacked_model([job.spec], [pipeline.store.weights(key)], data.image, data.classes).to(data.x.device)
    counts = [layer.tolist() for layer in histogram(model, data.test_x, bins)]
    return [
        {**row_of(one), "seed": seed, "layer": n, "counts": json.dumps([int(c) for c in layer])}
        for n, layer in enumerate(counts, start=1)
    ]


class Histogram(Places):
    """Counts the activations that pass, by layer; (bins,) each."""

    def __init__(self, bins: int) -> None:
        self.bins, self.counts = bins, dict[int, Tensor]()

    def look(self, h: Tensor, layer: int) -> None:
        found = torch.histc(h.float().cpu(), self.bins, -1, 1)
        self.counts[layer] = self.counts[layer] + found if layer in self.counts else found


@torch.no_grad()
def histogram(model: StackedModel, x_ND: Tensor, bins: int) -> list[Tensor]:
    """(bins,) a hidden layer, of a stack of one."""
    found = Histogram(bins)
    for x_BD in x_ND.split(CHUNK):
        model(x_BD[None], found)
    return list(found.counts.values())
