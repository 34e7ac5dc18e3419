"""What the benchmark measured as tables and a figure: on the terminal, as Markdown, CSV, PNG and SVG."""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.ratios import ratio_figure
from noise_reg.bench.cold import TITLES
from noise_reg.bench.contenders import BASE, CONTENDERS
from noise_reg.bench.evaluate import evaluation_lines
from noise_reg.bench.work import Recipe
from noise_reg.checkout import commit
from noise_reg.precision import processor

IDLE = 0.97  # processor time per second of a contender below which something else must have been running
HEAD = (
    "contender",
    "precision",
    "runs timed",
    "ms a replica-step",
    "× (b)",
    "target",
    "of the product floor",
    "peak MiB",
)


@dataclass(frozen=True)
class Job:
    """What is known of a measured job beside its times: deviations at the gate, why a contender is not there, peak memory in MiB,
    wanted ratios."""

    recipe: Recipe
    source: str
    deviations: dict[str, float]
    absent: dict[str, str]
    memory: dict[str, float]
    targets: dict[str, float]


@dataclass(frozen=True)
class Report:
    """All of one benchmark. `device`: torch's name; `left_out`: jobs that it could have measured; `table`: see `summary`;
    `evaluations` and `cold`: rows of evaluate.py and cold.py."""

    device: str
    repeats: int
    jobs: Sequence[Job]
    left_out: Sequence[str]
    table: pd.DataFrame
    evaluations: pd.DataFrame
    cold: pd.DataFrame


def floor_name(precision: str) -> str:
    return f"floor_{precision}"


def machine(device: str) -> str:
    """The name of a kind of machine, not of a machine: 'cpu-2-amx', 'cuda-nvidia-h200'."""
    if torch.device(device).type == "cuda":
        return "cuda-" + re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")
    return f"cpu-{torch.get_num_threads()}-{processor()}"


def summary(rows: pd.DataFrame, jobs: Sequence[Job]) -> pd.DataFrame:
    """One row a job and contender: milliseconds a replica-step, ratio to (b) repeat by repeat, share of the floor."""
    rows = rows.assign(ms=1e3 * rows["seconds"] / (rows["runs"] * rows["steps"]))
    table = []
    for job in jobs:
        of_job = rows[rows["job"] == job.recipe.name]
        ms = of_job.pivot(index="repeat", columns="contender", values="ms")
        for name in dict.fromkeys(of_job["contender"]):
            own = of_job[of_job["contender"] == name]
            floor = name.startswith("floor")
            precision = name.split("_")[1] if floor else CONTENDERS[name].precision
            ratio = ms[BASE] / ms[name]
            table.append(
                {
                    "job": job.recipe.name, "contender": name, "precision": precision,
                    "title": "bare products and a copy of the weights" if floor else CONTENDERS[name].title,
                    "short": "bare products" if floor else CONTENDERS[name].short,
                    "runs_timed": own["runs"].iloc[0], "runs": len(job.recipe.specs), "steps": own["steps"].iloc[0],
                    "repeats": len(own),
                    "ms": ms[name].median(), "ms_min": ms[name].min(), "ms_max": ms[name].max(),
                    "ratio": ratio.median(), "ratio_min": ratio.min(), "ratio_max": ratio.max(),
                    "best_ratio": ms[BASE].min() / ms[name].min(), "target": job.targets.get(name),
                    "floor_share": (ms[floor_name(precision)] / ms[name]).median(),
                    "peak_mib": job.memory.get(name), "cpu_per_second": own["cpu_seconds"].sum() / own["seconds"].sum(),
                }
            )  # fmt: skip
    return pd.DataFrame(table)


def job_table(table: pd.DataFrame, job: Job) -> str:
    body = []
    for row in table[table["job"] == job.recipe.name].to_dict("records"):
        floor = str(row["contender"]).startswith("floor")
        target = (
            ""
            if pd.isna(row["target"])
            else f"{row['target']:g}: " + ("met" if row["ratio"] >= row["target"] else "missed")
        )
        body.append(
            [
                row["title"] if floor else f"({row['contender']}) {row['title']}",
                row["precision"],
                f"{row['runs_timed']} of {row['runs']}",
                f"{row['ms']:.3g} ({row['ms_min']:.3g} to {row['ms_max']:.3g})",
                f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})",
                target,
                f"{100 * row['floor_share']:.0f} %",
                "" if pd.isna(row["peak_mib"]) else f"{row['peak_mib']:.0f}",
            ]
        )
    return markdown.table(HEAD, body)


