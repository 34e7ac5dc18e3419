"""Table 2 of the NINR paper: accuracy on clean test data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noise_reg.artefacts.lines import lines
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.numbers import Subject, draw_numbers
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.verdicts import Verdict

SOURCE = "Noise Injection Node Regularization for Robust Learning, Table 2"


def subject(context: Mapping[str, Any]) -> Subject:
    what = f"clean test data of {dataset_name(context['dataset'])}"
    return Subject("table2", "table_2", "Accuracy on clean test data", what, "clean test")


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """table2.md, .csv, .png, .svg under `out`, and a verdict on every number that the paper prints."""
    return draw_numbers(subject(context), lines(rows), context, out)
