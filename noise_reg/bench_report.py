"""The benchmark's raw rows as a table: on the terminal, as Markdown and as CSV."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_text
from noise_reg.bench_contenders import BASE, CONTENDERS, Recipe
from noise_reg.bench_evaluate import evaluation_lines
from noise_reg.checkout import commit

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
    """What is known of a measured job beside its times: deviations at the gate, peak memory in MiB, wanted ratios."""

    recipe: Recipe
    source: str
    deviations: dict[str, float]
    memory: dict[str, float]
    targets: dict[str, float]


def floor_name(precision: str) -> str:
    return f"floor_{precision}"


def processor() -> str:
    """'amx', 'avx512', 'avx2' or what torch calls this processor's capability."""
    flags = Path("/proc/cpuinfo")
    if flags.exists() and "amx_tile" in flags.read_text():
        return "amx"
    return torch.backends.cpu.get_cpu_capability().lower()


def machine() -> str:
    """The name of a kind of machine, not of a machine: 'cpu-2-amx'."""
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
                    "title": "bare products" if floor else CONTENDERS[name].title,
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
        f"batch {spec.optimizer.batch_size}, {len(job.recipe.specs)} runs of {len(job.recipe.single)} methods, "
        f"{job.recipe.steps} steps a repeat"
    )


def notes(table: pd.DataFrame, jobs: Sequence[Job], repeats: int) -> list[str]:
    """What a reader must know to judge the numbers."""
    lines = [
        f"Median and range of {repeats} repeats after an untimed one; contenders took turns in one process.",
        "Ratios are formed repeat by repeat. Training steps alone: no early stop, no logging, no test pass.",
        "The plain loops measure nothing on the way, ours its running loss, accuracy and divergence.",
        "The plain loops' sample order (the same as ours) is handed to them, ours is drawn within the time.",
        "The floor is every product of a step and nothing else; factors and results in the precision named.",
    ]
    if any(len(job.recipe.single) < len(job.recipe.specs) for job in jobs):
        lines.append(
            "Where fewer runs are timed than there are, a loop trained one run of each method; time a replica-step is per "
            "run timed, for single runs do not depend on how many follow."
        )
    if any(job.source == "synthetic" for job in jobs):
        lines.append("Random images stood in for a data set that was not on the machine: times only.")
    if any(job.memory for job in jobs):
        lines.append("Peak memory: of a fresh process that loads the data and trains one repeat, libraries included.")
    gates = [f"{job.recipe.name} " + ", ".join(f"({k}) {v:.0e}" for k, v in job.deviations.items()) for job in jobs]
    lines.append(
        "Gate, largest deviation from the plain loop in fp64 over a few steps, as a share of the way gone: "
        + "; ".join(gates)
        + "."
    )
    if (table["cpu_per_second"] < IDLE).any():
        lines.append(
            f"**The machine was not idle** (a contender got {table['cpu_per_second'].min():.2f} of a processor): do not quote."
        )
    return lines


def context() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy"))
    return (
        f"{machine()}: {torch.get_num_threads()} threads, {processor()} ({torch.backends.cpu.get_cpu_capability()} kernels); "
        f"Python {platform.python_version()}, {versions}; commit {commit() or 'unknown'}; "
        f"{datetime.datetime.now(datetime.UTC).date().isoformat()}."
    )


def show(table: pd.DataFrame, jobs: Sequence[Job], repeats: int) -> None:
    for job in jobs:
        print(f"\n{job_heading(job)}\n{job_table(table, job)}")
    print("\n" + "\n".join(notes(table, jobs, repeats)) + f"\n{context()}", flush=True)


def save(
    folder: Path, rows: pd.DataFrame, table: pd.DataFrame, jobs: Sequence[Job], repeats: int, evaluations: pd.DataFrame
) -> None:
    """repeats.csv and evaluations.csv (raw), benchmark.csv and benchmark.md."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [block for job in jobs for block in (f"## {job_heading(job)}", job_table(table, job))]
    bullets = "\n".join(f"- {line}" for line in notes(table, jobs, repeats))
    save_text(folder, "repeats.csv", rows.to_csv(index=False))
    parts += ["## Evaluations", "\n".join(f"- {line}" for line in evaluation_lines(evaluations))]
    save_text(folder, "evaluations.csv", evaluations.to_csv(index=False))
    save_text(folder, "benchmark.csv", table.to_csv(index=False))
    save_text(
        folder, "benchmark.md", markdown.document("# Stacked training against plain loops", context(), *parts, bullets)
    )
