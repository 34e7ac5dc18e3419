"""A line of a figure or table: the runs of one architecture, method and reading, which differ in their seed alone.

Accuracies are percent from here on. Lines come in the order in which they are shown: architecture, method, reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from noise_reg.artefacts.methods import ARCHS, METHODS, label, rank
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import Summary, summarise
from noise_reg.errors import UserError
from noise_reg.spec import ADDED_LATER

SAME_STRENGTH = 1e-6
STUCK = 0.1  # a completed run whose last training accuracy is less than this above chance never learned


@dataclass(frozen=True, eq=False)
class Line:
    """`curve`: percent, one row a seed with any finite accuracy, one column a sigma_noise. `clean`: percent by seed."""

    arch: str
    method: str
    reading: str
    runs: pd.DataFrame
    curve: pd.DataFrame
    clean: Mapping[int, float]

    @property
    def label(self) -> str:
        return label(self.method, self.reading)

    @property
    def count(self) -> int:
        """Runs made, whatever became of them."""
        return len(self.runs)

    @property
    def finite(self) -> set[int]:
        """Seeds that have a finite accuracy somewhere: those that enter means."""
        return set(self.clean) | {int(seed) for seed in self.curve.index}

    def with_status(self, status: str, *, finite: bool) -> int:
        seeds = self.runs.loc[self.runs["status"] == status, "seed"]
        return sum((int(seed) in self.finite) == finite for seed in seeds)

    @property
    def lost(self) -> int:
        """Diverged runs without a finite accuracy: they are in no mean."""
        return self.with_status("diverged", finite=False)

    @property
    def near_chance(self) -> float:
        """The training accuracy (a fraction) below which a run never learned."""
        return 1 / classes_of(self.runs) + STUCK

    @property
    def stuck(self) -> set[int]:
        """Seeds of completed runs that never left chance. They count in every mean of a table and in every verdict; a
        figure's line is drawn without them, for the mean of a bimodal sample is nowhere near any run."""
        at_chance = (self.runs["status"] == "completed") & (self.runs["train_accuracy"] < self.near_chance)
        return {int(seed) for seed in self.runs.loc[at_chance, "seed"]}

    @property
    def trained(self) -> set[int]:
        """Seeds of runs that completed and left chance."""
        done = self.runs.loc[self.runs["status"] == "completed", "seed"]
        return {int(seed) for seed in done} - self.stuck

    def learned(self) -> Line:
        """The line without the runs that never left chance, if any did."""
        stuck = self.stuck
        if not stuck or stuck == self.finite:
            return self
        clean = {seed: value for seed, value in self.clean.items() if seed not in stuck}
        runs, curve = (
            self.runs[~self.runs["seed"].isin(stuck)],
            self.curve.drop(index=list(stuck & set(self.curve.index))),
        )
        return replace(self, runs=runs, curve=curve, clean=clean)

    def tally(self) -> str:
        """What became of runs that did not complete or learn: '7 of 10 diverged'; '' when all did."""
        counts = {status: int((self.runs["status"] == status).sum()) for status in ("diverged", "failed")}
        counts["at chance"] = len(self.stuck)
        return ", ".join(f"{n} of {self.count} {status}" for status, n in counts.items() if n)

    def account(self) -> str:
        """The tally, and how many of those runs had a finite accuracy all the same and are kept in the mean."""
        kept = sum(self.with_status(status, finite=True) for status in ("diverged", "failed"))
        return self.tally() + (f" ({kept} of them with a finite accuracy, kept in the mean)" if kept else "")

    def summaries(self) -> dict[float, Summary]:
        """Mean and spread over runs at each sigma_noise."""
        return {float(sigma): summarise(self.curve[sigma].to_numpy()) for sigma in self.curve.columns}

    def at(self, sigmas: Sequence[float]) -> dict[int, float]:
        """By seed, the mean accuracy over `sigmas` (strengths of the grid); runs that lack one are left out."""
        columns = [c for c in self.curve.columns if any(abs(float(c) - s) < SAME_STRENGTH for s in sigmas)]
        if len(columns) < len(sigmas) or not columns:
            return {}
        means = self.curve[columns].mean(axis="columns", skipna=False).dropna()
        return {int(seed): float(value) for seed, value in means.items()}  # type: ignore[call-overload]


