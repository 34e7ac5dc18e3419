"""Label smoothing measured (Deep Learning, section 7.5.1): confidence, calibration and robustness by epsilon and seed.

Confidences are those of the clean test images, with products in the precision that weights are stored in (at least fp32):
factors in bf16 would round a confidence near 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from omegaconf import DictConfig
from tqdm import tqdm

from noise_reg.artefacts import MEASURED
from noise_reg.cli.reproduce import network_facts, run_provenance
from noise_reg.config import Job, read_job, read_runtime, read_study
from noise_reg.estimate import estimate
from noise_reg.evaluations.calibration import binned, predictions
from noise_reg.limits import check_count
from noise_reg.nn.export import stacked_model
from noise_reg.pipeline import Pipeline
from noise_reg.place import deliver, read_place, study_context
from noise_reg.precision import arithmetic
from noise_reg.spec import RunSpec, SpecError, number


@dataclass(frozen=True)
class Smoothed:
    """A run and the epsilon of its targets."""

    epsilon: float
    job: Job

    @property
    def seed(self) -> int:
        return self.job.spec.seed

    @property
    def key(self) -> str:
        return self.job.spec.key


def study(cfg: DictConfig) -> None:
    """Trains every epsilon and seed, measures them and draws results/label_smoothing."""
    plain, place = read_study(cfg), read_place(cfg, "label_smoothing")
    check(plain)
    runs = wanted(plain, cfg)
    jobs = [run.job for run in runs]
    pipeline = Pipeline(read_runtime(cfg))
    plan = estimate(pipeline, jobs, Path(cfg.results))
    print(f"plan: {len(runs)} runs, {plan.found} found; {plan.range} on {plan.device}", flush=True)
    records = pipeline.complete(jobs, group="label_smoothing", tags=["label_smoothing"])
    tables = measure(pipeline, runs, records, plain)
    context = run_provenance(jobs[0].spec, pipeline) | study_context(plain, place) | {"network": facts(jobs[0].spec)}
    context["evaluations"] = {settings.label: dataclasses.asdict(settings) for settings in jobs[0].evaluations}
    deliver(MEASURED["label_smoothing"], tables, context, place)


def check(plain: dict[str, Any]) -> None:
    """Raises SpecError naming field, value and what is allowed."""
    epsilons = plain["epsilons"]
    numbers = isinstance(epsilons, list) and all(type(e) in (int, float) for e in epsilons)
    if not numbers or epsilons != sorted(set(epsilons)):
        raise SpecError(f"epsilons = {epsilons}: must be a rising list of numbers")
    for epsilon in epsilons:
        if problem := number(0, 1, open_high=True)(epsilon):  # with the run: by its number of classes
            raise SpecError(f"epsilons = {epsilons}: must each be {problem}")
    if len(epsilons) < 2 or epsilons[0] != 0:
        raise SpecError(f"epsilons = {epsilons}: must hold 0 and at least one number above it, to be compared with it")
    for name, least in (("seeds", 1), ("bins", 2)):
        check_count(name, plain[name], least)
    if type(plain["sure"]) not in (int, float) or not 0 < plain["sure"] < 1:
        raise SpecError(f"sure = {plain['sure']}: must be a number between 0 and 1")


def wanted(plain: dict[str, Any], cfg: DictConfig) -> list[Smoothed]:
    """The runs, epsilon by epsilon."""
    runs, runtime = [], read_runtime(cfg)
    for epsilon in plain["epsilons"]:
        chosen = ["regularizer=label_smoothing", f"regularizer.label_smoothing={epsilon}"]
        job = read_job(hydra.compose("train", overrides=[*plain["overrides"], *chosen]))
        if job.spec.reading.loss == "squared":
            raise SpecError("reading.loss = squared: must be exact or clamped, whose outputs are class probabilities")
        for seed in range(plain["seeds"]):
            runs.append(Smoothed(epsilon, Job(job.spec.replace(seed=seed), job.method, job.evaluations, runtime)))
    return runs


def facts(spec: RunSpec) -> dict[str, Any]:
    return network_facts(spec) | {"epochs": spec.max_epochs, "precision": spec.precision}


def measure(
    pipeline: Pipeline, runs: Sequence[Smoothed], records: Sequence[dict[str, Any]], plain: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """runs, bins and curve; a run that did not complete has its row in runs alone, without measurements."""
    completed = [run for run, record in zip(runs, records, strict=True) if record["status"] == "completed"]
    size = pipeline.stack_size(runs[0].job.spec)
    measured: dict[str, dict[str, float]] = {}
    bins: list[pd.DataFrame] = []
    with tqdm(total=len(completed), unit="run", desc="measuring", dynamic_ncols=True) as bar:
        for first in range(0, len(completed), size):
            stack = completed[first : first + size]
            numbers, of_bins = of_stack(pipeline, stack, plain)
            measured |= numbers
            bins += of_bins
            bar.update(len(stack))
    described = [describe(run, record) | measured.get(run.key, {}) for run, record in zip(runs, records, strict=True)]
    return {
        "runs": pd.DataFrame(described, columns=RUNS),
        "bins": pd.concat(bins, ignore_index=True) if bins else pd.DataFrame(columns=BINS),
        "curve": curve(pipeline, completed),
    }


RUNS = ["key", "dataset", "arch", "method", "epsilon", "seed", "status", "epochs", "train_accuracy", "seconds"]
RUNS += ["accuracy", "nll", "confidence", "ece", "sure"]
BINS = ["epsilon", "seed", "bin", "low", "high", "count", "confidence", "accuracy"]
CURVE = ["epsilon", "seed", "sigma_noise", "accuracy"]


def describe(run: Smoothed, record: dict[str, Any]) -> dict[str, Any]:
    spec = run.job.spec
    row: dict[str, Any] = {
        "key": run.key,
        "dataset": spec.dataset.name,
        "arch": spec.arch.name,
        "method": run.job.method,
    }
    row |= {"epsilon": run.epsilon, "seed": run.seed}
    return row | {name: record[name] for name in ("status", "epochs", "train_accuracy", "seconds")}


def of_stack(
    pipeline: Pipeline, runs: Sequence[Smoothed], plain: dict[str, Any]
) -> tuple[dict[str, dict[str, float]], list[pd.DataFrame]]:
    """By key, the means over the test images: accuracy, nll (nats), confidence, ece, and sure, the share of confidences above
    `sure`; and each run's bins."""
    specs = [run.job.spec for run in runs]
    data, weights = pipeline.data(specs[0]), [pipeline.store.weights(spec.key) for spec in specs]
    model = stacked_model(specs, weights, data.image, data.classes).to(pipeline.device)
    with arithmetic("fp64" if specs[0].precision == "fp64" else "fp32", pipeline.device):
        found = predictions(model, data.test_x, data.test_y)
    bins = binned(found.confidence_RN, found.right_RN, plain["bins"])
    columns = {
        "accuracy": found.right_RN.double().mean(1),
        "nll": found.nll_RN.mean(1),
        "confidence": found.confidence_RN.mean(1),
        "ece": bins.error(),
        "sure": (found.confidence_RN > plain["sure"]).double().mean(1),
    }
    numbers = {run.key: {name: float(of[r]) for name, of in columns.items()} for r, run in enumerate(runs)}
    frames = [
        pd.DataFrame(
            {
                "epsilon": run.epsilon,
                "seed": run.seed,
                "bin": range(plain["bins"]),
                "low": [m / plain["bins"] for m in range(plain["bins"])],
                "high": [(m + 1) / plain["bins"] for m in range(plain["bins"])],
                "count": bins.count_RM[r].tolist(),
                "confidence": bins.confidence_RM[r].tolist(),
                "accuracy": bins.accuracy_RM[r].tolist(),
            }
        )
        for r, run in enumerate(runs)
    ]
    return numbers, frames


def curve(pipeline: Pipeline, runs: Sequence[Smoothed]) -> pd.DataFrame:
    """Accuracy against sigma_noise (Eq. 8), from the store."""
    rows = []
    for run in runs:
        name, asked, _ = run.job.evaluations[0].stored()[0]
        stored = pipeline.store.evaluation(run.key, name, asked)
        assert stored is not None  # `complete` evaluates every completed run
        for strength, accuracy in zip(stored["strength"], stored["accuracy"], strict=True):
            rows.append((run.epsilon, run.seed, strength, accuracy))
    return pd.DataFrame(rows, columns=CURVE)
