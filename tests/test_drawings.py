"""Figs 1, 4 and 5 are drawn from the code's own objects, and again from their tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from noise_reg.artefacts import redraw
from noise_reg.drawings import draw
from noise_reg.spec import SpecError
from tests.composed import composed


def test_they_are_drawn_from_networks_and_redrawn_from_tables(tmp_path: Path) -> None:
    with composed("drawings", f"results={tmp_path}", "name=small", "points=60", "grid=20") as cfg:
        draw(cfg)
    folder = tmp_path / "drawings-small"
    made = {f"fig{n}.{ending}" for n in (1, 4, 5) for ending in ("png", "svg", "md")}
    assert made <= {path.name for path in folder.iterdir()}
    assert str(tmp_path) not in (folder / "provenance.json").read_text()
    layers = pd.read_csv(folder / "layers.csv")
    cnn = layers[layers["network"] == "full-NINR, CNN"]
    assert cnn["node"].tolist() == [
        "1 × 28 × 28",
        "32 × 14 × 14",
        "2048",
        "10",
    ]  # W_NI: the image's shape, or one a unit
    assert layers[layers["network"] == "full-NINR, FC"]["node"].tolist() == ["1024", "1024", "1024", "10"]
    points = pd.read_csv(folder / "points.csv")
    assert {"train", "test", "attack"} == set(points["kind"]) and (points["kind"] == "attack").sum() > 1
    before = (folder / "fig4.svg").read_bytes()
    assert redraw(folder) == [] and (folder / "fig4.svg").read_bytes() == before


def test_too_few_points_are_named() -> None:
    with composed("drawings", "points=3") as cfg, pytest.raises(SpecError, match="points = 3: must be a whole number"):
        draw(cfg)
