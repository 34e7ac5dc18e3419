"""Label smoothing measured: confidence, calibration and robustness by epsilon, claims L1 and L2.

`runs`, `bins` and `curve` hold fractions; everything judged is in percentage points. Values are by epsilon, then by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noise_reg.artefacts import markdown
from noise_reg.artefacts.claims import LARGE_NOISE
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.label_smoothing_figure import described, figure
from noise_reg.artefacts.lines import SAME_STRENGTH
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.statistics import (
    ALPHA,
    CONTRADICTED,
    REPRODUCED,
    UNDER_POWERED,
    Interval,
    combine,
    difference,
    holm,
    summarise,
    too_few,
    undecided,
)
from noise_reg.artefacts.verdicts import Part, Verdict, interval_text, part, size_text
from noise_reg.decimals import shortest

SOURCE = (
    "Deep Learning, section 7.5.1, as summarised in 'Noise Robustness: How Weight Perturbation Leads to Regularization'"
)
TABLES = ("runs", "bins", "curve")
LOSS = {
    "exact": "The loss is the exact one: the clamped one changes what smoothed targets ask for.",
    "clamped": "The loss clamps the probability of every class, which changes what smoothed targets ask for.",
}

COMPARED = (
    "Each ε above 0 against ε = 0: the mean difference, paired by seed (Welch where fewer than three seeds are shared), its 95 % t "
    "interval, and Holm's p over the ε above 0. A part is reproduced if the difference has the claimed sign with p < 0.05, "
    "contradicted if it has the other sign with p < 0.05; otherwise under-powered if fewer than 3 runs are there or the half-width "
    "exceeds 2 points, else inconclusive. Any contradicted part contradicts the claim."
)
L1_RULE = (
    f"Claimed: lower mean confidence on the clean test images, and a smaller share of confidences near 1. {COMPARED}"
)
OVERCONFIDENCE_RULE = f"Claimed: lower mean confidence − accuracy on the clean test images. {COMPARED}"
CALIBRATION_RULE = f"Claimed: lower expected calibration error on the clean test images, whether it is made of over- or under-confidence. {COMPARED}"
ROBUSTNESS_RULE = f"Claimed: higher accuracy, averaged over σ_noise from {LARGE_NOISE[0]:g} to {LARGE_NOISE[1]:g} of Eq. 8. {COMPARED}"

Tables = Mapping[str, pd.DataFrame]
Values = dict[float, dict[int, float]]


@dataclass(frozen=True)
class Measure:
    """One number a run; `claimed` is the sign of its change with epsilon, 0 where nothing is claimed."""

    words: str
    values: Values
    claimed: int


def draw(tables: Tables, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """label_smoothing.png, .svg, .md under `out`, and the verdicts."""
    verdicts = judge(tables, float(context["settings"]["sure"]))
    save_figure(out, "label_smoothing", figure(tables, context))
    save_text(out, "label_smoothing.md", as_markdown(tables, context, verdicts))
    return verdicts


def by_epsilon(runs: pd.DataFrame, points: pd.Series) -> Values:
    """`points` of every run; a run without one is left out, an epsilon is not."""
    found: Values = {float(epsilon): {} for epsilon in sorted(set(runs["epsilon"]))}
    for epsilon, seed, value in zip(runs["epsilon"], runs["seed"], points, strict=True):
        if math.isfinite(value):
            found[float(epsilon)][int(seed)] = float(value)
    return found


def at_large_noise(tables: Tables) -> Values:
    """Mean accuracy over the strengths within `LARGE_NOISE`."""
    low, high = LARGE_NOISE
    curve = tables["curve"]
    there = curve["sigma_noise"].between(low - SAME_STRENGTH, high + SAME_STRENGTH)
    means = pd.DataFrame(curve[there].groupby(["epsilon", "seed"], as_index=False)["accuracy"].mean())
    every: Values = {float(epsilon): {} for epsilon in sorted(set(tables["runs"]["epsilon"]))}
    return every | by_epsilon(means, 100 * means["accuracy"])


def judge(tables: Tables, sure: float) -> list[Verdict]:
    runs = tables["runs"]
    gap = 100 * (runs["confidence"] - runs["accuracy"])
    gaps = by_epsilon(runs, gap)
    confidence = Measure("mean confidence", by_epsilon(runs, 100 * runs["confidence"]), -1)
    near_one = Measure(f"share of confidences above {sure:g}", by_epsilon(runs, 100 * runs["sure"]), -1)
    over = Measure("confidence − accuracy", gaps, -1)
    error = Measure("ECE", by_epsilon(runs, 100 * runs["ece"]), -1)
    robust = Measure("accuracy at large noise", at_large_noise(tables), 1)
    return [
        verdict("L1", "Smoothed targets keep the network from confidences near 1.", L1_RULE, [confidence, near_one]),
        verdict("L2, overconfidence", "Smoothed targets make the network less overconfident.", OVERCONFIDENCE_RULE, [over]),
        verdict("L2, calibration", "Smoothed targets make its confidences better calibrated.", CALIBRATION_RULE, [error], gaps),
        verdict("L2, robustness", "Smoothed targets make it more robust to Eq. 8 noise.", ROBUSTNESS_RULE, [robust]),
    ]  # fmt: skip


def verdict(claim: str, statement: str, rule: str, measures: Sequence[Measure], gaps: Values | None = None) -> Verdict:
    found = tuple(p for measure in measures for p in parts(measure, gaps))
    return Verdict(claim, statement, combine([p.verdict for p in found]), found, rule)


def parts(measure: Measure, gaps: Values | None = None) -> list[Part]:
    """Every epsilon above 0 against 0. With `gaps` (confidence − accuracy) the remark says what the error is made of."""
    before = summarise(list(measure.values[0.0].values())).mean
    found = []
    for epsilon, (interval, p) in compared(measure.values).items():
        after = summarise(list(measure.values[epsilon].values())).mean
        remark = f"{before:.2f} → {after:.2f}, Holm's p = {p:.2g}".replace("-", "−")
        if gaps is not None:
            remark += f"; {leaning(summarise(list(gaps[epsilon].values())).mean)}"
        remark = remark if interval.n != (0, 0) and math.isfinite(after - before) else "no runs to compare"
        words = f"{measure.words}, ε − (ε = 0)"
        found.append(part(f"ε = {shortest(epsilon)}", words, interval, judged(interval, p, measure.claimed), remark))
    return found


def compared(values: Values) -> dict[float, tuple[Interval, float]]:
    """By epsilon above 0: the interval of its difference to 0, and Holm's p."""
    intervals = {epsilon: difference(of, values[0.0]) for epsilon, of in values.items() if epsilon > 0}
    adjusted = holm([interval.p for interval in intervals.values()])
    return {epsilon: (intervals[epsilon], p) for epsilon, p in zip(intervals, adjusted, strict=True)}


