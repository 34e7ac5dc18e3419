"""Claims N1 to N5 of the NINR paper, judged from the rows of Fig. 2 by rules fixed in advance.

Every comparison is a difference of two methods in a per-run summary (percentage points), with its 95 % t interval:
paired by seed where at least three seeds are shared, Welch otherwise. The margin m is 1 point. Each claim is judged
for FC and for CNN; its verdict is contradicted if any part is, else under-powered if any part is, else inconclusive if
any part is. A part is not judged, and a claim none of whose parts is contradicted neither, where a method or architecture has
no rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from noise_reg.artefacts.lines import SAME_STRENGTH, Line
from noise_reg.artefacts.methods import label
from noise_reg.artefacts.statistics import (
    INCONCLUSIVE,
    MIN_RUNS,
    REPRODUCED,
    UNDER_POWERED,
    Interval,
    combine,
    difference,
    holm,
    judge_alike,
    judge_greater,
    judge_lower,
    judge_not_lower,
    judge_unchanged,
)
from noise_reg.artefacts.verdicts import Part, Verdict, absent, noted, part

PAPER_ARCHS = ("fc", "cnn")
PAPER_DATASET = "fmnist"
LARGE_NOISE = (0.6, 0.9)  # sigma_noise; at 1 nothing of the image is left
CDT_NOISE = 0.4
EARLY_EPOCH = 10
BEST = "in_ninr_catapult"
DECAY = ("in_ninr_decay", "full_ninr_decay")
CATAPULT = ("in_ninr_catapult", "full_ninr_catapult")
RIVALS = ("none", "l2", "dropout", "cdt", "in_ninr_decay", "full_ninr_decay", "full_ninr_catapult")

Lines = Mapping[str, Line]  # of one architecture, by method
Values = Callable[[Line], Mapping[int, float]]  # a per-run summary, by seed
Judge = Callable[[str, Lines], list[Part]]  # the parts of a claim in one architecture

N1_RULE = (
    "Per run: the mean accuracy over σ_noise from 0.6 to 0.9. in-NINR (catapult) against each other method of Fig. 2. "
    "A part is reproduced if the interval lies above 0 (all must, so no correction is due), contradicted if the "
    "difference is negative with Holm's p < 0.05 over the comparisons of the architecture; otherwise under-powered if "
    "the half-width exceeds 2 points, else inconclusive."
)
N2_RULE = (
    "Large noise as in N1, decay − CDT 0.4, and clean, decay − no regulariser: a part is reproduced if the interval "
    "lies above −1 point, contradicted if below it. CDT's clean loss, CDT 0.4 − no regulariser: reproduced if the "
    "interval lies below 0, contradicted if above 0 or wholly within ±1 point. Otherwise under-powered if the "
    "half-width exceeds 2 points, else inconclusive."
)
N3_RULE = (
    "At σ_noise = 0.4, in-NINR − CDT 0.4: reproduced if the interval lies within ±1 point, contradicted if wholly "
    "outside. Clean, CDT 0.4 − in-NINR: reproduced if the interval lies below 0, contradicted if above 0 or wholly "
    "within ±1 point. Otherwise under-powered if the half-width exceeds 2 points, else inconclusive."
)
N4_RULE = (
    "Clean accuracy, each method − no regulariser; significant means Holm's p < 0.05 over the comparisons of the "
    "architecture. Not significant: reproduced, or under-powered if the half-width exceeds 2 points. Significant: "
    "contradicted, but inconclusive if the whole interval lies within ±1 point."
)
N5_RULE = (
    "Per run: the gain in clean test accuracy from epoch 10 (or the last epoch before it) to the end of training; "
    "catapult − no regulariser is the shrinking of the clean loss. Reproduced if the interval lies above 0 and there "
    "was a loss at epoch 10 (if none, inconclusive), contradicted if below 0; otherwise under-powered if the "
    "half-width exceeds 2 points, else inconclusive. Catapult runs that ended by epoch 10 do not count."
)


def judge_claims(found: Sequence[Line], history: pd.DataFrame | None, note: str = "") -> list[Verdict]:
    """Verdicts on N1 to N5 from the lines of the paper's default reading."""
    by_arch = of_default(found)

    def verdict(claim: str, statement: str, rule: str, judge: Judge) -> Verdict:
        return judged(claim, statement, rule, by_arch, judge, note)

    return [
        verdict("N1", "NINR is the most robust to Eq. 8 noise, in-NINR (catapult) best; FC and CNN.", N1_RULE, n1),
        verdict("N2", "Decay-phase NINR ≥ CDT at large noise, without CDT's clean loss.", N2_RULE, n2),
        verdict("N3", "in-NINR and CDT (0.4) are alike at σ_noise = 0.4, but CDT is worse clean.", N3_RULE, n3),
        verdict("N4", "Decay-phase NINR, L2 and dropout do not change clean accuracy significantly.", N4_RULE, n4),
        verdict(
            "N5",
            "The catapult's clean loss shrinks with longer training.",
            N5_RULE,
            lambda arch, those: n5(arch, those, history),
        ),
    ]


