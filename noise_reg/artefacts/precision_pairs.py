"""Runs of a fast precision paired by seed with those of the reference, and the verdicts on them.

Everything judged is in percentage points, fast − reference. Equivalence is shown by two one-sided tests at 5 % (Schuirmann
1987, J. Pharmacokinet. Biopharm. 15, 657): the 90 % t interval lies within ±margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from noise_reg.artefacts.claims import PAPER_DATASET
from noise_reg.artefacts.lines import Line, lines
from noise_reg.artefacts.methods import dataset_name, label
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import (
    ALPHA,
    CONTRADICTED,
    MIN_RUNS,
    REPRODUCED,
    UNDER_POWERED,
    Interval,
    combine,
    holm,
    judge_equivalent,
    paired,
)
from noise_reg.artefacts.verdicts import Part, Verdict, note_of, part
from noise_reg.decimals import shortest

LEVEL = 0.9  # of the intervals
MEAN = "mean"  # over all strengths, 0 among them
CLEAN = 0.0  # sigma_noise
FATE_RULE = (
    "Runs that diverged, failed or stayed at chance, by method: Fisher's exact test of their numbers, with Holm's correction over "
    "the methods of which some runs learned and some did not. A part is contradicted if p < 0.05, reproduced if every seed has the same fate "
    f"in both precisions, under-powered otherwise or with fewer than {MIN_RUNS} runs."
)

Tables = Mapping[str, pd.DataFrame]
Place = float | str  # a sigma_noise, or MEAN


@dataclass(frozen=True)
class Pairing:
    """The runs of one method in a fast precision and in the reference; `sigmas`: every strength, `CLEAN` first."""

    fast: Line
    reference: Line
    sigmas: tuple[float, ...]

    @property
    def precision(self) -> str:
        return self.fast.reading

    @property
    def name(self) -> str:
        """The method for people."""
        return label(self.fast.method)

    @cached_property
    def seeds(self) -> list[int]:
        """Those whose run learned in both."""
        return sorted(self.fast.trained & self.reference.trained)

    @property
    def trains(self) -> bool:
        """Whether any run learned."""
        return bool(self.fast.trained | self.reference.trained)

    def accuracies(self, line: Line, place: Place) -> dict[int, float]:
        """Percent by seed, of runs whose pair learned."""
        values = line.at(self.sigmas if place == MEAN else [float(place)])
        return {seed: values[seed] for seed in self.seeds if seed in values}

    def interval(self, place: Place) -> Interval:
        """Fast − reference in points, at `LEVEL`."""
        fast, reference = (self.accuracies(line, place) for line in (self.fast, self.reference))
        return paired([fast[seed] - reference[seed] for seed in sorted(fast.keys() & reference.keys())], LEVEL)

    def fates(self) -> str:
        """'fp32: 1 of 10 diverged; bf16: 2 of 10 at chance'; '' where all runs learned."""
        told = ((line.reading, line.tally()) for line in (self.reference, self.fast))
        return "; ".join(f"{precision}: {words}" for precision, words in told if words)


def pairings(tables: Tables, context: Mapping[str, Any]) -> list[Pairing]:
    """By fast precision, then by method, in the order in which they are shown."""
    settings = context["settings"]
    by_name = {(line.method, line.reading): line for line in lines(as_rows(tables, context))}
    sigmas = tuple(sorted({float(s) for line in by_name.values() for s in line.curve.columns}))
    methods = list(dict.fromkeys(method for method, _ in by_name))
    reference = settings["reference"]
    return [Pairing(by_name[m, fast], by_name[m, reference], sigmas) for fast in settings["fast"] for m in methods]


def as_rows(tables: Tables, context: Mapping[str, Any]) -> Rows:
    """The tables as rows of runs whose reading is their precision."""
    runs = tables["runs"].assign(dataset=context["dataset"], arch=context["network"]["arch"])
    runs = runs.assign(reading=runs["precision"], key=names(runs))
    curve = tables["curve"].rename(columns={"sigma_noise": "strength"})
    corrupted = curve.assign(key=names(curve), evaluation="corruption")
    clean = runs.assign(evaluation="clean", strength=CLEAN, accuracy=runs["test_accuracy"])
    columns = ["key", "evaluation", "strength", "accuracy"]
    return Rows(runs, pd.concat([corrupted[columns], clean[columns].dropna()], ignore_index=True), None)


def names(table: pd.DataFrame) -> pd.Series:
    return table["method"] + " " + table["precision"] + " " + table["seed"].astype(str)


def judge(found: Sequence[Pairing], context: Mapping[str, Any]) -> list[Verdict]:
    """Of each fast precision: clean accuracy, the curve's mean, every strength of it, and the runs that do not learn."""
    settings, verdicts = context["settings"], []
    note = note_of(context, PAPER_DATASET, dataset_name(context["dataset"]))
    reference, margin = settings["reference"], float(settings["margin"])
    for fast in settings["fast"]:
        of = [pairing for pairing in found if pairing.precision == fast]
        trains = [pairing for pairing in of if pairing.trains]
        for what, words, places in (
            ("clean", "clean test accuracy", lambda p: (CLEAN,)),
            ("mean of the curve", "the mean of the corruption curve", lambda p: (MEAN,)),
            ("each strength", "accuracy at every strength of the corruption curve", lambda p: p.sigmas[1:]),
        ):
            parts = equivalent(trains, places, margin)
            statement = f"{fast} in place of {reference} changes {words} by at most {margin:g} points, for every method that trains."
            verdicts.append(Verdict(f"{fast}, {what}", statement, combine([p.verdict for p in parts]), parts, rule(margin), note))  # fmt: skip
        fates = same_fates(of)
        statement = f"As many runs fail to learn in {fast} as in {reference}."
        verdicts.append(Verdict(f"{fast}, runs that do not learn", statement, combine([p.verdict for p in fates]), fates, FATE_RULE, note))  # fmt: skip
    return verdicts