def classes_of(runs: pd.DataFrame) -> int:
    """How many classes the data of these runs have. Rows of earlier versions do not say it."""
    usual = ADDED_LATER["dataset.classes"]
    if "classes" not in runs:
        return int(usual)
    return int(pd.to_numeric(runs["classes"], errors="coerce").fillna(usual).iloc[0])


def what_chance_is(found: Sequence[Line]) -> str:
    """The note under a table or figure in which a run is at chance; '' where none is."""
    limits = [round(100 * line.near_chance) for line in found if line.stuck]
    return f"At chance: the last training accuracy lies below {span(limits)} %." if limits else ""


def lines(rows: Rows, evaluation: str = "corruption") -> list[Line]:
    """Every line in the rows, its curve under `evaluation`. Refuses rows in which two runs of a line share a seed or differ otherwise, or
    more than one data set."""
    runs = rows.runs
    datasets = sorted(runs["dataset"].unique())
    if len(datasets) > 1:
        raise UserError(f"the rows hold {len(datasets)} data sets ({', '.join(datasets)}); draw one at a time")
    identity = ["arch", "method", "reading", "seed"]
    twice = runs[runs.duplicated(identity)]
    if len(twice):
        who = ", ".join(f"{c} {twice.iloc[0][c]!r}" for c in identity)
        raise UserError(f"the rows hold two runs of {who}: give what sets them apart as their `reading`")
    wide = strengths_wide(rows, evaluation)
    found = []
    for (arch, method, reading), group in runs.groupby(["arch", "method", "reading"], sort=False):
        check_alike(group, f"arch {arch!r}, method {method!r}, reading {reading!r}")
        curve = wide.reindex(group["key"]).set_axis(group["seed"].to_numpy(), axis="index").sort_index()
        curve = curve.dropna(how="all").dropna(axis="columns", how="all")
        found.append(Line(str(arch), str(method), str(reading), group, curve, clean_accuracy(rows, group)))
    return sorted(found, key=lambda line: (rank(line.arch, ARCHS), rank(line.method, METHODS), line.reading))


def spec_fields(runs: pd.DataFrame) -> list[str]:
    """The columns that hold fields of the runs' specifications in which the artefact's runs differ: 'optimizer.learning_rate'."""
    return [str(column) for column in runs if "." in str(column)]


def check_alike(runs: pd.DataFrame, who: str) -> None:
    """Refuses runs of one line that differ in more than their seed and what became of them."""
    for column in sorted(({"precision", "max_epochs"} & set(runs)) | set(spec_fields(runs))):
        values = sorted({str(value) for value in runs[column]} - {"", "nan"})
        if len(values) > 1:
            raise UserError(
                f"the rows hold runs of {who} with {column} = {' and '.join(values)}: give what sets them apart as their `reading`"
            )


def strengths_wide(rows: Rows, evaluation: str) -> pd.DataFrame:
    """Accuracy in percent under `evaluation`, by key and strength; at 0 the clean accuracy, if the grid lacks 0."""
    table = rows.evaluations
    corrupted = table[table["evaluation"] == evaluation]
    wide = corrupted.pivot(index="key", columns="strength", values="accuracy").astype(float)
    clean = table[table["evaluation"] == "clean"].drop_duplicates("key").set_index("key")["accuracy"].astype(float)
    if len(wide) and 0.0 not in wide.columns and len(clean):
        wide.insert(0, 0.0, clean.reindex(wide.index))
    return 100 * wide


def clean_accuracy(rows: Rows, runs: pd.DataFrame) -> dict[int, float]:
    """Finite clean test accuracy in percent, by seed: the evaluation 'clean', else the run's own test_accuracy."""
    table = rows.evaluations
    evaluated = dict(zip(*(table.loc[table["evaluation"] == "clean", c] for c in ("key", "accuracy")), strict=True))
    found = {}
    for key, seed, own in zip(runs["key"], runs["seed"], runs["test_accuracy"], strict=True):
        value = evaluated.get(key, own)
        if np.isfinite(value):
            found[int(seed)] = 100 * float(value)
    return dict(sorted(found.items()))


def of_arch(found: Sequence[Line], arch: str) -> list[Line]:
    return [line for line in found if line.arch == arch]


def archs(found: Sequence[Line]) -> list[str]:
    """The architectures present, in their order."""
    return list(dict.fromkeys(line.arch for line in found))


def span(values: Sequence[int]) -> str:
    """'10', or '3 to 10' where the lines differ."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
