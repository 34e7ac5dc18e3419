"""The stack against loops over single runs: gate, times, floor, memory and the guard against getting slower."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from omegaconf import DictConfig

from noise_reg.artefacts.folder import take_over
from noise_reg.atomic import explained, replacing_folder
from noise_reg.bench.cold import Cold, cold_recipe, cold_times
from noise_reg.bench.contenders import BASE, CONTENDERS
from noise_reg.bench.evaluate import evaluation_times
from noise_reg.bench.floor import Products
from noise_reg.bench.report import Job, Report, floor_name, machine, save, show, summary
from noise_reg.bench.work import Recipe, Timed, Weights, Workload, peak_mib, synchronize
from noise_reg.config import device_check, read_job, read_study
from noise_reg.errors import UserError
from noise_reg.limits import EPOCHS, IMAGES, check_count
from noise_reg.pipeline import find_device
from noise_reg.place import read_place
from noise_reg.spec import RunSpec, SpecError

KEEP = 0.8  # of the recorded ratio: below it something has become slower


@dataclass(frozen=True)
class Settings:
    """`conf/benchmark.yaml` with its preset put in."""

    preset: str
    device: str
    recipes: list[Recipe]
    left_out: list[str]
    contenders: list[str]
    repeats: int
    gate_steps: int
    memory: list[str]
    cold: list[Cold]
    guard: bool
    recorded: Mapping[str, Mapping[str, float]]
    targets: Mapping[str, Mapping[str, float]]
    evaluate: Mapping[str, Any]
    results: str


def benchmark(cfg: DictConfig) -> None:
    """Measures and shows; UserError where the gate is not passed or the guard finds a ratio below what it should be."""
    settings = read_settings(cfg)
    usual = "" if settings.preset == "quick" else f"-{settings.preset}"
    place = read_place(cfg, "benchmark", usual=usual) if settings.results else None
    repeats, jobs = [], []
    for recipe in settings.recipes:
        rows, job = measured_job(recipe, settings)
        repeats.append(rows)
        jobs.append(job)
    rows = pd.concat(repeats, ignore_index=True)
    recipe = next((r for r in settings.recipes if r.name == settings.evaluate["job"]), settings.recipes[0])
    report = Report(
        settings.device,
        settings.repeats,
        jobs,
        settings.left_out,
        summary(rows, jobs),
        evaluation_times(Workload(recipe), settings.evaluate["images"], settings.repeats),
        cold_times(settings.cold, settings.contenders),
    )
    show(report)
    if place is not None:
        folder = place.folder(f"benchmark/{machine(settings.device)}")
        here = measured(report.table)
        folder = place.free(folder, [name for name in measured_in(folder) if name not in here], here)
        with explained(folder, "results"), replacing_folder(folder) as part:
            save(part, rows, report)
            take_over(folder, part)
        print(f"written to {folder}/")
    if settings.guard:
        guard(report.table, settings.recorded)


def measured(table: pd.DataFrame) -> list[str]:
    """What was timed: 'fc (b)'."""
    return [f"{job} ({contender})" for job, contender in zip(table["job"], table["contender"], strict=True)]


def measured_in(folder: Path) -> list[str]:
    """What an older call has timed whose tables lie in `folder`; the problem itself where they cannot be read."""
    path = folder / "benchmark.csv"
    try:
        return measured(pd.read_csv(path)) if path.exists() else []
    except (OSError, ValueError, KeyError) as error:
        return [f"{path}: cannot be read: {error}"]


def measured_job(recipe: Recipe, settings: Settings) -> tuple[pd.DataFrame, Job]:
    """Raw rows of those contenders that exist for the job and have passed the gate, and what else is known of it."""
    work = Workload(recipe)
    source = str(work.dataset.provenance["source"])
    why = {letter: CONTENDERS[letter].absent(work) for letter in settings.contenders}
    absent = {letter: reason for letter, reason in why.items() if reason}
    present = [letter for letter in settings.contenders if letter not in absent]
    deviations = gate(recipe, present, settings.gate_steps)
    passed = ", ".join(f"({c}) {d:.0e}" for c, d in deviations.items())
    print(f"{recipe.name}: data {source}; gate passed: {passed}", flush=True)
    rows = measure(work, present, settings.repeats)
    memory = peak_memory(recipe, present) if recipe.name in settings.memory else {}
    return rows, Job(recipe, source, deviations, absent, memory, dict(settings.targets.get(recipe.name, {})))


def read_settings(cfg: DictConfig) -> Settings:
    plain = read_study(cfg)
    check_list("jobs", plain["jobs"], plain["job"])
    check_list("contenders", plain["contenders"], CONTENDERS)
    if BASE not in plain["contenders"]:
        raise SpecError(f"contenders = {plain['contenders']}: must hold {BASE}, to which the ratios refer")
    for name in ("repeats", "gate_steps"):
        check_count(name, plain[name])
    check_count("evaluate.images", plain["evaluate"]["images"], 1, IMAGES)
    check_list("evaluate.job", [plain["evaluate"]["job"]], plain["job"])
    check_list("memory", plain["memory"], plain["job"], may_be_empty=True)
    problem = device_check(str(plain["device"]))
    if problem:
        raise SpecError(f"device = {plain['device']}: must be {problem}")
    device = str(find_device(plain["device"]))
    recorded = plain["recorded"]
    return Settings(
        preset=plain["preset"],
        device=device,
        recipes=[read_recipe(name, plain, device) for name in plain["jobs"]],
        left_out=[name for name in plain["job"] if name not in plain["jobs"]],
        cold=read_cold(plain, device),
        recorded=recorded.get(machine(device), recorded["other"]),
        **{
            name: plain[name]
            for name in ("contenders", "repeats", "gate_steps", "memory", "guard", "targets", "evaluate", "results")
        },
    )


def check_list(field: str, values: Any, known: Mapping[str, Any], *, may_be_empty: bool = False) -> None:
    wrong = [v for v in values if v not in known] if isinstance(values, list) else [values]
    if wrong or not (values or may_be_empty):
        raise SpecError(f"{field} = {values}: must be a list, each one of {', '.join(known)}")


def read_recipe(name: str, plain: Mapping[str, Any], device: str) -> Recipe:
    """Methods x seeds; a loop over single runs trains each method's first seed."""
    job, steps = plain["job"][name], plain["steps"].get(name)
    epochs = plain["epochs"].get(name, 1)
    check_count(f"steps.{name}", steps, 1, EPOCHS)
    check_count(f"epochs.{name}", epochs)
    check_count(f"job.{name}.seeds", job["seeds"])
    specs: list[RunSpec] = []
    single: list[int] = []
    for overrides in job["methods"]:
        spec = read_job(hydra.compose("train", overrides=[*job["overrides"], *overrides])).spec
        single.append(len(specs))
        specs += [spec.replace(seed=seed) for seed in range(job["seeds"])]
    return Recipe(name, tuple(specs), tuple(single), steps, epochs, plain["data_dir"], plain["stack_size"], device)


