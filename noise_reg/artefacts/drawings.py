"""Figs 1, 4 and 5 of the NINR paper: kinds of perturbation, the two topologies of a noise injection node, the toy network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.verdicts import Verdict

SOURCE = "Noise Injection Node Regularization for Robust Learning, Figs 1, 4 and 5"
TABLES = ("points", "grid", "layers", "mask")
NODE, INK, GREY = "#D55E00", "#222222", "#777777"
BLUE, GREEN, RED = "#0072B2", "#009E73", "#C23B22"
CORRUPTION = 0.3  # radius of the circles
SHIFT = (0.5, 0.45)


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig1, fig4 and fig5 as .png, .svg and .md under `out`; nothing to judge."""
    save_figure(out, "fig1", perturbations(tables["points"], tables["grid"]))
    save_text(out, "fig1.md", markdown.document("# Fig. 1: kinds of perturbation", FIG_1))
    save_figure(out, "fig4", topologies(tables["layers"], tables["mask"]))
    rows = [[str(v) for v in row.values()] for row in tables["layers"].fillna("").to_dict("records")]
    layers = markdown.table(["network", "layer", "kind", "inputs", "outputs", "W_NI"], rows)
    save_text(
        out,
        "fig4.md",
        markdown.document("# Fig. 4: a noise injection node in a dense layer and in a CNN", FIG_4, layers),
    )
    save_figure(out, "fig5", toy_network())
    save_text(out, "fig5.md", markdown.document("# Fig. 5: the toy network of appendix B", FIG_5))
    return []


FIG_1 = (
    "Two moons and the boundary of a network (2-32-32-2) that was trained on them. Red circles: training inputs corrupted by noise; "
    "grey arrow: an adversarial attack, up the gradient of the loss to the nearest boundary; blue: test points between the "
    "training points (generalisation); green: the same test points after a shift of their domain."
)
FIG_4 = (
    "Left: a node appends one noisy input ε to a representation; its weights W_NI are one more column of the next layer. Right: for "
    "images, W_NI has the image's shape, here that of a small CNN at its initialisation, and x + ε W_NI enters the convolution. The "
    "table lists where the nodes of the paper's networks are, as the model objects have them."
)
FIG_5 = "x → w⁽⁰⁾ → z, to which ε w_NI is added, → w⁽¹⁾ → ŷ: two weights and the noise weight (Eqs 9 to 16)."


def perturbations(points: pd.DataFrame, grid: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(8.2, 6.3))
    Head("Kinds of perturbation", "Two moons; shade and line: the trained network's classes and boundary.", "").write(
        figure, 0.15
    )
    axes = figure.add_axes((0.02, 0.11, 0.96, 0.77))
    wide = grid.pivot(index="y", columns="x", values="probability")
    axes.contourf(wide.columns, wide.index, wide.to_numpy(), levels=[0, 0.5, 1], colors=["#f7e3c8", "#dbe7f3"])
    axes.contour(wide.columns, wide.index, wide.to_numpy(), levels=[0.5], colors=[INK], linewidths=1.6)
    of = {str(kind): rows for kind, rows in points.groupby("kind")}
    train, test, path = of["train"], of["test"], of["attack"]
    for label, marker in ((0, "o"), (1, "^")):
        mine, theirs = train[train["label"] == label], test[test["label"] == label].iloc[::4]
        axes.scatter(mine["x"], mine["y"], s=22, marker=marker, color=INK, label=f"training, class {label}", zorder=3)
        axes.scatter(theirs["x"], theirs["y"], s=30, marker=marker, color=BLUE, label=f"test, class {label}", zorder=4)
        moved = theirs.assign(x=theirs["x"] + SHIFT[0], y=theirs["y"] + SHIFT[1])
        axes.scatter(
            moved["x"],
            moved["y"],
            s=30,
            marker=marker,
            facecolors="none",
            edgecolors=GREEN,
            label=f"domain shift, class {label}",
            zorder=4,
        )
    for _, row in train.iloc[::20].iterrows():
        axes.add_patch(Circle((row["x"], row["y"]), CORRUPTION, fill=False, color=RED, lw=1.2, zorder=2))
    axes.plot([], [], "o", mfc="none", color=RED, ms=12, ls="", label="corrupted by noise")
    start, end = path.iloc[0], path.iloc[-1]
    axes.annotate(
        "",
        (end["x"], end["y"]),
        (start["x"], start["y"]),
        arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 2.4, "shrinkA": 0, "shrinkB": 0},
        zorder=5,
    )
    axes.plot([], [], color=GREY, lw=2.4, label="adversarial attack")
    first = test.iloc[0]
    axes.annotate(
        "",
        (first["x"] + SHIFT[0], first["y"] + SHIFT[1]),
        (first["x"], first["y"]),
        arrowprops={"arrowstyle": "-|>", "color": GREEN, "lw": 1.8, "shrinkA": 0, "shrinkB": 0},
        zorder=5,
    )
    axes.set(
        xlim=(wide.columns.min(), wide.columns.max()),
        ylim=(wide.index.min(), wide.index.max()),
        xticks=[],
        yticks=[],
        aspect="equal",
    )
    axes.plot([], [], color=GREEN, lw=1.8, label="the shift")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def topologies(layers: pd.DataFrame, mask: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(11.0, 5.4))
    Head(
        "A noise injection node in a fully connected network and in a CNN",
        "Left: four units, or three at the end, stand for as many as the number above says. Right: W_NI of a small CNN at initialisation (violet "
        f"positive, orange negative, up to {float(mask['w_ni'].abs().max()):.2g}), on an 8 × 8 digit with levels from 0 to 1.",
        "",
    ).write(figure, 0.15)
    dense = layers[layers["kind"] == "dense"].groupby("network", sort=False)
    fully = next(rows for _, rows in dense if len(rows) == 4)
    draw_dense(figure.add_axes((0.01, 0.02, 0.5, 0.82)), fully)
    levels, weights = (mask.pivot(index="row", columns="column", values=name).to_numpy() for name in ("level", "w_ni"))
    levels = levels / 255
    epsilon = 2.0
    size = float(np.abs(weights).max())
    shown = [
        (levels, "gray_r", (0, 1), "$x$"),
        (weights, "PuOr", (-size, size), r"$W_{\mathrm{NI}}$"),
        (
            levels + epsilon * weights,
            "gray_r",
            (0, 1),
            rf"$x + \epsilon\,W_{{\mathrm{{NI}}}}$, $\epsilon = {epsilon:g}$",
        ),
    ]
    for n, (values, colours, (low, high), words) in enumerate(shown):
        axes = figure.add_axes((0.53 + 0.163 * n, 0.3, 0.12, 0.3))
        axes.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(words, fontsize=11)
        if n < 2:
            figure.text(
                0.53 + 0.163 * n + 0.1415,
                0.45,
                r"$+\,\epsilon$" if n == 0 else "=",
                fontsize=16,
                ha="center",
                va="center",
            )
    figure.text(0.53, 0.2, "The sum enters the convolution; one ε for a whole image.", fontsize=9.5)
    return figure


