"""Panels of accuracy against the strength of a corruption: mean, band and a legend that reads without colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noise_reg.artefacts.head import INK, Head
from noise_reg.artefacts.lines import Line
from noise_reg.artefacts.methods import METHODS, Style, rank, styles
from noise_reg.artefacts.statistics import Summary

SPREADS = {"runs": "2 standard deviations over runs", "mean": "2 standard deviations of the mean"}
PANEL = (5.6, 4.2)  # inches, axes only
LEGEND_ROW, NOTE_ROW = 0.18, 0.18


@dataclass(frozen=True)
class Panel:
    """`beside`: printed numbers at strength 0 by method, drawn hollow to the left of it."""

    title: str
    lines: Sequence[Line]
    beside: Mapping[str, Summary] = field(default_factory=dict)


@dataclass(frozen=True)
class Words:
    """`beside`: the legend's name for the panels' `beside` marks; `notes`: lines at the foot."""

    head: Head
    x_label: str
    beside: str
    notes: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """Where things stand, in inches; `share` turns them into the figure's fractions."""

    panels: int
    legend_rows: int
    notes: int
    head: Head
    left: float = 0.7
    gap: float = 0.35
    right: float = 0.2

    @property
    def panel_width(self) -> float:
        return PANEL[0] + (1.0 if self.panels == 1 else 0.0)  # one panel alone must be as wide as its legend

    @property
    def width(self) -> float:
        return self.left + self.panels * self.panel_width + (self.panels - 1) * self.gap + self.right

    @property
    def foot(self) -> float:
        return 0.7 + LEGEND_ROW * self.legend_rows + NOTE_ROW * self.notes

    @property
    def height(self) -> float:
        return self.head.height(self.width - self.left) + 0.35 + PANEL[1] + self.foot

    def share(self, x: float, y: float) -> tuple[float, float]:
        return x / self.width, y / self.height

    def panel_box(self, i: int) -> tuple[float, float, float, float]:
        corner = self.share(self.left + i * (self.panel_width + self.gap), self.foot)
        return (*corner, *self.share(self.panel_width, PANEL[1]))


def half_band(summary: Summary, spread: str) -> float:
    """Half the band's width: 2 s.d. over runs, or of the mean; NaN for a single run."""
    return 2 * {"runs": summary.sd, "mean": summary.standard_error}[spread]


def accuracy_figure(panels: Sequence[Panel], words: Words, spread: str) -> Figure:
    """Panels side by side on one accuracy axis, the legend under them row by row."""
    style = styles(line.method for panel in panels for line in panel.lines)
    handles = legend_handles(panels, style, words.beside)
    columns = 5 if len(panels) > 1 else 3
    layout = Layout(len(panels), math.ceil(len(handles) / columns), len(words.notes), words.head)
    figure = Figure(figsize=(layout.width, layout.height))
    low = lowest(panels, spread)
    for i, panel in enumerate(panels):
        axes = figure.add_axes(layout.panel_box(i))
        draw_panel(axes, panel, style, spread)
        axes.set(ylim=(low, 100), xlabel=words.x_label, ylabel="" if i else "test accuracy (%)")
        axes.tick_params(labelleft=i == 0)
    words.head.write(figure, layout.left)
    for i, note in enumerate(words.notes):
        up = NOTE_ROW * (len(words.notes) - i) + 0.06
        figure.text(*layout.share(layout.left, up), note, va="top", fontsize=8, color=INK)
    figure.legend(
        handles=row_by_row(handles, columns),
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=layout.share(layout.left - 0.05, layout.foot - 0.5),
        frameon=False,
        fontsize=8.5,
        handlelength=3.6,
        columnspacing=1.6,
        borderaxespad=0,
    )
    return figure


def draw_panel(axes: Axes, panel: Panel, style: Mapping[str, Style], spread: str) -> None:
    for line in panel.lines:
        draw_line(axes, line, style[line.method], spread)
    step = 0.011
    for i, method in enumerate(sorted(panel.beside, key=lambda m: rank(m, METHODS))):
        printed, look = panel.beside[method], style[method]
        axes.errorbar(
            -0.018 - step * (len(panel.beside) - 1 - i),
            printed.mean,
            yerr=2 * printed.sd,
            fmt=look.marker,
            color=look.colour,
            markerfacecolor="white",
            markersize=5,
            elinewidth=0.9,
            zorder=3,
        )
    if panel.beside:
        axes.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
        middle = -0.018 - step * (len(panel.beside) - 1) / 2
        axes.text(middle, 0.985, "paper", transform=axes.get_xaxis_transform(), va="top", ha="center", fontsize=8)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_line(axes: Axes, line: Line, look: Style, spread: str) -> None:
    """Mean and band of one line; a second reading is thin and has no band."""
    known = {sigma: s for sigma, s in line.summaries().items() if s.n}
    x, mean = list(known), [s.mean for s in known.values()]
    axes.plot(x, mean, **looks(look, line.reading))
    reach = [half_band(s, spread) for s in known.values()]
    if not line.reading and known and not math.isnan(reach[0]):
        low, high = ([m + sign * r for m, r in zip(mean, reach, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0, zorder=1)


def looks(look: Style, reading: str) -> dict[str, Any]:
    return {
        "color": look.colour,
        "linestyle": look.dash,
        "linewidth": 0.8 if reading else 1.7,
        "marker": look.marker,
        "markersize": 3.5 if reading else 5.5,
        "markerfacecolor": look.colour if look.filled and not reading else "white",
        "zorder": 2,
    }


def legend_handles(panels: Sequence[Panel], style: Mapping[str, Style], beside: str) -> list[Artist]:
    """One entry a method and reading that is drawn somewhere, then what the hollow markers are."""
    drawn = {(x.method, x.reading): x for panel in panels for x in panel.lines if len(x.curve)}
    order = sorted(drawn, key=lambda m: (bool(m[1]), rank(m[0], METHODS), m[1]))
    handles: list[Artist] = [Line2D([], [], label=drawn[m].label, **looks(style[m[0]], m[1])) for m in order]
    if any(panel.beside for panel in panels):
        hollow = {"marker": "D", "markerfacecolor": "white", "linestyle": "none", "markersize": 5}
        handles.append(Line2D([], [], color="#333333", label=beside, **hollow))  # type: ignore[arg-type]
    return handles


def row_by_row(handles: Sequence[Artist], columns: int) -> list[Artist]:
    """Matplotlib fills a legend column by column; this order makes it read row by row."""
    rows = math.ceil(len(handles) / columns)
    padded = [*handles, *(Line2D([], [], linestyle="none", label=" ") for _ in range(rows * columns - len(handles)))]
    return [padded[row * columns + column] for column in range(columns) for row in range(rows)]


def lowest(panels: Sequence[Panel], spread: str) -> float:
    """The axis's lower end: the ten a point below the lowest band where there is signal left. At strength 1 there is none, every
    line falls to chance, and an axis that followed it would press all others together."""
    ends = [100.0]
    for line in (line for panel in panels for line in panel.lines):
        for strength, summary in line.summaries().items():
            if strength >= 1:
                continue
            reach = half_band(summary, spread)
            ends.append(summary.mean - (0 if math.isnan(reach) or line.reading else reach))
    return max(0.0, 10 * math.floor((min(e for e in ends if not math.isnan(e)) - 1) / 10))
