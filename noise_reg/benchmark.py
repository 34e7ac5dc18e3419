"""The stack against loops over single runs: gate, times, floor, memory and the guard against getting slower."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from noise_reg.bench_contenders import BASE, CONTENDERS, Recipe, Timed, Workload, peak_mib
from noise_reg.bench_evaluate import evaluation_lines, evaluation_times
from noise_reg.bench_floor import Products
from noise_reg.bench_report import Job, floor_name, machine, save, show, summary
from noise_reg.config import read_job
from noise_reg.errors import UserError
from noise_reg.spec import RunSpec, SpecError

Weights = Mapping[str, np.ndarray]
KEEP = 0.8  # of the recorded ratio: below it something has become slower


@dataclass(frozen=True)
class Settings:
    """`conf/benchmark.yaml` with its preset put in."""

    preset: str
    recipes: list[Recipe]
    contenders: list[str]
    repeats: int
    gate_steps: int
    memory: bool
    guard: bool
    recorded: Mapping[str, Mapping[str, float]]
    targets: Mapping[str, Mapping[str, float]]
    evaluate: Mapping[str, Any]
    results: str


def benchmark(cfg: DictConfig) -> None:
    """Measures and shows; UserError where the gate is not passed or the guard finds a ratio below what it should be."""
    settings = read_settings(cfg)
    repeats, jobs = [], []
    for recipe in settings.recipes:
        work = Workload(recipe)
        deviations = gate(recipe, settings)
        source = str(work.dataset.provenance["source"])
        print(
            f"{recipe.name}: data {source}; gate passed: " + ", ".join(f"({c}) {d:.0e}" for c, d in deviations.items())
        )
        repeats.append(measure(work, settings))
        memory = peak_memory(recipe, settings.contenders) if settings.memory else {}
        jobs.append(Job(recipe, source, deviations, memory, dict(settings.targets.get(recipe.name, {}))))
    rows = pd.concat(repeats, ignore_index=True)
    table = summary(rows, jobs)
    show(table, jobs, settings.repeats)
    recipe = next((r for r in settings.recipes if r.name == settings.evaluate["job"]), settings.recipes[0])
    times = evaluation_times(Workload(recipe), settings.evaluate["images"], settings.repeats)
    print(
        f"Evaluations, {recipe.name}, {settings.evaluate['images']} images:",
        *evaluation_lines(times),
        sep="\n  ",
        flush=True,
    )
    if settings.results:
        folder = (
            Path(settings.results)
            / "benchmark"
            / f"{machine()}{'' if settings.preset == 'quick' else '-' + settings.preset}"
        )
        save(folder, rows, table, jobs, settings.repeats, times)
        print(f"written to {folder}/")
    if settings.guard:
        guard(table, settings.recorded)


def read_settings(cfg: DictConfig) -> Settings:
    if cfg.preset.name not in cfg.presets:
        raise SpecError(f"preset = {cfg.preset.name}: must be one of {', '.join(map(str, cfg.presets))}")
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationKeyError as error:
        raise SpecError(f"{error.full_key}: preset {cfg.preset.name} does not say it, so it must be given") from error
    check_list("jobs", plain["jobs"], plain["job"])
    check_list("contenders", plain["contenders"], CONTENDERS)
    if BASE not in plain["contenders"]:
        raise SpecError(f"contenders = {plain['contenders']}: must hold {BASE}, to which the ratios refer")
    for name in ("repeats", "gate_steps"):
        check_whole(name, plain[name])
    check_whole("evaluate.images", plain["evaluate"]["images"])
    check_list("evaluate.job", [plain["evaluate"]["job"]], plain["job"])
    recorded = plain["recorded"]
    return Settings(
        preset=plain["preset"]["name"],
        recipes=[read_recipe(name, plain) for name in plain["jobs"]],
        recorded=recorded.get(machine(), recorded["other"]),
        **{
            name: plain[name]
            for name in ("contenders", "repeats", "gate_steps", "memory", "guard", "targets", "evaluate", "results")
        },
    )


def check_list(field: str, values: Any, known: Mapping[str, Any]) -> None:
    wrong = [v for v in values if v not in known] if isinstance(values, list) else [values]
    if wrong or not values:
        raise SpecError(f"{field} = {values}: must be a list, each one of {', '.join(known)}")


def check_whole(field: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"{field} = {value}: must be a whole number of at least 1")


def read_recipe(name: str, plain: Mapping[str, Any]) -> Recipe:
    """Methods x seeds; a loop over single runs trains each method's first seed."""
    job, steps = plain["job"][name], plain["steps"].get(name)
    epochs = plain["epochs"].get(name, 1)
    check_whole(f"steps.{name}", steps)
    check_whole(f"epochs.{name}", epochs)
    check_whole(f"job.{name}.seeds", job["seeds"])
    specs: list[RunSpec] = []
    single: list[int] = []
    for overrides in job["methods"]:
        spec = read_job(hydra.compose("train", overrides=[*job["overrides"], *overrides])).spec
        single.append(len(specs))
        specs += [spec.replace(seed=seed) for seed in range(job["seeds"])]
    return Recipe(name, tuple(specs), tuple(single), steps, epochs, plain["data_dir"], plain["stack_size"])


