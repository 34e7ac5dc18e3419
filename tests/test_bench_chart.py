"""The benchmark's figure says every number beside its bar, and nothing covers anything else."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from noise_reg.artefacts.folder import save_figure
from noise_reg.artefacts.ratios import FILLINGS, ratio_figure
from noise_reg.bench.contenders import CONTENDERS

NOTES = [
    "Left out: (c) plain loop, each step a CUDA graph, in fc: CUDA graphs are CUDA's, the device is cpu.",
    "**busy**",
]


def made(jobs: dict[str, float]) -> pd.DataFrame:
    """Rows of every contender and floor; the contenders' ratios grow by a factor from letter to letter."""
    rows = []
    for job, factor in jobs.items():
        for place, (letter, contender) in enumerate(CONTENDERS.items()):
            rows.append((job, letter, contender.short, contender.precision, factor ** (place - 1)))
        rows += [(job, f"floor_{p}", "bare products", p, factor**6) for p in ("fp32", "bf16")]
    table = pd.DataFrame(rows, columns=["job", "contender", "short", "precision", "ratio"])
    return table.assign(runs=90, ratio_min=0.9 * table["ratio"], ratio_max=1.2 * table["ratio"])


def drawn(jobs: dict[str, float]) -> Figure:
    figure = ratio_figure(made(jobs), "Stacked training against plain loops", "cpu-2-amx: 2 threads", NOTES)
    FigureCanvasAgg(figure).draw()
    return figure


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]


@pytest.mark.parametrize("factor", [1.05, 1.5, 2.2])
def test_no_text_covers_another_or_leaves_the_figure(factor: float) -> None:
    figure = drawn({"fc": factor, "fc_10": 1.1, "digits": 1.0})
    box = figure.bbox
    shown = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    shown = [(words, extent) for words, extent in shown if extent.width > 0]
    for words, extent in shown:
        assert extent.x0 >= box.x0 and extent.x1 <= box.x1 and extent.y0 >= box.y0 and extent.y1 <= box.y1, words
    for (one, first), (other, second) in combinations(shown, 2):
        assert not first.overlaps(second), (one, other)


def test_every_contender_is_named_with_its_ratio_and_range_and_so_is_what_was_left_out(tmp_path: Path) -> None:
    figure = drawn({"fc": 2.0})
    words = [text.get_text() for text in texts(figure)]
    for letter, contender in CONTENDERS.items():
        assert f"({letter}) {contender.short}, {contender.precision}" in words
    assert "2.00 (1.80 to 2.40)" in words and "fc: 90 runs" in words and "busy" in words
    assert any(line.startswith("Left out: (c)") for line in words)
    assert set(FILLINGS) == set(CONTENDERS)
    save_figure(tmp_path, "chart", figure)
    assert (tmp_path / "chart.png").exists() and (tmp_path / "chart.svg").exists()


def test_bars_start_at_the_plain_loop_and_the_floor_stands_at_its_own_ratio() -> None:
    (axes,) = drawn({"fc": 2.0}).axes
    for bar, ratio in zip(axes.patches, [0.5, 1, 2, 4, 8, 16, 32], strict=True):
        left, width = bar.get_x(), bar.get_width()  # type: ignore[attr-defined]
        assert (left, left + width) == (1, pytest.approx(ratio))
    floors = [line for line in axes.lines if line.get_color() == "#8a1c00"]
    assert len(floors) == len(CONTENDERS) and all(list(line.get_xdata()) == [64, 64] for line in floors)  # type: ignore[arg-type]