def job_heading(job: Job) -> str:
    spec, source = job.recipe.specs[0], job.source
    data = (
        f"{spec.dataset.name} ({source})" if source != "synthetic" else f"random images of {spec.dataset.name}'s shape"
    )
    return (
        f"{job.recipe.name}: {data}, arch {spec.arch.name} {list(spec.arch.filters + spec.arch.widths)}, "
        f"batch {spec.optimizer.batch_size}, {count(len(job.recipe.specs), 'run')} of "
        f"{count(len(job.recipe.single), 'method')}, {job.recipe.steps * job.recipe.epochs} steps a repeat"
    )


def count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def notes(report: Report) -> list[str]:
    """What a reader must know to judge the numbers."""
    jobs = report.jobs
    lines = [
        f"Median and range of {report.repeats} repeats after an untimed one; contenders took turns, all of them loaded and waiting.",
        "Ratios are formed repeat by repeat. Training steps alone: no early stop, no logging, no test pass.",
        "The plain loops and the ensembles measure nothing on the way, ours its running loss, accuracy and divergence.",
        "Their sample order (the same as ours) is handed to them, ours is drawn within the time.",
        "The floor is every product of a step, factors and results in the precision named, and a copy of the weights in fp32, nothing else.",
        *left_out(report),
    ]
    if torch.device(report.device).type == "cuda":
        lines.append(
            "The plain loops keep torch's defaults, in which cuDNN's fp32 convolutions may use TF32; ours do not."
        )
    if any("e" in job.deviations for job in jobs):
        lines.append(
            f"(e): at most {count(torch.get_num_threads(), 'process', 'processes')}, alive all the time, each with its share of the runs "
            "timed: what a sweep by Hydra's joblib launcher comes to once its processes have started."
        )
    if any(len(job.recipe.single) < len(job.recipe.specs) for job in jobs):
        lines.append(
            "Where fewer runs are timed than there are, a loop trained one run of each method (and (e) enough to keep its "
            "processes equally busy); time a replica-step is per run timed, for single runs do not depend on how many follow."
        )
    if any(job.source == "synthetic" for job in jobs):
        lines.append("Random images stood in for a data set that was not on the machine: times only.")
    if any(job.memory for job in jobs):
        lines.append(
            "Peak memory: of a fresh process that loads the data and trains one repeat, libraries included."
            if torch.device(report.device).type == "cpu"
            else "Peak memory: the device's, of a fresh process that loads the data and trains one repeat."
        )
    lines += against_loader(report.table)
    gates = [f"{job.recipe.name} " + ", ".join(f"({k}) {v:.0e}" for k, v in job.deviations.items()) for job in jobs]
    lines.append(
        "Gate, largest deviation from the plain loop in fp64 over a few steps, as a share of the way gone: "
        + "; ".join(gates)
        + "."
    )
    return lines + busy(report.table)


def against_loader(table: pd.DataFrame) -> list[str]:
    """Ours against (a), job by job, medians of times."""
    found = []
    for job, rows in table.groupby("job", sort=False):
        ms = rows.set_index("contender")["ms"]
        ours = [f"({c}) {ms['a'] / ms[c]:.1f} times" for c in "fg" if c in ms and "a" in ms]
        found += [f"{job} {', '.join(ours)}"] if ours else []
    return [f"Ours against (a), {CONTENDERS['a'].title}: {'; '.join(found)}."] if found else []


def left_out(report: Report) -> list[str]:
    """Contenders that do not exist for a job, with the reason, and jobs that were not asked for."""
    where: dict[tuple[str, str], list[str]] = {}
    for job in report.jobs:
        for letter, reason in job.absent.items():
            where.setdefault((letter, reason), []).append(job.recipe.name)
    lines = []
    for (letter, reason), names in where.items():
        place = "every job" if len(names) == len(report.jobs) > 1 else ", ".join(names)
        lines.append(f"Left out: ({letter}) {CONTENDERS[letter].title}, in {place}: {reason}.")
    if report.left_out:
        lines.append(
            f"Jobs left out for time: {', '.join(report.left_out)} (`jobs=[...]`; `preset=full` measures all)."
        )
    return lines


