"""Which folders are stores, and which store stands around or in a folder that is none."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

KEY = re.compile(r"[0-9a-f]{16}")
SHOWN = 3  # stores in a message
LOOKED_AT = 1000  # entries of a folder that are searched for stores


def is_store(folder: Path) -> bool:
    """Whether it holds runs, or evaluations of the user's own models."""
    try:
        runs = folder / "runs"
        return (runs.is_dir() and any(KEY.fullmatch(path.name) for path in runs.iterdir())) or any(
            folder.glob("models/*/evaluations")
        )
    except OSError:  # not to be read
        return False


def stores_nearby(folder: Path) -> list[Path]:
    """The store that `folder` is a part of (as its `runs`, or a run in it), else those that stand in it, the first few."""
    around = [parent for parent in list(folder.parents)[:2] if is_store(parent)]
    if around:
        return around[:1]
    try:
        return list(islice((path for path in sorted(islice(folder.iterdir(), LOOKED_AT)) if is_store(path)), SHOWN))
    except OSError:
        return []


def where_else(folder: Path) -> str:
    """'; it is part of the store a/b' or '; the store a/b is in it', '' without a store nearby."""
    found = stores_nearby(folder)
    if not found:
        return ""
    if found[0] in folder.parents:
        return f"; it is part of the store {found[0]}"
    return f"; in it there {'are the stores' if len(found) > 1 else 'is the store'} {', '.join(map(str, found))}"
