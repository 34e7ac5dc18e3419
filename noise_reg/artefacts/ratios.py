"""The benchmark's figure: how much faster than the plain loop each contender is, job by job, beside the floor.

Bars start at 1, the plain loop, on one logarithmic axis; each is named and numbered, so nothing hangs on its colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from noise_reg.artefacts import markdown
from noise_reg.artefacts.head import CHARACTERS_AN_INCH, INK, Head

FILLINGS = {  # by the contender's letter: ours strong, others pale
    "a": "#d9d9d9", "b": "#d9d9d9", "c": "#d9d9d9", "d": "#d9d9d9", "e": "#d9d9d9", "f": "#0072B2", "g": "#E69F00",
}  # fmt: skip
FINE = tuple(n * 10.0**power for power in range(-3, 4) for n in (1, 2, 5))  # ticks of an axis of at most two decades
COARSE = tuple(n * 10.0**power for power in range(-3, 4) for n in (1, 3))
FLOOR_LINE: dict[str, Any] = {"color": "#8a1c00", "linewidth": 1.6, "linestyle": (0, (2, 1.2))}
WIDTH, ROW, BETWEEN = 11.0, 0.27, 0.68  # inches: of the figure, of a bar, from panel to panel
NAMES, NUMBERS = 1.6, 1.4  # inches left and right of a panel's bars
COLUMNS = 2


def ratio_figure(table: pd.DataFrame, title: str, under: str, notes: Sequence[str]) -> Figure:
    """A panel a job of `table` (bench.report.summary): job, contender, short, precision, runs, ratio, ratio_min, ratio_max."""
    jobs = list(dict.fromkeys(table["job"]))
    head = Head(title, under, "")
    feet = [
        line
        for note in notes
        for line in textwrap.wrap(note.replace("**", "").replace("`", ""), int(1.1 * WIDTH * CHARACTERS_AN_INCH))
    ]
    panels = [table[table["job"] == job] for job in jobs]
    heights = [ROW * max(len(bars(panel)) for panel in panels[n : n + COLUMNS]) for n in range(0, len(panels), COLUMNS)]
    top, foot = head.height(WIDTH) + 0.4, 0.55 + 0.17 * len(feet)
    height = top + sum(heights) + BETWEEN * len(heights) + foot
    figure = Figure(figsize=(WIDTH, height))
    limits = limits_of(table)
    down = top
    for n, panel in enumerate(panels):
        row, column = divmod(n, COLUMNS)
        if column == 0:
            down += BETWEEN * 0.5 if row == 0 else heights[row - 1] + BETWEEN
        own = ROW * len(bars(panel))
        left = column * WIDTH / COLUMNS + NAMES
        box = (left / WIDTH, 1 - (down + own) / height, (WIDTH / COLUMNS - NAMES - NUMBERS) / WIDTH, own / height)
        draw_job(figure.add_axes(box), panel, limits)
    head.write(figure, 0.15)
    figure.legend(
        handles=legend_handles(), loc="upper left", bbox_to_anchor=(0.12 / WIDTH, 1 - (top - 0.4) / height), ncols=5,
        frameon=False, fontsize=8.5, borderaxespad=0,
    )  # fmt: skip
    figure.text(
        0.15 / WIDTH, (foot - 0.12) / height, "Times as fast as (b), the plain loop on tensors in memory", fontsize=9
    )
    for n, line in enumerate(feet):
        figure.text(0.15 / WIDTH, (foot - 0.38 - 0.17 * n) / height, line, va="top", fontsize=7.5, color=INK)
    return figure


def legend_handles() -> list[Artist]:
    return [
        Patch(facecolor=FILLINGS["f"], edgecolor=INK, label="ours, fp32"),
        Patch(facecolor=FILLINGS["g"], edgecolor=INK, label="ours, bf16 products"),
        Patch(facecolor=FILLINGS["a"], edgecolor=INK, label="others"),
        Line2D([], [], color=INK, marker="|", markersize=7, label="range over repeats"),
        Line2D([], [], label="floor: the bare products in that precision and a copy of the weights", **FLOOR_LINE),
    ]


def bars(panel: pd.DataFrame) -> pd.DataFrame:
    return panel[~panel["contender"].str.startswith("floor")]


def limits_of(table: pd.DataFrame) -> tuple[float, float]:
    """Of the common axis: everything that is drawn, with a little room."""
    return 0.8 * min(table["ratio_min"].min(), 1.0), 1.25 * max(table["ratio_max"].max(), 1.0)


def draw_job(axes: Axes, panel: pd.DataFrame, limits: tuple[float, float]) -> None:
    shown = bars(panel).reset_index(drop=True)
    floors = panel[panel["contender"].str.startswith("floor")].set_index("precision")["ratio"]
    for place, row in enumerate(shown.to_dict("records")):
        low, high = row["ratio_min"], row["ratio_max"]
        filling = FILLINGS[row["contender"]]
        axes.barh(place, row["ratio"] - 1, left=1, height=0.66, color=filling, edgecolor=INK, linewidth=0.7, zorder=2)
        axes.plot([low, high], [place, place], color=INK, marker="|", markersize=7, linewidth=1, zorder=4)
        if row["precision"] in floors:
            floor = float(floors[row["precision"]])
            axes.plot([floor, floor], [place - 0.5, place + 0.5], zorder=3, **FLOOR_LINE)
        number = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})" if row["contender"] != "b" else "1"
        axes.text(1.02, place, number, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(1, color=INK, linewidth=1, zorder=3)
    axes.set_xscale("log")
    axes.set(xlim=limits, ylim=(len(shown) - 0.5, -0.5))
    ticks = FINE if limits[1] <= 100 * limits[0] else COARSE
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if limits[0] <= tick <= limits[1]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_yticks(
        range(len(shown)), [f"({row.contender}) {row.short}, {row.precision}" for row in shown.itertuples()]
    )
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.tick_params(axis="x", labelsize=8)
    runs = int(shown["runs"].iloc[0])
    axes.set_title(f"{shown['job'].iloc[0]}: {markdown.counted(runs, 'run')}", fontsize=10, loc="left")
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
