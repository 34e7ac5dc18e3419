"""The N+J table (Rifai, Glorot, Bengio, Vincent, from a summary): test error by data set, depth and method; claims R1, R2 and R4."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import METHODS, dataset_name, rank, styles
from noise_reg.artefacts.methods import label as method_label
from noise_reg.artefacts.paper import paper_numbers
from noise_reg.artefacts.statistics import Interval, combine, difference, holm, judge_greater, student, summarise
from noise_reg.artefacts.tables import claim_block, claims_table
from noise_reg.artefacts.verdicts import Part, Verdict, interval_text, part

SOURCE = "Adding noise to the input of a model trained with a regularized objective (a summary), 'Key Results'"
TABLES, HISTOGRAM_TABLES = ("search", "runs"), ("activations",)
PLAIN, BEST = "none", "nj"
PRINTED = {"none": "mlp", "nj": "nj"}  # in paper.yaml
SATURATED, LINEAR = 0.9, 0.1  # |tanh|: above and below
RULE = (
    "Test accuracy, {who}, paired by seed, on each data set and depth. A part is reproduced if its 95 % interval lies above 0, "
    "contradicted if the difference is negative with Holm's p < 0.05 over the parts of the data set and depth, otherwise "
    "inconclusive (under-powered beyond a half-width of 2 points or below 3 runs)."
)
R1_RULE = RULE.format(who="N − MLP and J − MLP")
R2_RULE = RULE.format(who="N+J − each other method")
R4_RULE = (
    f"Per run: the share of the test images' activations with |h| > {SATURATED} (saturated) or |h| < {LINEAR} (linear), over all "
    "hidden layers, N+J − MLP, paired by seed, in percentage points: reproduced if the 95 % interval lies above 0, contradicted "
    "if the difference is negative with Holm's p < 0.05 over all data sets and depths, otherwise inconclusive (under-powered "
    "beyond a half-width of 2 points or below 3 runs)."
)
Cell = tuple[str, int]  # data set, depth
BySeed = dict[int, float]


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """nj_table.png, .svg, .md under `out`, and the verdicts on R1 and R2."""
    errors = by_cell(tables["runs"])
    verdicts = [r1(errors), r2(errors)]
    save_figure(out, "nj_table", figure(errors, context))
    save_text(out, "nj_table.md", as_markdown(tables, errors, context, verdicts))
    return verdicts


def by_cell(runs: pd.DataFrame) -> dict[Cell, dict[str, BySeed]]:
    """(data set, depth) -> method -> seed -> test error in percent, of completed runs."""
    found: dict[Cell, dict[str, BySeed]] = {}
    for row in runs.to_dict("records"):
        of = found.setdefault((str(row["dataset"]), int(row["depth"])), {}).setdefault(str(row["method"]), {})
        if row["status"] == "completed":
            of[int(row["seed"])] = 100 - 100 * float(row["test_accuracy"])
    return {cell: {m: found[cell][m] for m in sorted(found[cell], key=lambda m: rank(m, METHODS))} for cell in found}


def name_of(cell: Cell) -> str:
    return f"{dataset_name(cell[0])}, {cell[1]} hidden {'layer' if cell[1] == 1 else 'layers'}"


def label(method: str) -> str:
    return "MLP" if method == PLAIN else f"+ {method_label(method)}"


def lower(cell: Cell, methods: Mapping[str, BySeed], pairs: Sequence[tuple[str, str]]) -> list[Part]:
    """Whether the first of each pair errs less: parts in points of accuracy."""
    intervals = [difference(methods.get(second, {}), methods.get(first, {})) for first, second in pairs]
    adjusted = holm([interval.p for interval in intervals])
    return [
        part(name_of(cell), f"{label(first)} − {label(second)}, accuracy", interval, judge_greater(interval, p))
        for (first, second), interval, p in zip(pairs, intervals, adjusted, strict=True)
    ]


def r1(errors: Mapping[Cell, Mapping[str, BySeed]]) -> Verdict:
    pairs = [("input_noise", PLAIN), ("jacobian", PLAIN)]
    parts = [p for cell, methods in errors.items() for p in lower(cell, methods, pairs)]
    statement = "Input noise alone and the Jacobian penalty alone each beat the plain MLP."
    return verdict("R1", statement, parts, R1_RULE, errors)


def r2(errors: Mapping[Cell, Mapping[str, BySeed]]) -> Verdict:
    parts = [
        p
        for cell, methods in errors.items()
        for p in lower(cell, methods, [(BEST, rival) for rival in methods if rival != BEST])
    ]
    return verdict("R2", "N+J is best on all three data sets.", parts, R2_RULE, errors)


def verdict(claim: str, statement: str, parts: Sequence[Part], rule: str, cells: Iterable[Cell]) -> Verdict:
    there = {dataset for dataset, _ in cells}
    absent = [dataset_name(d) for d in paper_numbers()["noise_jacobian"]["test_error"]["values"] if d not in there]
    note = f"without {' and '.join(absent)}" if absent else ""
    return Verdict(claim, statement, combine([p.verdict for p in parts]), tuple(parts), rule, note)


def printed(dataset: str, method: str) -> float | None:
    values = paper_numbers()["noise_jacobian"]["test_error"]["values"].get(dataset, {})
    value = values.get(PRINTED.get(method, ""))
    return None if value is None else float(value)


def against(ours: BySeed, paper: float) -> Interval:
    """Ours minus the paper's number, which comes without spread or n: the interval is of ours alone."""
    s = summarise(list(ours.values()))
    return student(s.mean - paper, s.standard_error, s.n - 1, (s.n, 1), paired=False)


