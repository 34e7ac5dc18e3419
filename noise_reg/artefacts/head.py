"""The words above a figure: title, what it was drawn from, and what is below the paper's scale; wrapped to fit."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

CHARACTERS_AN_INCH = 14  # of 9 point text, cautiously
LINE = 0.21  # inches
INK, WARNING = "#333333", "#8a1c00"


@dataclass(frozen=True)
class Head:
    title: str
    under: str
    below_paper_scale: str

    def lines(self, width: float) -> list[tuple[str, str, str]]:
        """(text, colour, weight) of each line under the title, for a figure `width` inches wide."""
        limit = int(width * CHARACTERS_AN_INCH)
        plain = [(line, INK, "normal") for line in textwrap.wrap(self.under, limit)]
        warning = f"Below paper scale: {self.below_paper_scale}" if self.below_paper_scale else ""
        return plain + [(line, WARNING, "bold") for line in textwrap.wrap(warning, int(0.85 * limit))]

    def height(self, width: float) -> float:
        """Inches from the figure's top to below the last line."""
        return 0.4 + LINE * len(self.lines(width))

    def write(self, figure: Figure, left: float) -> None:
        """Draw from `left` inches on; the figure must have its final size."""
        width, height = figure.get_size_inches()
        figure.text(left / width, 1 - 0.12 / height, self.title, va="top", fontsize=12.5, fontweight="bold")
        for i, (text, colour, weight) in enumerate(self.lines(width - left)):
            up = 1 - (0.4 + LINE * i) / height
            figure.text(left / width, up, text, va="top", fontsize=9, color=colour, fontweight=weight)


def two_columns(
    head: Head,
    count: int,
    draw: Callable[[Axes, int], None],
    *,
    each: float,
    xlabel: str,
    ylabel: str = "",
    under: float = 0.0,
) -> Figure:
    """`count` panels in two columns, the nth drawn by `draw(axes, n)`, each `each` inches high; `under` inches below the head are
    left free for a legend."""
    width, rows = 10.5, -(-count // 2)
    top = head.height(width) + 0.3 + under
    height = top + 0.25 + each * rows
    figure = Figure(figsize=(width, height))
    place = {"left": 0.09, "right": 0.975, "bottom": 0.62 / height, "top": 1 - top / height}
    axes = figure.subplots(rows, 2, squeeze=False, gridspec_kw={**place, "hspace": 0.45, "wspace": 0.26})
    head.write(figure, 0.15)
    for n, axis in enumerate(axes.flat):
        if n < count:
            draw(axis, n)
        else:
            axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    return figure
