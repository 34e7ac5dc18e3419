"""The phase diagram of a noise injection node: sigma_epsilon swept over a grid, the catapult's onset bracketed by bisection.

sigma_epsilon is counted in sqrt(d_in / eta), so that the rule eta sigma_epsilon^2 = const, if it holds, makes every setting's onset
the same number.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig

from noise_reg.artefacts import artefact
from noise_reg.artefacts.phases import bracket
from noise_reg.cli.reproduce import collect, network_facts, run_provenance
from noise_reg.config import Job, read_job, read_runtime, read_study
from noise_reg.estimate import estimate
from noise_reg.limits import check_count
from noise_reg.pipeline import Pipeline
from noise_reg.place import deliver, read_place, study_context
from noise_reg.spec import SpecError
from noise_reg.theory.phases import phase_of
from noise_reg.wanted import Wanted


@dataclass(frozen=True)
class Setting:
    """One network and way of training, in which sigma_epsilon alone is swept; `unit` is sqrt(d_in / eta)."""

    name: str
    job: Job
    unit: float

    def at(self, strength: float, seed: int) -> Wanted:
        """The run with sigma_epsilon = `strength` units."""
        sigma = strength * self.unit
        strengths = {**dataclasses.asdict(self.job.spec.strengths), "nin_input": sigma}
        spec = self.job.spec.replace(seed=seed, strengths=strengths)
        return Wanted(dataclasses.replace(self.job, spec=spec, method=f"in_ninr_{sigma:g}"), self.name)


def sweep(cfg: DictConfig) -> None:
    """Trains grid and bisections of every setting, and draws the diagram."""
    plain, place = read_study(cfg), read_place(cfg, "phases")
    grid, seeds, rounds = check(plain)
    pipeline = Pipeline(read_runtime(cfg))
    settings = [read_setting(name, plain, pipeline) for name in plain["settings"]]
    wanted = [setting.at(s, seed) for setting in settings for seed in range(seeds) for s in grid]
    plan = estimate(pipeline, [w.job for w in wanted], Path(cfg.results))
    print(
        f"plan: {len(wanted)} runs of {len(settings)} settings, {plan.found} found; {plan.range} on {plan.device}; then"
    )
    print(f"  {rounds} bisections of each onset, {len(settings) * seeds} runs each", flush=True)
    pipeline.complete([w.job for w in wanted], group="phases", tags=["phases"])
    tried = {(setting.name, seed): list(grid) for setting in settings for seed in range(seeds)}
    for _ in range(rounds):
        more = [
            setting.at(middle, seed)
            for setting in settings
            for seed in range(seeds)
            if (middle := next_strength(pipeline, setting, seed, tried[setting.name, seed])) is not None
        ]
        pipeline.complete([w.job for w in more], group="phases", tags=["phases"])
        wanted += more
    made = artefact("phases")
    context = run_provenance(wanted[0].job.spec, pipeline) | study_context(plain, place)
    context |= {
        "settings": {s.name: facts(s, pipeline) for s in settings},
        "seeds": seeds,
        "bisections": rounds,
    }
    deliver(made, collect(pipeline, wanted, None, made.whole_history), context, place)


def check(plain: Any) -> tuple[list[float], int, int]:
    """Grid, seeds and rounds of bisection. Raises SpecError naming what is impossible."""
    low, high, count = (plain["grid"][name] for name in ("low", "high", "count"))
    for name, value in (("low", low), ("high", high)):
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise SpecError(f"grid.{name} = {value}: must be a finite number above 0, in sqrt(d_in / eta)")
    if high <= low:
        raise SpecError(f"grid.high = {high}: must be above grid.low = {low}")
    for name, value, least in (
        ("grid.count", count, 2),
        ("seeds", plain["seeds"], 1),
        ("bisections", plain["bisections"], 0),
    ):
        check_count(name, value, least)
    if not plain["settings"]:
        raise SpecError("settings: must name at least one setting")
    return [float(s) for s in np.geomspace(low, high, count).round(6)], plain["seeds"], plain["bisections"]


def read_setting(name: str, plain: Any, pipeline: Pipeline) -> Setting:
    chosen = [*plain["overrides"], *plain["settings"][name], "regularizer=in_ninr", "regularizer.sigma=1"]
    job = read_job(hydra.compose("train", overrides=chosen))
    inputs = math.prod(pipeline.data(job.spec).image) + 1
    job = dataclasses.replace(job, runtime=pipeline.runtime)
    return Setting(name, job, math.sqrt(inputs / job.spec.optimizer.learning_rate))


def facts(setting: Setting, pipeline: Pipeline) -> dict[str, Any]:
    spec = setting.job.spec
    return network_facts(spec) | {
        "unit": setting.unit,
        "precision": spec.precision,
        "images": pipeline.data(spec).facts["train_images"],
        "loss": spec.reading.loss,
        "epochs": spec.max_epochs,
    }


def next_strength(pipeline: Pipeline, setting: Setting, seed: int, tried: list[float]) -> float | None:
    """The middle of the bracket that the runs at `tried` leave, in logarithms, added to `tried`; None without a bracket."""
    phases = {s: stored_phase(pipeline, setting.at(s, seed)) for s in tried}
    low, high = bracket(phases)
    if low is None or high is None:
        return None
    middle = round(math.sqrt(low * high), 6)
    tried.append(middle)
    return middle


def stored_phase(pipeline: Pipeline, wanted: Wanted) -> str:
    key = wanted.job.spec.key
    diverged = pipeline.store.read_record(key)["status"] == "diverged"
    return phase_of(pipeline.store.history(key), diverged=diverged).name