def judged(interval: Interval, p_adjusted: float, claimed: int) -> str:
    """By `COMPARED`."""
    if too_few(interval):
        return UNDER_POWERED
    if p_adjusted < ALPHA:
        return REPRODUCED if claimed * interval.difference > 0 else CONTRADICTED
    return undecided(interval)


def leaning(gap: float) -> str:
    """'under-confident by 4.20 points', of confidence − accuracy in points."""
    return f"{'over' if gap > 0 else 'under'}-confident by {abs(gap):.2f} points"


def as_markdown(tables: Tables, context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    runs, settings = tables["runs"], context["settings"]
    caption = (
        f"{dataset_name(context['dataset'])}, {described(context)}. Mean ± 2 standard deviations over n runs of clean test "
        f"images; NLL against the hard labels; ECE with {settings['bins']} bins of equal width (biased upwards in a finite sample, "
        f"alike for every ε). {LOSS[context['reading']['loss']]} The text gives no such numbers."
    )
    header = [
        "ε",
        "n",
        "training accuracy (%)",
        "accuracy (%)",
        "NLL (nats)",
        "mean confidence (%)",
        "confidence − accuracy",
        "ECE (%)",
    ]
    header.append(f"confidences above {settings['sure']:g} (%)")
    columns = {
        "train_accuracy": 100 * runs["train_accuracy"],
        "accuracy": 100 * runs["accuracy"],
        "nll": runs["nll"],
        "confidence": 100 * runs["confidence"],
        "gap": 100 * (runs["confidence"] - runs["accuracy"]),
        "ece": 100 * runs["ece"],
        "sure": 100 * runs["sure"],
    }
    values = {name: by_epsilon(runs, of) for name, of in columns.items()}
    body = [
        [
            f"{shortest(epsilon)}",
            str(len(values["ece"][epsilon])),
            *(spread(values[name][epsilon], name) for name in columns),
        ]
        for epsilon in values["ece"]
    ]
    claimed = [
        [v.claim, p.arch, p.comparison, interval_text(p), size_text(p), p.verdict, p.remark]
        for v in verdicts
        for p in v.numbers
    ]
    return markdown.document(
        "# Label smoothing: confidence, calibration, robustness",
        caption,
        markdown.scale_note(context),
        absent(runs),
        markdown.table(header, body),
        in_words(values["ece"], values["gap"]),
        "## Claims",
        claims(verdicts),
        markdown.table(
            ["claim", "ε", "comparison", "difference in points [95 % interval]", "runs", "verdict", "remark"], claimed
        ),
        "\n".join([*(f"- {v.claim}: {v.rule.removesuffix(COMPARED).strip()}" for v in verdicts), f"- All: {COMPARED}"]),
        "## For information",
        "Nothing is claimed of these, so nothing is judged.",
        information(values["accuracy"], values["nll"]),
    )


def claims(verdicts: Sequence[Verdict]) -> str:
    """The verdict on every claim, and on each epsilon of it."""
    body = []
    for v in verdicts:
        each = {p.arch: combine([q.verdict for q in v.numbers if q.arch == p.arch]) for p in v.numbers}
        body.append([v.claim, v.statement, v.verdict, ", ".join(f"{epsilon} {word}" for epsilon, word in each.items())])
    return markdown.table(["claim", "statement", "verdict", "by ε"], body)


def spread(of: Mapping[int, float], name: str) -> str:
    """'88.10 ± 0.24', with three digits for nats."""
    summary, digits = summarise(list(of.values())), 3 if name == "nll" else 2
    if not summary.n:
        return "–"
    reach = "" if math.isnan(summary.sd) else f" ± {2 * summary.sd:.{digits}f}"
    return f"{summary.mean:.{digits}f}{reach}".replace("-", "−")


def absent(runs: pd.DataFrame) -> str:
    """Which runs did not complete; they are in no number."""
    gone = runs[runs["status"] != "completed"]
    if gone.empty:
        return ""
    names = (f"ε = {shortest(r['epsilon'])}, seed {r['seed']} ({r['status']})" for r in gone.to_dict("records"))
    return f"Without these runs: {'; '.join(names)}."


def in_words(errors: Values, gaps: Values) -> str:
    """Where the calibration error is least, and which epsilon make the network under-confident."""
    means = {epsilon: summarise(list(of.values())).mean for epsilon, of in errors.items() if of}
    if not means:
        return ""
    best = min(means, key=lambda epsilon: means[epsilon])
    under = [f"{shortest(e)}" for e, of in gaps.items() if of and summarise(list(of.values())).mean < 0]
    words = f"ECE is least at ε = {shortest(best)} ({means[best]:.2f} %). "
    if not under:
        return words + "The network is over-confident at every ε."
    return words + f"The network is under-confident, its mean confidence below its accuracy, at ε = {', '.join(under)}."


def information(accuracy: Values, nll: Values) -> str:
    """Differences to epsilon = 0 of clean accuracy and likelihood."""
    body = []
    for words, of, digits in (("clean accuracy (points)", accuracy, 2), ("NLL (nats)", nll, 3)):
        for epsilon, (interval, p) in compared(of).items():
            numbers = (interval.difference, interval.low, interval.high)
            middle, low, high = (f"{v:+.{digits}f}".replace("-", "−") for v in numbers)
            body.append([words, f"{shortest(epsilon)}", f"{middle} [{low}, {high}]", f"{p:.2g}".replace("-", "−")])
    return markdown.table(["measure", "ε", "difference to ε = 0 [95 % interval]", "Holm's p"], body)