def of_default(found: Sequence[Line], archs: Sequence[str] = PAPER_ARCHS) -> dict[str, Lines]:
    """The lines of the default reading, by architecture and method."""
    return {arch: {x.method: x for x in found if x.arch == arch and not x.reading} for arch in archs}


def judged(
    claim: str, statement: str, rule: str, by_arch: Mapping[str, Lines], judge: Judge, note: str = ""
) -> Verdict:
    """The verdict that `judge`'s parts of every architecture make; one without runs is not judged."""
    parts: list[Part] = []
    for arch, those in by_arch.items():
        parts += judge(arch, those) if those else [absent(arch, "all", "this architecture")]
    return Verdict(claim, statement, combine([p.verdict for p in parts]), tuple(parts), rule, noted(parts, note))


def greater(arch: str, those: Lines, pairs: Sequence[tuple[str, str]], values: Values, where: str) -> list[Part]:
    """Whether the first of each pair has the greater `values`; Holm's correction over the pairs."""
    intervals = [between(those, first, second, values) for first, second in pairs]
    adjusted = holm([interval.p for interval in intervals])
    return [
        made(arch, those, first, second, where, interval, judge_greater(interval, p))
        for (first, second), interval, p in zip(pairs, intervals, adjusted, strict=True)
    ]


def n1(arch: str, those: Lines) -> list[Part]:
    return greater(arch, those, [(BEST, rival) for rival in RIVALS], at_large_noise(those), "large noise")


def n2(arch: str, those: Lines) -> list[Part]:
    large, parts = at_large_noise(those), []
    for method in DECAY:
        robust = between(those, method, "cdt", large)
        clean = between(those, method, "none", clean_values)
        parts.append(made(arch, those, method, "cdt", "large noise", robust, judge_not_lower(robust)))
        parts.append(made(arch, those, method, "none", "clean", clean, judge_not_lower(clean)))
    loss = between(those, "cdt", "none", clean_values)
    return [*parts, made(arch, those, "cdt", "none", "clean", loss, judge_lower(loss))]


def n3(arch: str, those: Lines) -> list[Part]:
    parts = []
    for method in ("in_ninr_decay", "in_ninr_catapult"):
        noisy = between(those, method, "cdt", lambda line: line.at([CDT_NOISE]))
        clean = between(those, "cdt", method, clean_values)
        parts.append(made(arch, those, method, "cdt", f"σ_noise = {CDT_NOISE}", noisy, judge_alike(noisy)))
        parts.append(made(arch, those, "cdt", method, "clean", clean, judge_lower(clean)))
    return parts


def n4(arch: str, those: Lines) -> list[Part]:
    intervals = {method: between(those, method, "none", clean_values) for method in (*DECAY, "l2", "dropout")}
    adjusted = holm([interval.p for interval in intervals.values()])
    parts = []
    for (method, interval), p in zip(intervals.items(), adjusted, strict=True):
        words = ""
        if not math.isnan(p):
            inside = "within" if interval.wholly_inside(1) else "not wholly within"
            words = f"{'significant' if p < 0.05 else 'not significant'} (Holm's p = {p:.2g}), {inside} ±1 point"
        parts.append(made(arch, those, method, "none", "clean", interval, judge_unchanged(interval, p), words))
    return parts