def draw_dense(axes: Axes, layers: pd.DataFrame) -> None:
    """Columns of units; a node is one more unit in front of each layer that has one."""
    sizes = [int(layers["inputs"].iloc[0]), *(int(n) for n in layers["outputs"])]
    nodes = [*(bool(n) for n in layers["node"].fillna("")), False]
    places: list[list[tuple[float, float]]] = []
    for column, size in enumerate(sizes):
        count = 4 if column < len(sizes) - 1 else 3
        places.append([(1.6 * column, 1.0 * (row - (count - 1) / 2)) for row in range(count)])
        axes.text(1.6 * column, 2.35, f"{size}", ha="center", fontsize=10)
    for column, (here, there) in enumerate(pairwise(places)):
        sources = [*here, *([(1.6 * column, -2.7)] if nodes[column] else [])]
        for n, (x, y) in enumerate(sources):
            is_node = n == len(here)
            for ox, oy in there:
                axes.plot(
                    [x, ox],
                    [y, oy],
                    color=NODE if is_node else "#bbbbbb",
                    lw=1.3 if is_node else 0.6,
                    ls="--" if is_node else "-",
                    zorder=1,
                )
        if nodes[column]:
            axes.add_patch(Circle((1.6 * column, -2.7), 0.24, color=NODE, zorder=3))
            axes.text(1.6 * column, -2.7, r"$\epsilon$", color="white", ha="center", va="center", fontsize=11, zorder=4)
    for units in places:
        for x, y in units:
            axes.add_patch(Circle((x, y), 0.2, facecolor="white", edgecolor=INK, lw=1.2, zorder=3))
    axes.text(0.62, -2.95, r"$W_{\mathrm{NI}}$", color=NODE, fontsize=11)
    axes.set(xlim=(-0.6, 1.6 * (len(sizes) - 1) + 0.6), ylim=(-3.4, 2.8), aspect="equal")
    axes.axis("off")


def toy_network() -> Figure:
    figure = Figure(figsize=(6.4, 2.9))
    Head("The toy network of appendix B", "", "").write(figure, 0.15)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.82))
    units = {"x": (0.0, 0.0), "z": (2.4, 0.0), r"\hat{y}": (4.8, 0.0), r"\epsilon": (0.9, -1.35)}
    arrows = [
        ("x", "z", r"$w^{(0)}$", INK),
        ("z", r"\hat{y}", r"$w^{(1)}$", INK),
        (r"\epsilon", "z", r"$w_{\mathrm{NI}}$", NODE),
    ]
    for start, end, words, colour in arrows:
        (x, y), (ox, oy) = units[start], units[end]
        axes.annotate(
            "",
            (ox, oy),
            (x, y),
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 25},
        )
        axes.text(
            (x + ox) / 2, (y + oy) / 2 + (0.16 if y == oy else -0.34), words, color=colour, ha="center", fontsize=12
        )
    for name, (x, y) in units.items():
        noisy = name == r"\epsilon"
        axes.add_patch(
            Circle(
                (x, y), 0.3, facecolor=NODE if noisy else "white", edgecolor=NODE if noisy else INK, lw=1.4, zorder=3
            )
        )
        axes.text(x, y, f"${name}$", color="white" if noisy else INK, ha="center", va="center", fontsize=13, zorder=4)
    axes.set(xlim=(-0.6, 5.4), ylim=(-1.8, 0.6), aspect="equal")
    axes.axis("off")
    return figure
