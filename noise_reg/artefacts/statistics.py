"""Means, intervals of differences and the rules that turn an interval into a verdict.

Every quantity is in percentage points of accuracy. Legend: m is `MARGIN`, the smallest difference that matters; an
interval is a two-sided interval of (first - second), at 95 % (`LEVEL`) where no other level is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

REPRODUCED, CONTRADICTED, INCONCLUSIVE, UNDER_POWERED = "reproduced", "contradicted", "inconclusive", "under-powered"
NOT_JUDGED = "not judged"  # there are no rows of what the claim is about
VERDICTS = (REPRODUCED, CONTRADICTED, INCONCLUSIVE, UNDER_POWERED, NOT_JUDGED)
MARGIN = 1.0
ALPHA = 0.05
LEVEL = 0.95
MIN_RUNS = 3

NUMBER_RULE = (
    "Margin m = 1 percentage point; the interval is the 95 % Welch interval of ours - paper, from mean, spread and n "
    "of both (the paper's error is read as 2 standard deviations over runs). In this order: *contradicted* if at "
    "least 3 runs were made and more than half of them diverged without a finite accuracy; *under-powered* if fewer "
    "than 3 of ours have a finite accuracy, or the interval's half-width exceeds 2m, unless the interval lies wholly "
    "outside [-2m, +2m]; *reproduced* if the interval contains 0 or lies wholly inside [-m, +m]; *contradicted* if it "
    "lies wholly outside [-m, +m]; *inconclusive* otherwise."
)


@dataclass(frozen=True)
class Summary:
    """A sample's mean, standard deviation (n - 1 in the denominator; NaN for n < 2) and size."""

    mean: float
    sd: float
    n: int

    @property
    def standard_error(self) -> float:
        return self.sd / math.sqrt(self.n) if self.n else math.nan


@dataclass(frozen=True)
class Interval:
    """An estimated difference with its interval and two-sided p-value; NaN where too few runs leave it undefined."""

    difference: float
    low: float
    high: float
    p: float
    n: tuple[int, int]
    paired: bool

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def wholly_outside(self, bound: float) -> bool:
        return self.low > bound or self.high < -bound

    def wholly_inside(self, bound: float) -> bool:
        return -bound <= self.low and self.high <= bound

    def contains_zero(self) -> bool:
        return self.low <= 0 <= self.high


def summarise(sample: Sequence[float] | np.ndarray) -> Summary:
    """Mean and spread of the finite values of `sample`."""
    values = np.asarray(sample, dtype=float)
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if values.size else math.nan
    sd = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Summary(mean=mean, sd=sd, n=int(values.size))


def student(
    difference: float, error: float, df: float, n: tuple[int, int], paired: bool, level: float = LEVEL
) -> Interval:
    """The two-sided t interval of `difference` with standard error `error`, which covers with probability `level`; a spread of
    exactly 0 gives a point."""
    if not math.isfinite(error):
        return Interval(difference, math.nan, math.nan, math.nan, n, paired)
    if error == 0:
        return Interval(difference, difference, difference, 0.0 if difference else 1.0, n, paired)
    reach = float(stats.t.ppf((1 + level) / 2, df)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, df))
    return Interval(difference, difference - reach, difference + reach, p, n, paired)


def welch(a: Summary, b: Summary) -> Interval:
    """Welch's interval of mean(a) - mean(b), unequal variances, with the Welch-Satterthwaite degrees of freedom."""
    va, vb = a.standard_error**2, b.standard_error**2
    df = math.nan
    if va + vb > 0:
        df = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    return student(a.mean - b.mean, math.sqrt(va + vb), df, (a.n, b.n), paired=False)