def rule(margin: float) -> str:
    return (
        "By method of which some run learned: the mean of the differences, paired by seed over the runs that learned in both "
        f"precisions, with its 90 % t interval (two one-sided tests at 5 %). A part is reproduced if the interval lies wholly within "
        f"±{margin:g} points, contradicted if wholly outside, under-powered otherwise or with fewer than {MIN_RUNS} pairs. All parts "
        "must hold, so no correction is due; one that is contradicted decides."
    )


def equivalent(
    found: Sequence[Pairing], places: Callable[[Pairing], Sequence[Place]], margin: float
) -> tuple[Part, ...]:
    """A part for each method and place."""
    parts = []
    for pairing in found:
        for place in places(pairing):
            interval = pairing.interval(place)
            words = f"{pairing.precision} − {pairing.reference.reading}, {place_name(place)}"
            remark = pairing.fates()
            parts.append(part(pairing.name, words, interval, judge_equivalent(interval, margin), remark))
    return tuple(parts)


def place_name(place: Place) -> str:
    if place == MEAN:
        return "mean of the curve"
    return "clean" if place == CLEAN else f"σ_noise = {shortest(place)}"


def same_fates(found: Sequence[Pairing]) -> tuple[Part, ...]:
    """A part for each method: the difference of the shares of runs that did not learn, in points."""
    p_values = [fisher(pairing) for pairing in found]
    parts = []
    for pairing, p, adjusted in zip(found, p_values, holm(p_values), strict=True):
        fast, reference = pairing.fast, pairing.reference
        counts = [line.count - len(line.trained) for line in (fast, reference)]
        off = 100 * (counts[0] / fast.count - counts[1] / reference.count)
        if min(fast.count, reference.count) < MIN_RUNS:
            verdict = UNDER_POWERED
        elif adjusted < ALPHA:
            verdict = CONTRADICTED
        else:
            verdict = REPRODUCED if fast.trained == reference.trained else UNDER_POWERED
        tested = "" if math.isnan(p) else f"Fisher's p = {p:.2g}, Holm's {adjusted:.2g}"
        remark = "; ".join(filter(None, [pairing.fates(), tested])) or "all learned"
        words = f"share of runs that do not learn, {pairing.precision} − {reference.reading}"
        size = (fast.count, reference.count)
        parts.append(Part(pairing.name, words, round(off, 6), None, None, size, False, verdict, remark))
    return tuple(parts)


def fisher(pairing: Pairing) -> float:
    """The p-value of Fisher's exact test that as many runs learn in both; NaN where all do or none, so that nothing is tested."""
    table = np.array(
        [[len(line.trained), line.count - len(line.trained)] for line in (pairing.fast, pairing.reference)]
    )
    return float(stats.fisher_exact(table).pvalue) if table.sum(0).all() else math.nan
