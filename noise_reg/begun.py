"""What a checkpoint says of the stack that was begun, checked: one that this version of the code cannot go on from is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noise_reg.errors import UserError
from noise_reg.spec import RunSpec, parse


@dataclass(frozen=True)
class Begun:
    """A stack in mid-training: `histories` and `seconds` have one entry a replica, `epoch` counts the epochs done, `layers` have a
    noise node, `methods` are by key, `data` says which were used (content and file; empty in checkpoints of before)."""

    specs: list[RunSpec]
    epoch: int
    histories: list[list[dict[str, float]]]
    seconds: list[float]
    layers: list[int]
    methods: dict[str, str]
    data: dict[str, str]


def read_begun(meta: Mapping[str, Any]) -> Begun:
    """Raises UserError for a setting that this version does not know, and for anything that no version wrote."""
    specs = [parse(RunSpec, tree) for tree in a_list(meta, "specs")]
    histories, seconds = a_list(meta, "histories"), a_list(meta, "seconds")
    methods, data, epoch = meta.get("methods", {}), meta.get("data", {}), meta.get("epoch")
    layers = a_list(meta, "layers")
    fits = {
        "specs": bool(specs) and len({spec.stack_key() for spec in specs}) == 1 == len(specs) / len({s.key for s in specs}),
        "epoch": is_count(epoch),
        "histories": len(histories) == len(specs) and all(is_history(one, epoch) for one in histories),
        "seconds": len(seconds) == len(specs) and all(map(is_number, seconds)),
        "layers": all(map(is_count, layers)),
        "methods": isinstance(methods, dict) and all(isinstance(name, str) for name in methods.values()),
        "data": isinstance(data, dict) and all(isinstance(value, str) for value in data.values())
        and ("data_sha256" in data) == ("data_file" in data),
    }  # fmt: skip
    if wrong := next((name for name, right in fits.items() if not right), None):
        raise UserError(f"{wrong}: not what this version writes")
    return Begun(specs, int(meta["epoch"]), histories, seconds, layers, methods, data)


def a_list(meta: Mapping[str, Any], name: str) -> list[Any]:
    found = meta.get(name) if isinstance(meta, Mapping) else None
    if not isinstance(found, list):
        raise UserError(f"{name}: not what this version writes")
    return found


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_history(rows: Any, epoch: Any) -> bool:
    """A row an epoch, and one before the first; in checkpoints of before no such row."""
    return (
        isinstance(rows, list)
        and len(rows) in (epoch, epoch + 1)
        and all(isinstance(row, dict) and all(map(is_number, row.values())) for row in rows)
    )
