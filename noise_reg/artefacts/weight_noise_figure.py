"""The figure of the weight noise study: the expansion, what it leaves, two means, flatness, lines through minima, gains over plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.statistics import Interval
from noise_reg.artefacts.weight_noise_claims import ROUNDING
from noise_reg.decimals import shortest

TITLE = "Noise on the weights, and the gradient penalty that it amounts to"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#7B3F61")
MARKERS = ("o", "s", "^", "D")
DASHES = ("-", "--", "-.", ":")
METHODS = {  # colour, dash, marker
    "plain": ("#333333", "-", "o"),
    "penalty": ("#0072B2", "--", "s"),
    "noise per sample": ("#D55E00", "-.", "^"),
    "noise per mini-batch": ("#009E73", ":", "D"),
}


def figure(
    tables: Mapping[str, pd.DataFrame],
    context: Mapping[str, Any],
    means: Sequence[tuple[str, Interval, Interval]],
    gains: Sequence[tuple[str, str, float, Interval]],
) -> Figure:
    settings = context["settings"]
    head = Head(
        f"{TITLE}: {dataset_name(context['dataset'])}",
        f"Squared error, noise N(0, η) on all weights and biases; {settings['draws']} pairs ±ε, {settings['images']} training images, fp64. "
        f"W2: {settings['seeds']} seeds, {settings['probe_draws']} pairs.",
        context["below_paper_scale"],
    )
    width = 11.0
    height = head.height(width) + 12.4
    made = Figure(figsize=(width, height))
    axes = made.subplots(
        3,
        2,
        gridspec_kw={"left": 0.1, "right": 0.985, "bottom": 0.05, "top": 12.0 / height, "hspace": 0.3, "wspace": 0.27},
    )
    head.write(made, 0.15)
    draw_ratio(axes[0, 0], tables["expansion"])
    draw_rests(axes[0, 1], tables["expansion"])
    draw_means(axes[1, 0], means)
    draw_flatness(axes[1, 1], tables["flatness"])
    draw_lines(axes[2, 0], tables["lines"])
    draw_gains(axes[2, 1], gains)
    for axis in axes.flat:
        axis.grid(color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, handlelength=3.2)
    return made


def networks(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, int]]:
    """(network, rows, its place)."""
    names = list(dict.fromkeys(table["network"]))
    return [(str(n), table[table["network"] == n], i % 4) for i, n in enumerate(names)]


def draw_ratio(axis: Axes, table: pd.DataFrame) -> None:
    epochs = sorted(set(table["epoch"]))
    for name, every, i in networks(table):
        for epoch in dict.fromkeys((epochs[0], epochs[-1])):
            rows = every[every["epoch"] == epoch]
            last = epoch == epochs[-1]
            axis.errorbar(
                rows["eta"], rows["added"] / rows["penalty"], yerr=2 * rows["added_error"] / rows["penalty"], color=COLOURS[i],
                marker=MARKERS[i], mfc=COLOURS[i] if last else "white", ls="", ms=5, lw=1, label=name if last else None,
            )  # fmt: skip
            axis.plot(
                rows["eta"], 1 + rows["rest_1"] / rows["penalty"], color=COLOURS[i], ls=DASHES[i], lw=1.3, zorder=1
            )
    axis.axhline(1, color="black", lw=0.8)
    axis.set_xscale("log")
    axis.set(xlabel="η", ylabel=r"$(\tilde{J} - J)\,/\,\eta P$")
    axis.set_title(
        f"W1. Filled: epoch {epochs[-1]}, open: epoch {epochs[0]}. Bars: 2 standard errors", fontsize=10, loc="left"
    )


def draw_rests(axis: Axes, table: pd.DataFrame) -> None:
    epoch = table["epoch"].min()
    etas, top = np.array(sorted(set(table["eta"]))), 0.0
    for name, rows, i in networks(table[table["epoch"] == epoch]):
        kinds = [("rest_1", "ηP", "white"), ("rest_2", "η(P + L)", COLOURS[i])]
        if not rows["curvature"].any():
            kinds = [("rest_2", "both", COLOURS[i])]
        for column, words, face in kinds:
            seen = rows[(rows[column] / rows["penalty"]).abs() > ROUNDING]
            top = max(top, seen[column].abs().max()) if len(seen) else top
            axis.plot(
                seen["eta"], seen[column].abs(), color=COLOURS[i], marker=MARKERS[i], mfc=face, ls=DASHES[i], ms=5, lw=1.2,
                label=f"{name}, after {words}" if len(seen) else f"{name}: 0 to rounding",
            )  # fmt: skip
        if rows["kinks"].any():
            axis.plot(rows["eta"], rows["kinks"].abs(), color="black", lw=0.9, label=f"{name}: its kinks, closed form")
    for slope in (1, 2) if top else ():
        guide = 3 * top * (etas / etas[-1]) ** slope
        axis.plot(etas, guide, color="#999999", lw=0.8)
        axis.annotate(
            f"slope {slope}", (etas[1], guide[1]), fontsize=8, color="#666666", xytext=(0, 5), textcoords="offset points", ha="center"
        )  # fmt: skip
    axis.set_yscale("log" if top else "linear")
    axis.set_xscale("log")
    axis.set(xlabel="η", ylabel=r"|what is left of $\tilde{J} - J$|")
    axis.set_title(f"W1. What the expansion leaves, epoch {epoch}", fontsize=10, loc="left")


def draw_means(axis: Axes, means: Sequence[tuple[str, Interval, Interval]]) -> None:
    for n, (_, cross, square) in enumerate(means):
        for of, up, colour, marker, words in (
            (cross, 0.15, COLOURS[0], "o", r"W3: $E[ab]\,/\,\sqrt{E[a^2]\,E[b^2]}$"),
            (square, -0.15, COLOURS[1], "s", r"W4: $E[(\epsilon^T v)^2]\,/\,\sigma^2|v|^2 - 1$"),
        ):
            axis.errorbar(
                [of.difference], [-n + up], xerr=[[of.difference - of.low], [of.high - of.difference]], color=colour, marker=marker,
                ls="", ms=5, capsize=2, label=None if n else words,
            )  # fmt: skip
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(
        [-n for n in range(len(means))], [name.replace(", epoch", "\nepoch") for name, _, _ in means], fontsize=8
    )
    axis.set_ylim(-len(means) + 0.4, 1.6)
    axis.set(xlabel="% (bars hold jointly with 95 %)")
    axis.set_title("W3 and W4: two means that the derivation takes", fontsize=10, loc="left")


def first_training(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    name = table["training"].iloc[0]
    return str(name), table[table["training"] == name]


def draw_flatness(axis: Axes, table: pd.DataFrame) -> None:
    training, table = first_training(table)
    for (method, eta), rows in table.groupby(["method", "eta"], sort=False):
        if method not in METHODS or method == "noise per mini-batch":
            continue
        colour, dash, marker = METHODS[str(method)]
        weakest = eta == min(set(table["eta"]) - {0.0})
        by = rows.assign(each=rows["added"] / rows["probe"]).groupby("probe")["each"]
        middle = by.mean()
        axis.fill_between(middle.index, by.min(), by.max(), color=colour, alpha=0.15, lw=0)
        axis.plot(
            middle.index, middle, color=colour, ls=dash, marker=marker, mfc="white" if weakest else colour, ms=5, lw=1.3,
            label=str(method) if method == "plain" else f"{method}, η = {shortest(eta)}",
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set(xlabel="η of the probe", ylabel="added to the loss, over η")
    axis.set_title(f"W2. How flat the solutions are ({training}; bands: all seeds)", fontsize=10, loc="left")


def draw_lines(axis: Axes, table: pd.DataFrame) -> None:
    training, table = first_training(table)
    strongest, count = table["eta"].max(), table["direction"].nunique()
    for method, (colour, dash, _) in METHODS.items():
        rows = table[(table["method"] == method) & table["eta"].isin([0.0, strongest])]
        if rows.empty or method == "noise per mini-batch":
            continue
        by = rows.groupby("t")["loss"]
        middle = by.mean()
        axis.fill_between(middle.index, by.quantile(0.1), by.quantile(0.9), color=colour, alpha=0.18, lw=0)
        axis.plot(middle.index, middle, color=colour, ls=dash, lw=1.6, label=method)
    axis.locator_params(axis="x", nbins=5)
    axis.set(xlabel="t: the mean over directions is the loss under noise N(0, t²)", ylabel="squared error")
    axis.set_title(
        f"Along random directions from a minimum ({training}, η = {shortest(strongest)};\nlines: mean, bands: 10 to 90 % of {count} directions)",
        fontsize=10,
        loc="left",
    )


def draw_gains(axis: Axes, gains: Sequence[tuple[str, str, float, Interval]]) -> None:
    groups = list(dict.fromkeys((training, eta) for training, _, eta, _ in gains))
    methods = list(dict.fromkeys(method for _, method, _, _ in gains))
    told = set()
    for training, method, eta, of in gains:
        colour, _, marker = METHODS[method]
        y = -groups.index((training, eta)) + 0.22 * (1 - methods.index(method))
        axis.errorbar(
            [of.difference], [y], xerr=[[of.difference - of.low], [of.high - of.difference]], color=colour, marker=marker, ls="",
            ms=5, capsize=2, label=None if method in told else method,
        )  # fmt: skip
        told.add(method)
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks([-n for n in range(len(groups))], [f"{t}\nη = {shortest(eta)}" for t, eta in groups], fontsize=8)
    axis.set_ylim(-len(groups) + 0.4, 1.2)
    axis.set(xlabel="% of plain training's (bars: 95 %)")
    axis.set_title("W2. What noise of the same η adds to the loss, less plain's", fontsize=10, loc="left")
