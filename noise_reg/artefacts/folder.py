"""The folder of one artefact: its rows, figures, tables, verdicts.json, and provenance.json, written last."""

from __future__ import annotations

import io
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from noise_reg.artefacts.rows import Rows, write_atomically
from noise_reg.artefacts.verdicts import Verdict, from_json, limited, to_json
from noise_reg.atomic import explained, replacing_folder
from noise_reg.errors import UserError

DPI = 160
NEEDED = ("preset", "dataset")
Data = TypeVar("Data")


def check_context(context: Mapping[str, Any], rows: Rows) -> None:
    """`context` is what a reader must know beside the rows; the needed keys decide what figures and tables say."""
    missing = [name for name in NEEDED if name not in context]
    if missing:
        raise UserError(f"context: {missing[0]} must be given; needed are {', '.join(NEEDED)}")
    strangers = sorted(set(rows.runs["dataset"]) - {context["dataset"]})
    if strangers:
        raise UserError(f"context: dataset = {context['dataset']!r}, but the rows hold runs on {', '.join(strangers)}")


def is_foreign(path: Path) -> bool:
    """Whether no artefact writes such a file: notes that somebody put beside it."""
    return path.is_dir() or path.suffix not in (".csv", ".json", ".md", ".png", ".svg")


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

    def completed(self, data: Data, context: Mapping[str, Any]) -> Mapping[str, Any]:
        """`context` with what follows from the data themselves."""
        return context

    def contents(self, data: Data) -> Iterable[str]:
        """The names of what `data` holds: two folders with the same contents hold the same runs and measurements."""
        return ()

    def build(
        self,
        data: Data,
        context: Mapping[str, Any],
        out: Path,
        further: Callable[[Path], None] | None = None,
        kept: Callable[[Path], bool] = is_foreign,
    ) -> list[Verdict]:
        """The whole folder `out`: data, figures, tables, verdicts.json, provenance.json, and what `further` draws. It is drawn beside
        an older one and then takes its place, which stays as it was where that does not come to its end; of the older
        one only those files are taken over that are `kept` and have not been drawn."""
        with explained(out, "results"), replacing_folder(out) as part, named_as(part, out):
            self.write(data, context, part)
            written = self.read(part)  # what is drawn is what was written, so that redrawing cannot differ
            context = self.completed(written, context)
            verdicts = self.draw_all(written, context, part)
            verdicts = [limited(verdict, context.get("below_paper_scale", "")) for verdict in verdicts]
            save_json(part, "verdicts.json", [to_json(verdict) for verdict in verdicts])
            save_json(part, "provenance.json", {**context, "artefact": self.name})
            if further is not None:
                further(part)
            take_over(out, part, kept)
        return verdicts

    def redraw(self, context: Mapping[str, Any], folder: Path) -> list[Verdict]:
        """The folder again, from its own data; what cannot be drawn from them stays."""
        return self.build(self.read(folder), context, folder, kept=lambda path: True)

    def lost(self, data: Data, context: Mapping[str, Any], folder: Path) -> list[str]:
        """What `folder` holds and a folder of `data` would not, by name: runs, measurements, settings with other values. The problem
        itself where the folder cannot be read."""
        try:
            there = self.inventory(self.read(folder), load_provenance(folder))
        except UserError as error:
            return [str(error)] if folder.is_dir() and any(folder.iterdir()) else []
        here = self.inventory(data, context)
        return [name for name, value in there.items() if here.get(name) != value]

    def inventory(self, data: Data, context: Mapping[str, Any]) -> dict[str, str]:
        """What a folder of `data` holds, and the settings of its measurements, by name; as JSON, so that written ones compare."""
        settings = {name: context.get(name, {}) for name in ("settings", "evaluations")}
        asked = {name: json.dumps(value, sort_keys=True, default=str) for name, value in flat_leaves(settings)}
        return {**dict.fromkeys(self.contents(data), ""), **asked}


def flat_leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings with its dotted name."""
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for name, value in tree.items():
        yield from flat_leaves(value, f"{prefix}.{name}" if prefix else str(name))


@contextmanager
def named_as(part: Path, out: Path) -> Iterator[None]:
    """A user's error about a file under `part` names it as it will be called, under `out`."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(str(part), str(out))) from error


def take_over(old: Path, new: Path, kept: Callable[[Path], bool] = is_foreign) -> None:
    """Copies from the folder `old` what is `kept` and not in `new`."""
    for path in old.iterdir() if old.is_dir() else ():
        if kept(path) and not (new / path.name).exists():
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, new / path.name)


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