def n5(arch: str, those: Lines, history: pd.DataFrame | None) -> list[Part]:
    if history is None or history.empty:
        reason = "no history of test accuracy in the rows"
        return [Part(arch, "clean loss", None, None, None, (0, 0), False, UNDER_POWERED, reason)]
    courses = {method: course(line, history) for method, line in those.items()}
    plain, parts = courses.get("none", {}), []
    for method in CATAPULT:
        long = {seed: c for seed, c in courses.get(method, {}).items() if c[2] > EARLY_EPOCH}
        shrinking = difference({s: end - early for s, (early, end, _) in long.items()}, gains(plain))
        gaps = [difference({s: c[i] for s, c in plain.items()}, {s: c[i] for s, c in long.items()}) for i in (0, 1)]
        verdict = judge_greater(shrinking, shrinking.p)
        if verdict == REPRODUCED and gaps[0].difference <= 0:
            verdict = INCONCLUSIVE
        words = f"loss {gaps[0].difference:.2f} at epoch {EARLY_EPOCH}, {gaps[1].difference:.2f} at the end"
        words = "" if math.isnan(shrinking.difference) else words
        parts.append(made(arch, those, method, "none", f"gain after epoch {EARLY_EPOCH}", shrinking, verdict, words))
    return parts


def gains(courses: Mapping[int, tuple[float, float, int]]) -> dict[int, float]:
    return {seed: end - early for seed, (early, end, _) in courses.items()}


def course(line: Line, history: pd.DataFrame) -> dict[int, tuple[float, float, int]]:
    """By seed: clean test accuracy (%) at `EARLY_EPOCH`, or the last one before it; at the end; the last epoch."""
    seeds = dict(zip(line.runs["key"], line.runs["seed"], strict=True))
    known = history[history["key"].isin(list(seeds)) & history["test_accuracy"].notna()].sort_values("epoch")
    found = {}
    for key, run in known.groupby("key"):
        early = run[run["epoch"] <= EARLY_EPOCH]
        if len(early):
            last = run.iloc[-1]
            values = (100 * early["test_accuracy"].iloc[-1], 100 * last["test_accuracy"], int(last["epoch"]))
            found[int(seeds[key])] = values
    return found


def clean_values(line: Line) -> Mapping[int, float]:
    return line.clean


def at_large_noise(those: Lines) -> Values:
    """Mean accuracy over the strengths of `LARGE_NOISE` that every method of the architecture was evaluated at."""
    grids = [{round(float(s), 6) for s in line.curve.columns} for line in those.values() if len(line.curve)]
    low, high = LARGE_NOISE
    shared = sorted(set.intersection(*grids)) if grids else []
    sigmas = [s for s in shared if low - SAME_STRENGTH <= s <= high + SAME_STRENGTH]
    return lambda line: line.at(sigmas)


def between(those: Lines, first: str, second: str, values: Values) -> Interval:
    """first - second; NaN where a method has no runs."""
    a, b = (values(those[method]) if method in those else {} for method in (first, second))
    return difference(a, b)


def made(
    arch: str, those: Lines, first: str, second: str, where: str, interval: Interval, verdict: str, words: str = ""
) -> Part:
    """The part, with a remark on what weakens it: diverged runs, too few runs. Not judged where a method has no rows."""
    comparison = f"{label(first)} − {label(second)}, {where}"
    missing = [label(method) for method in (first, second) if method not in those]
    if missing:
        return absent(arch, comparison, " and ".join(missing))
    remarks = [words] if words else []
    for method in (first, second):
        if those[method].tally():
            remarks.append(f"{label(method)}: {those[method].account()}")
    if min(interval.n) < MIN_RUNS and not remarks:
        remarks.append(f"fewer than {MIN_RUNS} runs with this number")
    return part(arch, comparison, interval, verdict, "; ".join(remarks))
