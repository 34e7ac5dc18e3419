"""Fast arithmetic against a reference precision: figure, tables and verdicts, from `runs` and `curve` (fractions)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.precision_figure import TITLE, described, figure
from noise_reg.artefacts.precision_pairs import (
    CLEAN,
    FATE_RULE,
    LEVEL,
    MEAN,
    Pairing,
    Place,
    Tables,
    judge,
    pairings,
    rule,
)
from noise_reg.artefacts.statistics import CONTRADICTED, REPRODUCED, UNDER_POWERED, judge_equivalent, summarise
from noise_reg.artefacts.tables import claims_table
from noise_reg.artefacts.verdicts import Verdict, interval_text, part
from noise_reg.decimals import shortest

SOURCE = "No paper: whether this repository's numbers depend on the precision they were computed in"
TABLES = ("runs", "curve")
SIGNS = {REPRODUCED: "=", CONTRADICTED: "≠", UNDER_POWERED: "?"}


def draw(tables: Tables, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """precision.png, .svg, .md under `out`, and the verdicts."""
    found = pairings(tables, context)
    verdicts = judge(found, context)
    save_figure(out, "precision", figure(found, context))
    save_text(out, "precision.md", as_markdown(tables["runs"], found, context, verdicts))
    return verdicts


def as_markdown(
    runs: pd.DataFrame, found: Sequence[Pairing], context: Mapping[str, Any], verdicts: Sequence[Verdict]
) -> str:
    settings = context["settings"]
    reference, margin = settings["reference"], float(settings["margin"])
    blocks = [caption(runs, context), markdown.scale_note(context)]
    for fast in settings["fast"]:
        of = [pairing for pairing in found if pairing.precision == fast]
        blocks += [
            f"## {fast} against {reference}",
            untrained(of),
            means_table(of),
            differences_table(of, margin),
            fates_table(of, verdicts),
        ]
    return markdown.document(
        f"# {TITLE} {reference}", *blocks, "## Claims", claims_table(verdicts), f"- Accuracies: {rule(margin)}\n- Runs that do not learn: {FATE_RULE}"
    )  # fmt: skip


def caption(runs: pd.DataFrame, context: Mapping[str, Any]) -> str:
    settings = context["settings"]
    epochs = {
        str(precision): summarise(of["epochs"].to_numpy()) for precision, of in runs.groupby("precision", sort=False)
    }
    trained = ", ".join(f"{precision} {s.mean:.1f}" for precision, s in epochs.items())
    made_on = runs.groupby("precision", sort=False)["device"].unique()
    products = "; ".join(f"{precision} {words}" for precision, words in context["products"].items())
    devices = ", ".join(f"{precision} on {' and '.join(sorted(of))}" for precision, of in made_on.items())
    return (
        f"{dataset_name(context['dataset'])}, {described(context)}. Accuracies in % on the test images, clean, under Eq. 8 (σ), and "
        "as a mean over all strengths with the clean one among them. Mean ± 2 standard deviations over the runs that learned in both "
        f"precisions; differences in points with their {100 * LEVEL:g} % t interval, paired by seed: `=` wholly within ±{settings['margin']:g} points, `≠` wholly outside, `?` neither, or fewer than 3 pairs. "
        f"Each run is evaluated in the precision of its training. Products: {products}. Trained: {devices}; mean epochs: {trained}."
    )


def untrained(found: Sequence[Pairing]) -> str:
    """Methods that are not compared."""
    gone = ", ".join(pairing.name for pairing in found if not pairing.trains)
    return f"No run learned in either precision, so accuracies are not compared: {gone}." if gone else ""


def means_table(found: Sequence[Pairing]) -> str:
    """Accuracies of the pairs, clean and as the mean over the curve."""
    fast, reference = found[0].precision, found[0].reference.reading
    header = ["method", "pairs", *(f"{p}, {w}" for w in ("clean", "mean over σ") for p in (reference, fast))]
    body = []
    for pairing in found:
        cells = [spread(pairing.accuracies(line, place)) for place in (CLEAN, MEAN) for line in (pairing.reference, pairing.fast)]  # fmt: skip
        body.append([pairing.name, str(len(pairing.seeds)), *cells])
    return markdown.table(header, body)


def spread(values: Mapping[int, float]) -> str:
    """'88.10 ± 0.24'."""
    s = summarise(list(values.values()))
    if not s.n:
        return "–"
    return f"{s.mean:.2f}" + ("" if math.isnan(s.sd) else f" ± {2 * s.sd:.2f}")


def differences_table(found: Sequence[Pairing], margin: float) -> str:
    """Fast − reference at every place, with the sign of its verdict."""
    curve = found[0].sigmas[1:]
    places: list[Place] = [CLEAN, MEAN, *curve]
    header = ["fast − reference, points", "clean", "mean over σ", *(f"σ = {shortest(sigma)}" for sigma in curve)]
    body = []
    for pairing in found:
        cells = []
        for place in places:
            interval = pairing.interval(place)
            shown = part("", "", interval, judge_equivalent(interval, margin))
            cells.append("–" if shown.difference is None else f"{interval_text(shown)} {SIGNS[shown.verdict]}")
        body.append([pairing.name, *cells])
    return markdown.table(header, body)


def fates_table(found: Sequence[Pairing], verdicts: Sequence[Verdict]) -> str:
    """What became of the runs, by method and in all."""
    fast, reference = found[0].precision, found[0].reference.reading
    (judged,) = (v for v in verdicts if v.claim == f"{fast}, runs that do not learn")
    header = [
        "method",
        "runs",
        f"{reference}: did not learn",
        f"{fast}: did not learn",
        "the same seeds",
        "verdict",
        "remark",
    ]
    body = []
    for pairing, p in zip(found, judged.numbers, strict=True):
        counts = [str(line.count - len(line.trained)) for line in (pairing.reference, pairing.fast)]
        same = "yes" if pairing.reference.trained == pairing.fast.trained else "no"
        body.append([pairing.name, str(pairing.fast.count), *counts, same, p.verdict, p.remark])
    return markdown.table(header, body)
