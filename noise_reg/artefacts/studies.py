"""Artefacts of tables: the folder holds them as CSV, figures and a document drawn from them, verdicts.json and provenance.json.

A study is computed on the spot from settings alone, without data or trained runs; others are measured on networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noise_reg.artefacts import (
    drawings,
    label_smoothing,
    meters,
    nj,
    nj_expansion,
    nj_histogram,
    nj_questions,
    precision,
    toy,
    weight_noise,
)
from noise_reg.artefacts.folder import Kept, save_text
from noise_reg.artefacts.verdicts import Verdict
from noise_reg.errors import UserError
from noise_reg.theory import toy_tables

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class OfTables(Kept[Tables]):
    """`draw` draws the `tables` by a `context` that holds `settings`."""

    name: str
    title: str
    source: str
    tables: tuple[str, ...]
    draw: Callable[[Tables, Mapping[str, Any], Path], list[Verdict]]

    def write(self, data: Tables, context: Mapping[str, Any], folder: Path) -> None:
        for name in self.tables:
            save_text(folder, f"{name}.csv", data[name].to_csv(index=False, float_format="%.8g"))

    def contents(self, data: Tables) -> Iterator[str]:
        for name in self.tables:
            if "key" in data[name]:
                yield from (f"run {key} of {name}" for key in data[name]["key"])

    def draw_all(self, data: Tables, context: Mapping[str, Any], out: Path) -> list[Verdict]:
        return self.draw(data, context, out)

    def read(self, folder: Path) -> Tables:
        """The tables under `folder`."""
        found = {}
        for name in self.tables:
            path = folder / f"{name}.csv"
            try:
                found[name] = pd.read_csv(path)
            except FileNotFoundError:
                raise UserError(f"{path}: not found; reproduce the artefact first") from None
            except (OSError, ValueError) as error:
                raise UserError(f"{path}: cannot be read: {error}") from None
        return found


@dataclass(frozen=True)
class Study(OfTables):
    """`check` refuses impossible settings; `measure` makes the tables, by the names in `tables`."""

    check: Callable[[Mapping[str, Any]], None]
    measure: Callable[[Mapping[str, Any]], dict[str, pd.DataFrame]]


MEASURED = {
    "drawings": OfTables(
        "drawings",
        "Figs 1, 4 and 5: perturbations, topologies, the toy network",
        drawings.SOURCE,
        drawings.TABLES,
        drawings.draw,
    ),
    "label_smoothing": OfTables(
        "label_smoothing",
        "Label smoothing: confidence and calibration",
        label_smoothing.SOURCE,
        label_smoothing.TABLES,
        label_smoothing.draw,
    ),
    "meters": OfTables(
        "meters", "Section 2.1: what a noise injection node adds to the loss", meters.SOURCE, meters.TABLES, meters.draw
    ),
    "nj_table": OfTables(
        "nj_table", "N+J: test error of tanh MLPs on MNIST, MNIST-Binary and USPS", nj.SOURCE, nj.TABLES, nj.draw
    ),
    "nj_expansion": OfTables(
        "nj_expansion",
        "N+J: what noise in the Jacobian's input adds",
        nj_expansion.SOURCE,
        nj_expansion.TABLES,
        nj_expansion.draw,
    ),
    "nj_questions": OfTables(
        "nj_questions",
        "N+J: cost, strengths, losses, noises, perturbations",
        nj_questions.SOURCE,
        nj_questions.TABLES,
        nj_questions.draw,
    ),
    "nj_histogram": OfTables(
        "nj_histogram", "N+J: activations of tanh MLPs", nj.SOURCE, nj_histogram.TABLES, nj_histogram.draw
    ),
    "precision": OfTables(
        "precision", "Fast arithmetic against a reference precision", precision.SOURCE, precision.TABLES, precision.draw
    ),
    "weight_noise": OfTables(
        "weight_noise",
        "Deep Learning 7.5: weight noise as a gradient penalty",
        weight_noise.SOURCE,
        weight_noise.TABLES,
        weight_noise.draw,
    ),
}
STUDIES = {
    study.name: study
    for study in (
        Study(
            "toy",
            "Appendix B: the linear toy model",
            toy.SOURCE,
            toy_tables.TABLES,
            toy.draw,
            toy_tables.check,
            toy_tables.measure,
        ),
    )
}
