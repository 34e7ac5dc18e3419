"""The activations of the N+J table's networks (Rifai, Glorot, Bengio, Vincent, from a summary); claim R4."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head, two_columns
from noise_reg.artefacts.methods import METHODS, layer, rank, styles
from noise_reg.artefacts.nj import BEST, PLAIN, Cell, label, name_of, scale, verdict
from noise_reg.artefacts.statistics import difference, holm, judge_greater, summarise
from noise_reg.artefacts.tables import claim_block, claims_table
from noise_reg.artefacts.verdicts import Verdict, part

TABLES = ("activations",)
SATURATED, LINEAR = 0.9, 0.1  # |tanh|: above and below
R4_RULE = (
    f"Per run: the share of the test images' activations with |h| > {SATURATED} (saturated) or |h| < {LINEAR} (linear), over all "
    "hidden layers, N+J − MLP, paired by seed, in percentage points: reproduced if the 95 % interval lies above 0, contradicted "
    "if the difference is negative with Holm's p < 0.05 over all data sets and depths, otherwise inconclusive (under-powered "
    "beyond a half-width of 2 points or below 3 runs)."
)


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """nj_histogram.png, .svg, .md under `out`, and the verdict on R4."""
    table = tables["activations"]
    densities = table.assign(counts=table["counts"].map(lambda text: np.array(json.loads(text), float)))
    verdicts = [r4(densities)]
    save_figure(out, "nj_histogram", figure(densities, context))
    save_text(out, "nj_histogram.md", as_markdown(densities, context, verdicts))
    return verdicts


def regimes(counts: np.ndarray) -> tuple[float, float]:
    """Shares (%) of saturated and of linear activations, of counts over [-1, 1]; a bin belongs where its middle is."""
    middles = np.abs(middle(len(counts)))
    return tuple(float(100 * counts[chosen].sum() / counts.sum()) for chosen in (middles > SATURATED, middles < LINEAR))  # type: ignore[return-value]


def middle(bins: int) -> np.ndarray:
    return (np.arange(bins) + 0.5) * 2 / bins - 1


def shares(densities: pd.DataFrame) -> dict[Cell, dict[str, dict[int, tuple[float, float]]]]:
    """(data set, depth) -> method -> seed -> shares (%) of saturated and of linear activations, over all hidden layers."""
    found: dict[Cell, dict[str, dict[int, tuple[float, float]]]] = {}
    for (dataset, depth, method, seed), group in densities.groupby(["dataset", "depth", "method", "seed"], sort=False):
        of = found.setdefault((str(dataset), int(str(depth))), {}).setdefault(str(method), {})
        of[int(str(seed))] = regimes(np.sum(np.stack(list(group["counts"])), axis=0))
    return found


def apart(methods: Mapping[str, Mapping[int, tuple[float, float]]], which: int, name: str) -> str:
    """'linear −2.03 points': the difference of the means of one regime alone."""
    best, plain = (summarise([s[which] for s in methods.get(m, {}).values()]).mean for m in (BEST, PLAIN))
    return f"{name} {best - plain:+.2f} points".replace("-", "−")


def r4(densities: pd.DataFrame) -> Verdict:
    cells = shares(densities)
    intervals, remarks = [], []
    for methods in cells.values():
        both = [{seed: sum(s) for seed, s in methods.get(m, {}).items()} for m in (BEST, PLAIN)]
        intervals.append(difference(*both))
        remarks.append(", ".join(apart(methods, n, regime) for n, regime in enumerate(("saturated", "linear"))))
    adjusted = holm([interval.p for interval in intervals])
    parts = [
        part(
            name_of(cell),
            f"{label(BEST)} − {label(PLAIN)}, saturated or linear",
            interval,
            judge_greater(interval, p),
            remark,
        )
        for cell, interval, p, remark in zip(cells, intervals, adjusted, remarks, strict=True)
    ]
    statement = "Regularised units sit more often in the saturated or the linear regime."
    return verdict("R4", statement, parts, R4_RULE, cells)


def figure(densities: pd.DataFrame, context: Mapping[str, Any]) -> Figure:
    head = Head(
        "Activations of tanh MLPs on test images",
        f"All hidden layers; mean over runs of the share of activations in each bin, logarithmic; grey lines: |h| = {LINEAR} and {SATURATED}. {scale(context)}",
        context["below_paper_scale"],
    )
    cells = list(shares(densities))
    names = sorted(densities["method"].unique(), key=lambda m: rank(m, METHODS))
    look = styles(names)

    def panel(axis: Axes, n: int) -> None:
        dataset, depth = cells[n]
        of = densities[(densities["dataset"] == dataset) & (densities["depth"] == depth)]
        for method in names:
            runs = of[of["method"] == method].groupby("seed")["counts"].agg(lambda c: np.sum(np.stack(list(c)), axis=0))
            if len(runs):
                mean = np.mean([100 * c / c.sum() for c in runs], axis=0)
                style = look[method]
                axis.step(middle(len(mean)), mean, where="mid", color=style.colour, ls=style.dash, **layer(style))
        for bound in (-SATURATED, -LINEAR, LINEAR, SATURATED):
            axis.axvline(bound, color="#bbbbbb", lw=0.7)
        axis.set(yscale="log", xlim=(-1, 1))
        axis.set_title(name_of(cells[n]), fontsize=10, loc="left")

    made = two_columns(head, len(cells), panel, each=2.15, xlabel="activation", ylabel="% of activations", under=0.35)
    width, height = made.get_size_inches()
    handles = [Line2D([], [], color=look[m].colour, ls=look[m].dash, label=label(m), **layer(look[m])) for m in names]
    corner = (0.08, 1 - (head.height(width) + 0.02) / height)
    made.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=len(names), frameon=False, fontsize=9)
    return made


def as_markdown(densities: pd.DataFrame, context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    body = []
    for cell, methods in shares(densities).items():
        for method, of in methods.items():
            columns = [summarise([s[n] for s in of.values()]) for n in (0, 1)]
            numbers = [f"{s.mean:.1f}" + ("" if math.isnan(s.sd) else f" ± {s.sd:.1f}") for s in columns]
            body.append([name_of(cell), label(method), *numbers, str(len(of))])
    header = ["network", "method", f"saturated, |h| > {SATURATED} (%)", f"linear, |h| < {LINEAR} (%)", "n"]
    return markdown.document(
        "# Activations of tanh MLPs on test images",
        f"Share of the hidden units' activations, mean ± standard deviation over runs. {scale(context)} The paper shows pictures only.",
        markdown.scale_note(context),
        markdown.table(header, body),
        "## Claim",
        claims_table(verdicts),
        *(claim_block(v) for v in verdicts),
    )