def paired(differences: Sequence[float], level: float = LEVEL) -> Interval:
    """The t interval of the mean of per-seed differences."""
    d = summarise(differences)
    return student(d.mean, d.standard_error, d.n - 1, (d.n, d.n), True, level)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Interval:
    """Interval of a - b from values by seed: paired when at least `MIN_RUNS` seeds are shared, otherwise Welch."""
    shared = sorted(a.keys() & b.keys())
    if len(shared) >= MIN_RUNS:
        return paired([a[seed] - b[seed] for seed in shared])
    return welch(summarise(list(a.values())), summarise(list(b.values())))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order; NaN stays NaN and does not count as a comparison."""
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    running = 0.0
    for rank, (p, i) in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p))
        adjusted[i] = running
    return adjusted


def verdict_of_number(ours: Summary, paper: Summary, *, runs: int | None = None, diverged: int = 0) -> str:
    """Ours beside a printed mean and spread, by `NUMBER_RULE`.

    `runs` counts every run made, `diverged` those that diverged and have no finite accuracy (absent from `ours`).
    """
    runs = ours.n if runs is None else runs
    if runs >= MIN_RUNS and 2 * diverged > runs:
        return CONTRADICTED
    interval = welch(ours, paper)
    if ours.n < MIN_RUNS or (interval.half_width > 2 * MARGIN and not interval.wholly_outside(2 * MARGIN)):
        return UNDER_POWERED
    if interval.contains_zero() or interval.wholly_inside(MARGIN):
        return REPRODUCED
    return CONTRADICTED if interval.wholly_outside(MARGIN) else INCONCLUSIVE


def undecided(interval: Interval) -> str:
    """The verdict of an interval that settles nothing: too wide to settle it, or wide enough but astride."""
    return UNDER_POWERED if interval.half_width > 2 * MARGIN else INCONCLUSIVE


def too_few(interval: Interval) -> bool:
    return min(interval.n) < MIN_RUNS or math.isnan(interval.low)


def judge_greater(interval: Interval, p_adjusted: float) -> str:
    """'First is greater': reproduced if low > 0; contradicted if below 0 after Holm; else undecided."""
    if too_few(interval):
        return UNDER_POWERED
    if interval.low > 0:
        return REPRODUCED
    return CONTRADICTED if interval.difference < 0 and p_adjusted < ALPHA else undecided(interval)


def judge_lower(interval: Interval) -> str:
    """'First is lower': reproduced if high < 0; contradicted if low > 0 or shown smaller than m; else undecided."""
    if too_few(interval):
        return UNDER_POWERED
    if interval.high < 0:
        return REPRODUCED
    return CONTRADICTED if interval.low > 0 or interval.wholly_inside(MARGIN) else undecided(interval)


def judge_not_lower(interval: Interval) -> str:
    """'First is at least second' to within m: reproduced if low > -m; contradicted if high < -m; else undecided."""
    if too_few(interval):
        return UNDER_POWERED
    if interval.low > -MARGIN:
        return REPRODUCED
    return CONTRADICTED if interval.high < -MARGIN else undecided(interval)


def judge_equivalent(interval: Interval, margin: float) -> str:
    """'Equivalent' to within `margin` points: reproduced if wholly inside [-margin, +margin]; contradicted if wholly outside;
    else under-powered. With an interval at level 1 - 2 alpha these are two one-sided tests at alpha (Schuirmann 1987)."""
    if too_few(interval):
        return UNDER_POWERED
    if interval.wholly_inside(margin):
        return REPRODUCED
    return CONTRADICTED if interval.wholly_outside(margin) else UNDER_POWERED


def judge_alike(interval: Interval) -> str:
    """'Alike': reproduced if wholly inside [-m, +m]; contradicted if wholly outside; else undecided."""
    if too_few(interval):
        return UNDER_POWERED
    verdict = judge_equivalent(interval, MARGIN)
    return undecided(interval) if verdict == UNDER_POWERED else verdict


def judge_unchanged(interval: Interval, p_adjusted: float) -> str:
    """'Not significantly different': reproduced if p (Holm) >= .05 and the half-width is at most 2m; if significant,
    contradicted, unless the interval lies wholly inside [-m, +m]: inconclusive; else under-powered."""
    if too_few(interval):
        return UNDER_POWERED
    if p_adjusted < ALPHA:
        return INCONCLUSIVE if interval.wholly_inside(MARGIN) else CONTRADICTED
    return UNDER_POWERED if interval.half_width > 2 * MARGIN else REPRODUCED


def combine(verdicts: Sequence[str]) -> str:
    """One verdict of several parts: any contradicted part decides, then one without rows, then under-powered, then inconclusive."""
    for verdict in (CONTRADICTED, NOT_JUDGED, UNDER_POWERED, INCONCLUSIVE):
        if verdict in verdicts:
            return verdict
    return REPRODUCED if verdicts else UNDER_POWERED
