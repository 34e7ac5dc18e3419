"""Rows: what an artefact is made from, as three small CSV files that are committed beside it.

runs.csv         one row a run: identity, outcome, accuracies as fractions 0..1 (empty = none)
evaluations.csv  key, evaluation, strength, accuracy: 'clean' (strength 0), 'corruption' (strength = sigma_noise, Eq. 8)
history.csv      optional: key, epoch, train_accuracy, test_accuracy, and where an artefact needs them losses and norms

Writing then reading gives back the same numbers to the last bit, and the same rows in any order give the same bytes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from noise_reg.atomic import explained, replace_file
from noise_reg.errors import UserError

STATUSES = ("completed", "diverged", "failed")
STOPS = ("accuracy", "epochs", "diverged", "")


@dataclass(frozen=True)
class Kind:
    """How one column's values are parsed from text, printed as text, and named in a message."""

    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    noun: str


def parse_number(low: float, high: float, *, optional: bool) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if optional and text.lower() in ("", "nan"):
            return math.nan
        value = float(text)
        if not low <= value <= high or math.isinf(value):
            raise ValueError
        return value

    return parse


def parse_choice(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return parse


def parse_name(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


def show_text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def show_number(value: Any) -> str:
    return "" if pd.isna(value) else repr(float(value))


def show_whole(value: Any) -> str:
    return str(int(value)) if not pd.isna(value) and float(value).is_integer() else str(value)


def parse_whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


NAME = Kind(parse_name, show_text, "a name")
TEXT = Kind(str, show_text, "text")
STATUS = Kind(parse_choice(STATUSES), show_text, f"one of {', '.join(STATUSES)}")
STOP = Kind(parse_choice(STOPS), show_text, "accuracy, epochs, diverged or empty")
WHOLE = Kind(parse_whole, show_whole, "a whole number of at least 0")
FRACTION = Kind(parse_number(0, 1, optional=True), show_number, "a fraction between 0 and 1, or empty")
AMOUNT = Kind(parse_number(0, math.inf, optional=False), show_number, "a finite number of at least 0")
REAL = Kind(lambda text: float(text or "nan"), show_number, "a number, or empty")
DURATION = Kind(parse_number(0, math.inf, optional=True), show_number, "a number of seconds of at least 0, or empty")

RUNS = {
    "key": NAME,
    "dataset": NAME,
    "arch": NAME,
    "method": NAME,
    "reading": TEXT,
    "seed": WHOLE,
    "status": STATUS,
    "stopped_by": STOP,
    "epochs": WHOLE,
    "train_accuracy": FRACTION,
    "test_accuracy": FRACTION,
    "seconds": DURATION,
    "precision": TEXT,
    "max_epochs": WHOLE,
}
EVALUATIONS = {"key": NAME, "evaluation": NAME, "strength": AMOUNT, "accuracy": FRACTION}
HISTORY = {"key": NAME, "epoch": WHOLE, "train_accuracy": FRACTION, "test_accuracy": FRACTION}
MEASURED = re.compile(r"(train|test)_loss|(weight_norm|nin_norm|nin_peak)_\d+")  # further columns of a history
TABLES = {"runs": RUNS, "evaluations": EVALUATIONS, "history": HISTORY}
UNIQUE = {
    "runs": ["key"],
    "evaluations": ["key", "evaluation", "strength"],
    "history": ["key", "epoch"],
}


@dataclass(frozen=True, eq=False)
class Rows:
    """runs, evaluations and optionally history with the columns of `RUNS`, `EVALUATIONS` and `HISTORY`.

    A run's `reading` is '' for the default reading of the paper, otherwise the words that set it apart ('exact loss');
    the column may be left out. Any further column of `runs` is carried along as text.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    history: pd.DataFrame | None = None


def write_rows(rows: Rows, folder: Path) -> None:
    """Check the rows, then write them under `folder`, each file whole or not at all."""
    texts = {name: encode(frame, TABLES[name]) for name, frame in frames(rows).items()}
    written = {name: decode(text, folder / f"{name}.csv") for name, text in texts.items()}
    check_keys(written, folder)
    for name, frame in in_order(written).items():
        write_atomically(folder / f"{name}.csv", encode(frame, TABLES[name]).encode())
    if rows.history is None:
        (folder / "history.csv").unlink(missing_ok=True)


def read_rows(folder: Path) -> Rows:
    """The rows under `folder`, checked; a UserError names file, column and line of what is wrong."""
    found = {}
    for name in TABLES:
        path = folder / f"{name}.csv"
        if name == "history" and not path.exists():
            continue
        try:
            found[name] = decode(path.read_text(encoding="utf-8-sig"), path)
        except FileNotFoundError:
            raise UserError(
                f"{path}: not found; reproduce the artefact first, or give a folder that holds it"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
    check_keys(found, folder)
    return Rows(found["runs"], found["evaluations"], found.get("history"))


def kind_of(column: str, kinds: dict[str, Kind]) -> Kind:
    """Any column that is not known is text."""
    if column in kinds:
        return kinds[column]
    return REAL if kinds is HISTORY and MEASURED.fullmatch(column) else TEXT


def frames(rows: Rows) -> dict[str, pd.DataFrame]:
    all_frames = {"runs": rows.runs, "evaluations": rows.evaluations, "history": rows.history}
    return {name: frame for name, frame in all_frames.items() if frame is not None}


def encode(frame: pd.DataFrame, kinds: dict[str, Kind]) -> str:
    """CSV text: known columns in their order, then the others by name; floats in the shortest form that reads back."""
    columns = [c for c in kinds if c in frame] + sorted(str(c) for c in frame if c not in kinds)
    shown = {c: [kind_of(c, kinds).show(value) for value in frame[c]] for c in columns}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*shown.values(), strict=True))
    return out.getvalue()


def decode(text: str, path: Path) -> pd.DataFrame:
    """A frame from CSV text, every value checked. `path`'s stem names the table and the path stands in messages."""
    kinds = TABLES[path.stem]
    records = [record for record in csv.reader(io.StringIO(text)) if record]
    if not records:
        raise UserError(f"{path}: empty; the first line must name the columns {', '.join(kinds)}")
    header, body = records[0], records[1:]
    if "reading" in kinds and "reading" not in header:
        header, body = [*header, "reading"], [[*record, ""] for record in body]
    for column in kinds:
        if header.count(column) != 1:
            problem = "missing" if column not in header else "there more than once"
            raise UserError(f"{path}: column '{column}' is {problem}; needed are {', '.join(kinds)}")
    for line, record in enumerate(body, start=2):
        if len(record) != len(header):
            raise UserError(f"{path}, line {line}: {len(record)} values for {len(header)} columns")
    parsed = {c: parse_column(path, c, [record[i] for record in body], kind_of(c, kinds)) for i, c in enumerate(header)}
    frame = pd.DataFrame(parsed, columns=[*kinds, *sorted(c for c in header if c not in kinds)])
    twice = frame[frame.duplicated(UNIQUE[path.stem])]
    if len(twice):
        what = ", ".join(f"{c} {twice.iloc[0][c]}" for c in UNIQUE[path.stem])
        raise UserError(f"{path}, line {twice.index[0] + 2}: {what} is there twice")
    return frame


def parse_column(path: Path, column: str, texts: list[str], kind: Kind) -> list[Any]:
    values = []
    for line, text in enumerate(texts, start=2):
        try:
            values.append(kind.parse(text))
        except (ValueError, OverflowError):
            raise UserError(f"{path}, line {line}: column '{column}': {text!r} is not {kind.noun}") from None
    return values


def check_keys(found: dict[str, pd.DataFrame], folder: Path) -> None:
    """Evaluations and history belong to runs that are there."""
    known = set(found["runs"]["key"])
    for name in ("evaluations", "history"):
        if name not in found:
            continue
        strangers = [key for key in found[name]["key"] if key not in known]
        if strangers:
            raise UserError(f"{folder / name}.csv: column 'key': {strangers[0]} is not a run of runs.csv")


def in_order(found: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Runs by what they are, then their evaluations and history in the same order of runs."""
    runs = found["runs"].sort_values(["dataset", "arch", "method", "reading", "seed", "key"], ignore_index=True)
    rank = {key: i for i, key in enumerate(runs["key"])}
    ordered = {"runs": runs}
    for name, columns in (("evaluations", ["evaluation", "strength"]), ("history", ["epoch"])):
        if name in found:
            ranked = found[name].assign(_rank=found[name]["key"].map(rank))
            ordered[name] = ranked.sort_values(["_rank", *columns], ignore_index=True).drop(columns="_rank")
    return ordered


def thin_history(history: pd.DataFrame, epochs: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500)) -> pd.DataFrame:
    """The history's rows at `epochs` and at each run's last epoch: enough for claim N5, small enough to commit."""
    last = history.groupby("key")["epoch"].transform("max")
    return history[history["epoch"].isin(epochs) | (history["epoch"] == last)].reset_index(drop=True)


def write_atomically(path: Path, data: bytes) -> None:
    """`path` holds all of `data`, or what it held before."""
    with explained(path, "results"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, [data])
