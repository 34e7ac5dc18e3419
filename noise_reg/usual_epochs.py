"""How many epochs runs like one took before they ended: of the runs in a store, and of committed rows."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from noise_reg.errors import UserError
from noise_reg.spec import RunSpec, digest, flatten, parse
from noise_reg.store import Store

COLUMNS = ["key", "dataset", "arch", "method", "epochs", "stopped_by", "max_epochs"]


class Ended(NamedTuple):
    """A run that ended after `epochs`; `by_itself`: at its accuracy or diverged, and not because it had no more than these."""

    epochs: int
    by_itself: bool


class UsualEpochs:
    """Runs like one are those that differ from it in seed and max_epochs alone; where the store has none, the committed rows of its
    data set, architecture and method."""

    def __init__(self, store: Store, results: Path) -> None:
        self.store, self.results = store, results
        self._rows: dict[tuple[str, str, str], list[Ended]] | None = None
        self._stored: dict[tuple[str, str, str], list[tuple[dict[str, Any], Ended]]] | None = None
        self._like: dict[str, list[Ended]] = defaultdict(list)
        self._read: set[tuple[str, str, str]] = set()

    def of(self, spec: RunSpec, method: str) -> float | None:
        """The mean epochs of runs like `spec`, at most its max_epochs; None where too few are known that went on for as long."""
        if spec.max_epochs == 1:
            return 1.0
        named = (spec.dataset.name, spec.arch.name, method)
        self._read_store(named)
        found = mean_epochs(self._like[likeness(spec)], spec.max_epochs)
        return mean_epochs(self._committed().get(named, []), spec.max_epochs) if found is None else found

    def add(self, spec: RunSpec, epochs: int, *, by_itself: bool) -> None:
        """A run that has just ended."""
        self._like[likeness(spec)].append(Ended(epochs, by_itself))

    def _read_store(self, named: tuple[str, str, str]) -> None:
        """Sorts the store's runs of this name by what they are like, once."""
        if self._stored is None:
            self._stored = defaultdict(list)
            for key in self.store.keys():  # noqa: SIM118 - a store is no mapping
                try:
                    tree, record = self.store.spec(key), self.store.read_record(key)
                    ended = Ended(int(record["epochs"]), record["stopped_by"] != "epochs")
                    self._stored[tree["dataset"]["name"], tree["arch"]["name"], record["method"]].append((tree, ended))
                except (UserError, KeyError, TypeError, ValueError):  # damaged, or of another version: no example
                    continue
        if named not in self._read:
            self._read.add(named)
            for tree, ended in self._stored[named]:
                try:
                    self._like[likeness(parse(RunSpec, tree))].append(ended)
                except UserError:
                    continue

    def _committed(self) -> dict[tuple[str, str, str], list[Ended]]:
        if self._rows is None:
            self._rows = defaultdict(list)
            for dataset, arch, method, epochs, stopped_by in committed(self.results):
                self._rows[dataset, arch, method].append(Ended(int(epochs), stopped_by != "epochs"))
        return self._rows


@lru_cache(maxsize=10_000)
def likeness(spec: RunSpec) -> str:
    flat = flatten(dataclasses.asdict(spec))
    return digest({name: value for name, value in flat.items() if name not in ("seed", "max_epochs")})


def mean_epochs(runs: Sequence[Ended], most: int) -> float | None:
    """The mean of runs that may take at most `most` epochs: all epochs by the number of ends, so that runs that were cut short
    earlier count with what they took. None where these are the most."""
    ends = sum(run.by_itself or run.epochs >= most for run in runs)
    if not ends or 2 * ends < len(runs):
        return None
    return min(most, sum(min(run.epochs, most) for run in runs) / ends)


def committed(results: Path) -> list[tuple[str, str, str, int, str]]:
    """Data set, architecture, method, epochs and what stopped it of every committed run; files of other columns are passed over."""
    frames = []
    for path in sorted(results.glob("[!.]*/runs.csv")):
        try:
            frame = pd.read_csv(path)
        except (OSError, ValueError):  # what draws that folder names it
            continue
        if set(COLUMNS) <= set(frame):  # studies have runs of other columns
            frames.append(frame[COLUMNS].dropna())
    runs = pd.concat(frames, ignore_index=True).drop_duplicates("key") if frames else pd.DataFrame(columns=COLUMNS)
    return list(runs[["dataset", "arch", "method", "epochs", "stopped_by"]].itertuples(index=False, name=None))