def read_cold(plain: Mapping[str, Any], device: str) -> list[Cold]:
    """The jobs that are also run from process start to the last row on disk."""
    cold = plain["cold"]
    check_list("cold.jobs", cold["jobs"], plain["job"], may_be_empty=True)
    for name in ("epochs", "repeats"):
        check_count(f"cold.{name}", cold[name])
    found = []
    for name in cold["jobs"]:
        job = plain["job"][name]
        if len(job["methods"]) > 1:
            raise SpecError(
                f"cold.jobs: {name} has {len(job['methods'])} methods, must have one: it is one sweep of seeds"
            )
        recipe = cold_recipe(read_recipe(name, plain, device), cold["epochs"])
        found.append(Cold(recipe, (*job["overrides"], *job["methods"][0]), cold["repeats"]))
    return found


def gate(recipe: Recipe, letters: Sequence[str], steps: int) -> dict[str, float]:
    """Two epochs of `steps` of every contender against the plain loop in fp64, random numbers shared: the largest deviation of each.

    All runs are trained, each method's first and last are compared. Raises UserError where one does not compute what the plain loop computes.
    """
    ends = {*recipe.single, *(first - 1 for first in recipe.single[1:]), len(recipe.specs) - 1}
    work = Workload(replace(recipe, steps=steps, single=tuple(sorted(ends))))
    start = [weights for _, weights in work.initial("fp64")]
    expected = weights_after_epochs(work, BASE, "fp64")
    deviations = {}
    for letter in letters:
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
    with closing(CONTENDERS[letter].build(work, precision, True)) as runner:
        for epoch in range(2):
            runner.ready(epoch)
            runner.run()
        return runner.weights()


def deviation(found: Weights, expected: Weights, start: Weights) -> float:
    """How far a run ended from where it should have, relative to the way that it should have gone."""
    off = sum(float(((found[name] - expected[name]) ** 2).sum()) for name in start)
    way = sum(float(((expected[name] - start[name]) ** 2).sum()) for name in start)
    return math.sqrt(off / way) if math.isfinite(off) else math.inf


def measure(work: Workload, letters: Sequence[str], repeats: int) -> pd.DataFrame:
    """Raw rows: every contender and the floor of every precision, in turn, `repeats` times after one untimed round."""
    rows = []
    with ExitStack() as stack:
        timed: dict[str, Timed] = {
            letter: stack.enter_context(closing(CONTENDERS[letter].build(work, CONTENDERS[letter].precision, False)))
            for letter in letters
        }
        for precision in dict.fromkeys(CONTENDERS[letter].precision for letter in letters):
            timed[floor_name(precision)] = Products(work, precision)
        stack.callback(gc.enable)
        gc.disable()  # a collection in the middle would be charged to whoever is running
        for repeat in range(repeats + 1):
            gc.collect()
            rows += [timed_row(name, runner, work, repeat) for name, runner in timed.items()]
    return pd.DataFrame(rows[len(timed) :])


def timed_row(name: str, runner: Timed, work: Workload, repeat: int) -> dict[str, Any]:
    """One repeat of one contender."""
    epochs = work.recipe.epochs
    seconds = cpu = 0.0
    for epoch in range(epochs):
        runner.ready(repeat * epochs + epoch)
        synchronize(work.device)
        cpu_before, started = time.process_time(), time.perf_counter()
        elsewhere = runner.run()
        synchronize(work.device)
        seconds += time.perf_counter() - started
        cpu += time.process_time() - cpu_before + elsewhere
    counts = {"runs": runner.runs, "steps": work.steps * epochs}
    return {
        "job": work.recipe.name,
        "contender": name,
        "repeat": repeat,
        **counts,
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def peak_memory(recipe: Recipe, letters: Sequence[str]) -> dict[str, float]:
    """MiB of a fresh process that loads the data and trains one repeat, for each contender."""
    peaks = {}
    for letter in letters:
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            peaks[letter] = fresh.submit(peak_of, recipe, letter).result()
    return peaks


def peak_of(recipe: Recipe, letter: str) -> float:
    work = Workload(recipe)
    with closing(CONTENDERS[letter].build(work, CONTENDERS[letter].precision, False)) as runner:
        runner.ready(0)
        runner.run()
        return peak_mib(work.device) + runner.elsewhere_mib


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
