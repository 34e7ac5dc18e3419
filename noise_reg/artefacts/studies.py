"""Studies: artefacts of numbers that are computed on the spot, from settings alone, without data or trained runs.

A study's folder holds its tables as CSV, a figure and a table drawn from them, verdicts.json and provenance.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noise_reg.artefacts import toy
from noise_reg.artefacts.folder import save_json, save_text, save_verdicts
from noise_reg.artefacts.verdicts import Verdict
from noise_reg.errors import UserError

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Study:
    """`check` refuses impossible settings; `measure` makes the tables, by the names in `tables`; `draw` draws them."""

    name: str
    title: str
    source: str
    tables: tuple[str, ...]
    check: Callable[[Mapping[str, Any]], None]
    measure: Callable[[Mapping[str, Any]], dict[str, pd.DataFrame]]
    draw: Callable[[Tables, Mapping[str, Any], Path], list[Verdict]]

    def build(self, tables: Tables, context: Mapping[str, Any], out: Path) -> list[Verdict]:
        """Tables, figure, verdicts.json and, last, provenance.json under `out`; `context` must hold `settings`."""
        for name in self.tables:
            save_text(out, f"{name}.csv", tables[name].to_csv(index=False, float_format="%.8g"))
        verdicts = self.draw(self.read(out), context, out)  # from what was written, so that redrawing cannot differ
        save_verdicts(out, verdicts)
        save_json(out, "provenance.json", {**context, "artefact": self.name})
        return verdicts

    def read(self, folder: Path) -> dict[str, pd.DataFrame]:
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


STUDIES = {
    study.name: study
    for study in (
        Study("toy", "Appendix B: the linear toy model", toy.SOURCE, toy.TABLES, toy.check, toy.measure, toy.draw),
    )
}