def gate(recipe: Recipe, settings: Settings) -> dict[str, float]:
    """A few steps of every contender against the plain loop in fp64, random numbers shared: the largest deviation of each.

    Raises UserError where one does not compute what the plain loop computes.
    """
    work = Workload(replace(recipe, steps=settings.gate_steps))
    start = [weights for _, weights in work.initial("fp64")]
    expected = weights_after_epochs(work, BASE, "fp64")
    deviations = {}
    for letter in settings.contenders:
        contender = CONTENDERS[letter]
        found = weights_after_epochs(work, letter, contender.gate_precision)
        deviations[letter] = max(deviation(*each) for each in zip(found, expected, start, strict=True))
        if not deviations[letter] <= contender.tolerance:
            raise UserError(
                f"gate: job {recipe.name}, contender ({letter}) {contender.title} deviates by {deviations[letter]:.1e} from "
                f"the plain loop in fp64 (allowed: {contender.tolerance:.0e}): no time is worth measuring"
            )
    return deviations


def weights_after_epochs(work: Workload, letter: str, precision: str) -> Sequence[Weights]:
    runner = CONTENDERS[letter].build(work, precision, True)
    for epoch in range(2):
        runner.ready(epoch)
        runner.run()
    return runner.weights()


def deviation(found: Weights, expected: Weights, start: Weights) -> float:
    """How far a run ended from where it should have, relative to the way that it should have gone."""
    off = sum(float(((found[name] - expected[name]) ** 2).sum()) for name in start)
    way = sum(float(((expected[name] - start[name]) ** 2).sum()) for name in start)
    return math.sqrt(off / way) if math.isfinite(off) else math.inf


def measure(work: Workload, settings: Settings) -> pd.DataFrame:
    """Raw rows: every contender and the floor of every precision, in turn, `repeats` times after one untimed round."""
    timed: dict[str, Timed] = {
        letter: CONTENDERS[letter].build(work, CONTENDERS[letter].precision, False) for letter in settings.contenders
    }
    for precision in dict.fromkeys(CONTENDERS[letter].precision for letter in settings.contenders):
        timed[floor_name(precision)] = Products(work, precision)
    rows = []
    gc.disable()  # a collection in the middle would be charged to whoever is running
    for repeat in range(settings.repeats + 1):
        gc.collect()
        for name, runner in timed.items():
            seconds = cpu = 0.0
            for epoch in range(work.recipe.epochs):
                runner.ready(repeat * work.recipe.epochs + epoch)
                cpu_before, started = time.process_time(), time.perf_counter()
                elsewhere = runner.run()
                seconds += time.perf_counter() - started
                cpu += time.process_time() - cpu_before + elsewhere
            row = {
                "job": work.recipe.name,
                "contender": name,
                "repeat": repeat,
                "runs": runner.runs,
                "steps": work.steps * work.recipe.epochs,
            }
            rows.append({**row, "seconds": seconds, "cpu_seconds": cpu})
    gc.enable()
    return pd.DataFrame(rows[len(timed) :])


def peak_memory(recipe: Recipe, letters: Sequence[str]) -> dict[str, float]:
    """MiB of a fresh process that loads the data and trains one repeat, for each contender."""
    peaks = {}
    for letter in letters:
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            peaks[letter] = fresh.submit(peak_of, recipe, letter).result()
    return peaks


def peak_of(recipe: Recipe, letter: str) -> float:
    runner = CONTENDERS[letter].build(Workload(recipe), CONTENDERS[letter].precision, False)
    runner.ready(0)
    runner.run()
    return peak_mib() + runner.elsewhere_mib


def guard(table: pd.DataFrame, recorded: Mapping[str, Mapping[str, float]]) -> None:
    """Raises UserError where a ratio fell below `KEEP` of the recorded one."""
    slow, checked = [], 0
    for job, letters in recorded.items():
        for letter, ratio in letters.items():
            for found in table[(table["job"] == job) & (table["contender"] == letter)]["best_ratio"]:
                line = f"{job} ({letter}): {found:.2f}x the plain loop, recorded {ratio:g}x"
                print(f"guard: {line}")
                checked += 1
                if found < KEEP * ratio:
                    slow.append(f"{line}: below {KEEP:g} of it")
    if slow:
        raise UserError("slower than recorded: " + "; ".join(slow))
    if not checked:
        raise UserError(
            "guard: no ratio is recorded for any of the contenders measured; see recorded in conf/benchmark.yaml"
        )