def figure(errors: Mapping[Cell, Mapping[str, BySeed]], context: Mapping[str, Any]) -> Figure:
    """A panel a data set and depth: every run, mean and 95 % interval of each method, the paper's two numbers."""
    head = Head(
        "Test error of tanh MLPs with noise and Jacobian regularisation",
        f"Dots: runs; bar: mean and its 95 % t interval; dashes: the paper's number, printed without spread. {scale(context)}",
        context["below_paper_scale"],
    )
    columns = 2
    rows = -(-len(errors) // columns)
    width = 10.5
    height = head.height(width) + 0.55 + 2.15 * rows
    made = Figure(figsize=(width, height))
    axes = made.subplots(
        rows, columns, squeeze=False,
        gridspec_kw={"left": 0.09, "right": 0.985, "bottom": 0.62 / height, "top": 1 - (head.height(width) + 0.3) / height,
                     "hspace": 0.55, "wspace": 0.28},
    )  # fmt: skip
    head.write(made, 0.15)
    cells = list(errors)
    for place, axis in enumerate(axes.flat):
        if place >= len(cells):
            axis.set_axis_off()
            continue
        panel(axis, cells[place], errors[cells[place]])
    for axis in axes[-1]:
        axis.set_xlabel("test error (%)")
    return made


def panel(axis: Axes, cell: Cell, methods: Mapping[str, BySeed]) -> None:
    look = styles(methods)
    for place, (method, values) in enumerate(methods.items()):
        style, s = look[method], summarise(list(values.values()))
        axis.plot(
            list(values.values()), [place] * len(values), ls="", marker=style.marker, ms=5, color=style.colour, alpha=0.55,
            mfc=style.colour if style.filled else "none",
        )  # fmt: skip
        reach = student(s.mean, s.standard_error, s.n - 1, (s.n, s.n), paired=True) if s.n > 1 else None
        if reach is not None:
            axis.errorbar(
                s.mean, place + 0.28, xerr=s.mean - reach.low, fmt="|", color="#000000", capsize=3, lw=1.4, ms=9
            )
        value = printed(cell[0], method)
        if value is not None:
            axis.plot([value, value], [place - 0.4, place + 0.45], color="#666666", ls=(0, (3, 1.5)), lw=1.6)
    axis.set_yticks(range(len(methods)), [label(m) for m in methods])
    axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.set_title(name_of(cell), fontsize=10, loc="left")


def scale(context: Mapping[str, Any]) -> str:
    settings = context["settings"]
    return f"{settings['seeds']} runs a method, strengths chosen on validation images. Preset {context['preset']}."


def as_markdown(
    tables: Mapping[str, pd.DataFrame],
    errors: Mapping[Cell, Mapping[str, BySeed]],
    context: Mapping[str, Any],
    verdicts: Sequence[Verdict],
) -> str:
    caption = (
        f"Test error in %, mean ± standard deviation over runs (n). {scale(context)} The paper: '{SOURCE}', without spread or number "
        "of runs, whatever the depth."
    )
    body, lost = [], tables["runs"][tables["runs"]["status"] != "completed"]
    for cell, methods in errors.items():
        for method, values in methods.items():
            s, value = summarise(list(values.values())), printed(cell[0], method)
            against_paper = "–"
            if value is not None and s.n > 1:
                against_paper = interval_text(part("", "", against(values, value), ""))
            sd = "" if math.isnan(s.sd) else f" ± {s.sd:.2f}"
            ours = f"{s.mean:.2f}{sd} ({s.n})" if s.n else "–"
            body.append([name_of(cell), label(method), ours, "–" if value is None else f"{value:g}", against_paper])
    header = ["network", "method", "ours", "paper", "ours − paper [95 % interval of ours]"]
    note = f"{len(lost)} of {len(tables['runs'])} runs did not complete and are in no mean." if len(lost) else ""
    return markdown.document(
        "# Test error of tanh MLPs with noise and Jacobian regularisation",
        caption,
        f"**Below paper scale: {context['below_paper_scale']}.**" if context["below_paper_scale"] else "",
        markdown.table(header, body),
        note,
        "## Claims",
        claims_table(verdicts),
        *(claim_block(v) for v in verdicts),
        "## The search",
        f"Mean of {len(context['settings']['search_seeds'])} runs a candidate on the validation images; the test images take no part. The "
        "rate is the plain network's best and then everyone's. Chosen ones are marked *.",
        search_table(tables["search"]),
    )


def search_table(search: pd.DataFrame) -> str:
    body = []
    for (dataset, depth, method), group in search.groupby(["dataset", "depth", "method"], sort=False):
        tried = ", ".join(
            f"{row['rate'] if method == PLAIN else row['strength']:g}: {error_text(row['validation_accuracy'])}{'*' * bool(row['chosen'])}"
            for row in group.to_dict("records")
        )
        what = "rate" if method == PLAIN else "strength"
        body.append([name_of((str(dataset), int(str(depth)))), label(str(method)), what, tried])
    return markdown.table(["network", "method", "searched", "value: validation error in %"], body)


def error_text(accuracy: float) -> str:
    return "diverged" if math.isnan(accuracy) else f"{100 - 100 * accuracy:.2f}"


def draw_histogram(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """nj_histogram.png, .svg, .md under `out`, and the verdict on R4."""
    table = tables["activations"]
    densities = table.assign(counts=table["counts"].map(lambda text: np.array(json.loads(text), float)))
    verdicts = [r4(densities)]
    save_figure(out, "nj_histogram", histogram_figure(densities, context))
    save_text(out, "nj_histogram.md", histogram_markdown(densities, context, verdicts))
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


def r4(densities: pd.DataFrame) -> Verdict:
    cells = shares(densities)
    intervals = []
    for methods in cells.values():
        both = [{seed: sum(s) for seed, s in methods.get(m, {}).items()} for m in (BEST, PLAIN)]
        intervals.append(difference(*both))
    adjusted = holm([interval.p for interval in intervals])
    parts = [
        part(
            name_of(cell), f"{label(BEST)} − {label(PLAIN)}, saturated or linear", interval, judge_greater(interval, p)
        )
        for cell, interval, p in zip(cells, intervals, adjusted, strict=True)
    ]
    statement = "Regularised units sit more often in the saturated or the linear regime."
    return verdict("R4", statement, parts, R4_RULE, cells)


def histogram_figure(densities: pd.DataFrame, context: Mapping[str, Any]) -> Figure:
    head = Head(
        "Activations of tanh MLPs on test images",
        f"All hidden layers; mean over runs of the share of activations in each bin, logarithmic. {scale(context)}",
        context["below_paper_scale"],
    )
    cells = list(shares(densities))
    columns = 2
    rows = -(-len(cells) // columns)
    width = 10.5
    height = head.height(width) + 0.95 + 2.1 * rows
    made = Figure(figsize=(width, height))
    axes = made.subplots(
        rows, columns, squeeze=False,
        gridspec_kw={"left": 0.08, "right": 0.975, "bottom": 0.62 / height, "top": 1 - (head.height(width) + 0.65) / height,
                     "hspace": 0.5, "wspace": 0.18},
    )  # fmt: skip
    head.write(made, 0.15)
    names = sorted(densities["method"].unique(), key=lambda m: rank(m, METHODS))
    look = styles(names)
    for place, axis in enumerate(axes.flat):
        if place >= len(cells):
            axis.set_axis_off()
            continue
        dataset, depth = cells[place]
        of = densities[(densities["dataset"] == dataset) & (densities["depth"] == depth)]
        for method in names:
            runs = of[of["method"] == method].groupby("seed")["counts"].agg(lambda c: np.sum(np.stack(list(c)), axis=0))
            if len(runs):
                mean = np.mean([100 * c / c.sum() for c in runs], axis=0)
                style = look[method]
                axis.step(middle(len(mean)), mean, where="mid", color=style.colour, ls=style.dash, lw=1.5)
        for bound in (-SATURATED, -LINEAR, LINEAR, SATURATED):
            axis.axvline(bound, color="#bbbbbb", lw=0.7)
        axis.set(yscale="log", xlim=(-1, 1))
        axis.set_title(name_of(cells[place]), fontsize=10, loc="left")
    for axis in axes[:, 0]:
        axis.set_ylabel("% of activations")
    for axis in axes[-1]:
        axis.set_xlabel("activation")
    handles = [Line2D([], [], color=look[m].colour, ls=look[m].dash, lw=1.8, label=label(m)) for m in names]
    made.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.07, 1 - (head.height(width) + 0.02) / height), ncols=len(names),
                frameon=False, fontsize=9)  # fmt: skip
    return made


def histogram_markdown(densities: pd.DataFrame, context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
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
        f"**Below paper scale: {context['below_paper_scale']}.**" if context["below_paper_scale"] else "",
        markdown.table(header, body),
        "## Claim",
        claims_table(verdicts),
        *(claim_block(v) for v in verdicts),
    )
