"""The figure of label smoothing: reliability, confidences, corruption, and error and accuracy by epsilon."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noise_reg.artefacts import markdown
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import DASH_DOT, DASHED, DOTTED, OPTIMIZERS, SOLID, Style, arch_name, dataset_name
from noise_reg.artefacts.statistics import student, summarise
from noise_reg.decimals import shortest

STYLES = (
    Style("#000000", SOLID, "x", True),
    Style("#0072B2", DASHED, "o", False),
    Style("#D55E00", DASH_DOT, "s", True),
    Style("#009E73", DOTTED, "^", False),
    Style("#CC79A7", SOLID, "D", False),
    Style("#6e6e6e", DASHED, "v", True),
)
LEAST_IN_BIN = 10  # test images of each run, for a bin to be drawn in the reliability diagram

Lines = list[tuple[float, Style]]


def described(context: Mapping[str, Any]) -> str:
    """The runs in words."""
    net, settings = context["network"], context["settings"]
    seeds = f"{markdown.counted(settings['seeds'], 'seed')} an ε"
    return (
        f"{arch_name(net['arch'])}, hidden layers of {', '.join(map(str, net['widths']))}, {OPTIMIZERS[net['optimizer']]}, η = {net['eta']:g}, "
        f"B = {net['batch']}, {net['epochs']} epochs, {context['reading']['loss']} loss, {net['precision']}; {seeds}, "
        f"preset {context['preset']}"
    )


def figure(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any]) -> Figure:
    head = Head(
        f"Label smoothing: {dataset_name(context['dataset'])}",
        f"{described(context)}. Targets 1 − ε for the class, ε/(K − 1) for each other one. Bands: 2 standard deviations over runs; "
        "bars: 95 % t interval of the mean, beside each run.",
        str(context["below_paper_scale"]),
    )
    width, left = 11.0, 0.15
    top = head.height(width - left) + 0.45
    height = top + 8.3
    made = Figure(figsize=(width, height))
    grid = made.add_gridspec(
        2, 2, left=0.075, right=0.985, bottom=0.6 / height, top=1 - (top + 0.25) / height, hspace=0.3, wspace=0.2
    )
    head.write(made, left)
    epsilons = sorted(set(tables["runs"]["epsilon"]))
    lines = [(epsilon, STYLES[i % len(STYLES)]) for i, epsilon in enumerate(epsilons)]
    draw_reliability(made.add_subplot(grid[0, 0]), tables["bins"], lines)
    draw_confidences(made.add_subplot(grid[0, 1]), tables["bins"], lines)
    draw_curve(made.add_subplot(grid[1, 0]), tables["curve"], lines)
    below = grid[1, 1].subgridspec(2, 1, hspace=0.12, height_ratios=(3, 2))
    upper = made.add_subplot(below[0])
    draw_errors(upper, tables["runs"], lines)
    draw_accuracies(made.add_subplot(below[1], sharex=upper), tables["runs"], lines)
    for axis in made.axes:
        axis.grid(color="#e6e6e6", lw=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    made.legend(
        handles=[Line2D([], [], label=f"ε = {shortest(epsilon)}", **look(style)) for epsilon, style in lines],
        loc="upper left", bbox_to_anchor=(0.06, 1 - (top - 0.42) / height), ncols=len(lines), frameon=False, fontsize=9.5,
        handlelength=4,
    )  # fmt: skip
    return made


def look(style: Style) -> dict[str, Any]:
    filling = style.colour if style.filled else "white"
    return {"color": style.colour, "ls": style.dash, "lw": 1.6, "marker": style.marker, "ms": 5.5, "mfc": filling}


def spread_over_seeds(axis: Axes, x: pd.Series, by_seed: pd.DataFrame, style: Style) -> None:
    """Mean and band of 2 standard deviations; a row a point, a column a seed."""
    mean, reach = by_seed.mean(axis=1), 2 * by_seed.std(axis=1)
    axis.plot(x, mean, **look(style))
    if by_seed.shape[1] > 1:
        axis.fill_between(x, mean - reach, mean + reach, color=style.colour, alpha=0.15, lw=0)


def draw_reliability(axis: Axes, table: pd.DataFrame, lines: Lines) -> None:
    axis.plot([0, 1], [0, 1], color="#999999", lw=1)
    axis.text(0.1, 0.13, "calibrated", rotation=45, rotation_mode="anchor", transform_rotates_text=True, color="#666666", fontsize=8.5)  # fmt: skip
    for epsilon, style in lines:
        rows = table[table["epsilon"] == epsilon]
        if rows.empty:
            continue
        count, confidence, accuracy = (
            rows.pivot(index="bin", columns="seed", values=name) for name in ("count", "confidence", "accuracy")
        )
        enough = (count >= LEAST_IN_BIN).all(axis=1)
        spread_over_seeds(axis, confidence[enough].mean(axis=1), accuracy[enough], style)
    axis.set(xlabel="mean confidence of the bin", ylabel="accuracy in the bin", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.set_title(f"Reliability (bins with ≥ {LEAST_IN_BIN} images in every run)", fontsize=10, loc="left")


def draw_confidences(axis: Axes, table: pd.DataFrame, lines: Lines) -> None:
    for epsilon, style in lines:
        rows = table[table["epsilon"] == epsilon]
        if rows.empty:
            continue
        counts = rows.pivot(index="bin", columns="seed", values="count")
        share = (100 * counts / counts.sum()).mean(axis=1)
        middles = rows.groupby("bin")[["low", "high"]].mean().mean(axis=1)
        axis.plot(middles, share.where(share > 0), drawstyle="steps-mid", **look(style))
    axis.set_yscale("log")
    axis.set(xlabel="confidence", ylabel="test images in the bin (%)", xlim=(0, 1.02))
    axis.set_title("Histogram of confidences (mean over runs)", fontsize=10, loc="left")


def draw_curve(axis: Axes, table: pd.DataFrame, lines: Lines) -> None:
    """Without strength 1, where nothing of the image is left and chance would press all lines together."""
    for epsilon, style in lines:
        rows = table[(table["epsilon"] == epsilon) & (table["sigma_noise"] < 1)]
        if len(rows):
            by_seed = 100 * rows.pivot(index="sigma_noise", columns="seed", values="accuracy")
            spread_over_seeds(axis, by_seed.index.to_series(), by_seed, style)
    axis.set(xlabel=r"$\sigma_{\mathrm{noise}}$", ylabel="test accuracy (%)")
    axis.set_title("Input corruption (Eq. 8 of the NINR paper)", fontsize=10, loc="left")


def draw_errors(axis: Axes, runs: pd.DataFrame, lines: Lines) -> None:
    gap = Style("#D55E00", DASHED, "o", False)
    axis.axhline(0, color="#999999", lw=1)
    by_epsilon(axis, runs, 100 * runs["ece"], lines, Style("#000000", SOLID, "s", True), -0.08, "ECE")
    by_epsilon(axis, runs, 100 * (runs["confidence"] - runs["accuracy"]), lines, gap, 0.08, "confidence − accuracy")
    axis.tick_params(labelbottom=False)
    axis.set(ylabel="points")
    axis.set_title("Calibration error and accuracy", fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=8.5, handlelength=3.6)


def draw_accuracies(axis: Axes, runs: pd.DataFrame, lines: Lines) -> None:
    by_epsilon(axis, runs, 100 * runs["accuracy"], lines, Style("#0072B2", DASH_DOT, "^", True), 0, "accuracy")
    axis.set(xlabel="ε", ylabel="accuracy (%)")
    axis.set_xticks(range(len(lines)), [f"{shortest(epsilon)}" for epsilon, _ in lines])


def by_epsilon(
    axis: Axes, runs: pd.DataFrame, values: pd.Series, lines: Lines, style: Style, shift: float, label: str
) -> None:
    """Mean with its 95 % t interval at each epsilon, `shift` beside its tick, and every run as a point."""
    means, reaches = [], []
    for place, (epsilon, _) in enumerate(lines):
        of = values[runs["epsilon"] == epsilon].dropna()
        summary = summarise(of.to_numpy())
        interval = student(summary.mean, summary.standard_error, summary.n - 1, (summary.n, summary.n), paired=False)
        means.append(summary.mean)
        reaches.append(0.0 if math.isnan(interval.half_width) else interval.half_width)
        axis.plot([place + shift + 0.05] * len(of), of, ls="", marker=".", ms=3, color=style.colour, alpha=0.6)
    places = [place + shift for place in range(len(lines))]
    axis.errorbar(places, means, yerr=reaches, label=label, capsize=3, elinewidth=1.2, **look(style))