def busy(table: pd.DataFrame) -> list[str]:
    if not (table["cpu_per_second"] < IDLE).any():
        return []
    least = table["cpu_per_second"].min()
    return [f"**The machine was not idle** (a contender got {least:.2f} of a processor): do not quote."]


def cold_table(cold: pd.DataFrame) -> str:
    """Seconds from process start to the last row on disk; ratios repeat by repeat."""
    body = []
    for job in dict.fromkeys(cold["job"]):
        of_job = cold[cold["job"] == job]
        seconds = of_job.pivot(index="repeat", columns="contender", values="seconds")
        for letter in dict.fromkeys(of_job["contender"]):
            own, ratio = seconds[letter], seconds[BASE] / seconds[letter]
            body.append(
                [
                    job,
                    f"({letter}) {TITLES[letter]}",
                    str(of_job["runs"].iloc[0]),
                    str(of_job["epochs"].iloc[0]),
                    f"{own.median():.1f} ({own.min():.1f} to {own.max():.1f})",
                    f"{ratio.median():.2f} ({ratio.min():.2f} to {ratio.max():.2f})",
                ]
            )
    return markdown.table(("job", "contender", "runs", "epochs", "s", "× (b)"), body)


COLD_NOTES = (
    "From the start of the process to the last row on disk: imports, data, all steps of each epoch and its test pass. "
    "Ours also keeps losses, norms, weights and checksums of each run and evaluates it at three strengths of noise."
)


def cold_blocks(cold: pd.DataFrame) -> list[str]:
    """Heading, table and note, or nothing where nothing was measured."""
    if cold.empty:
        return []
    return ["## Cold, end to end", cold_table(cold), COLD_NOTES]


def context(device: str) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy"))
    gpu = f"{torch.cuda.get_device_name(device)}, " if torch.device(device).type == "cuda" else ""
    return (
        f"{machine(device)}: {gpu}{torch.get_num_threads()} threads, {processor()} ({torch.backends.cpu.get_cpu_capability()} kernels); "
        f"Python {platform.python_version()}, {versions}; commit {commit() or 'unknown'}; "
        f"{datetime.datetime.now(datetime.UTC).date().isoformat()}."
    )


def show(report: Report) -> None:
    for job in report.jobs:
        print(f"\n{job_heading(job)}\n{job_table(report.table, job)}")
    print("", *cold_blocks(report.cold), *notes(report), context(report.device), "Evaluations:", sep="\n")
    print(*evaluation_lines(report.evaluations), sep="\n  ", flush=True)


def save(folder: Path, rows: pd.DataFrame, report: Report) -> None:
    """repeats.csv, evaluations.csv and cold.csv (raw), benchmark.csv, benchmark.md, and benchmark.png and .svg."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [block for job in report.jobs for block in (f"## {job_heading(job)}", job_table(report.table, job))]
    bullets = "\n".join(f"- {line}" for line in notes(report))
    save_text(folder, "repeats.csv", rows.to_csv(index=False))
    parts += cold_blocks(report.cold)
    if not report.cold.empty:
        save_text(folder, "cold.csv", report.cold.to_csv(index=False))
    parts += ["## Evaluations", "\n".join(f"- {line}" for line in evaluation_lines(report.evaluations))]
    save_text(folder, "evaluations.csv", report.evaluations.to_csv(index=False))
    save_text(folder, "benchmark.csv", report.table.to_csv(index=False))
    title, where = "Stacked training against plain loops", context(report.device)
    save_figure(folder, "benchmark", ratio_figure(report.table, title, where, [*left_out(report), *busy(report.table)]))
    picture = "![Ratio to the plain loop by job and contender](benchmark.png)"
    save_text(folder, "benchmark.md", markdown.document(f"# {title}", where, picture, *parts, "## Notes", bullets))
