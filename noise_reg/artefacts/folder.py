"""The folder of one artefact: its rows, figures, tables, verdicts.json, and provenance.json, written last."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from noise_reg.artefacts.rows import Rows, write_atomically
from noise_reg.artefacts.verdicts import Verdict, from_json, limited, to_json
from noise_reg.errors import UserError

DPI = 160
NEEDED = ("preset", "dataset", "below_paper_scale")
Data = TypeVar("Data")


def check_context(context: Mapping[str, Any], rows: Rows) -> None:
    """`context` is what a reader must know beside the rows; the needed keys decide what figures and tables say."""
    missing = [name for name in NEEDED if name not in context]
    if missing:
        raise UserError(f"context: {missing[0]} must be given; needed are {', '.join(NEEDED)}")
    strangers = sorted(set(rows.runs["dataset"]) - {context["dataset"]})
    if strangers:
        raise UserError(f"context: dataset = {context['dataset']!r}, but the rows hold runs on {', '.join(strangers)}")


class Kept(ABC, Generic[Data]):
    """An artefact as a folder that keeps what it was drawn from. Subclasses say what that is, `Data`, and how it is drawn."""

    name: str
    title: str
    source: str

    @abstractmethod
    def write(self, data: Data, context: Mapping[str, Any], folder: Path) -> None:
        """Checks `data` against `context`, then writes it under `folder`."""

    @abstractmethod
    def read(self, folder: Path) -> Data:
        """What `write` wrote."""

    @abstractmethod
    def draw_all(self, data: Data, context: Mapping[str, Any], out: Path) -> list[Verdict]:
        """Figures and tables under `out`, and the verdicts."""

    def build(self, data: Data, context: Mapping[str, Any], out: Path) -> list[Verdict]:
        """Data, figures, tables, verdicts.json and, last, provenance.json under `out`."""
        self.write(data, context, out)
        verdicts = self.draw_all(self.read(out), context, out)  # of what was written, so that redrawing cannot differ
        verdicts = [limited(verdict, context.get("below_paper_scale", "")) for verdict in verdicts]
        save_json(out, "verdicts.json", [to_json(verdict) for verdict in verdicts])
        save_json(out, "provenance.json", {**context, "artefact": self.name})
        return verdicts

    def redraw(self, context: Mapping[str, Any], folder: Path) -> list[Verdict]:
        return self.build(self.read(folder), context, folder)


def save_text(folder: Path, name: str, text: str) -> None:
    write_atomically(folder / name, text.encode())


def save_figure(folder: Path, name: str, figure: Figure) -> None:
    """<name>.png and <name>.svg; the same figure gives the same SVG, on any day."""
    FigureCanvasAgg(figure)
    with matplotlib.rc_context({"svg.hashsalt": "noise_reg", "svg.fonttype": "path"}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            data = io.BytesIO()
            figure.savefig(data, format=ending, dpi=DPI, metadata=metadata, facecolor="white")
            write_atomically(folder / f"{name}.{ending}", data.getvalue())


def save_json(folder: Path, name: str, tree: Any) -> None:
    save_text(folder, name, json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def load_verdicts(folder: Path) -> list[Verdict]:
    path = folder / "verdicts.json"
    tree = load_json(path)
    if not isinstance(tree, list):
        raise UserError(f"{path}: a list of verdicts is needed")
    try:
        return [from_json(entry) for entry in tree]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def load_provenance(folder: Path) -> dict[str, Any]:
    path = folder / "provenance.json"
    tree = load_json(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a mapping is needed")
    return tree
