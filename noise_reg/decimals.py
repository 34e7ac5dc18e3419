"""Decimal numbers as people write them: what a sweep's rounding meant, and the shortest text that tells a number from every other."""

from __future__ import annotations

from typing import Any

MEANT_DIGITS = 10  # that a number meant by a range has at most
LONG = 15  # significant digits from which on a number looks computed, not written
REACH = 1e-14  # relative: how far the rounding of a range carries a number


def meant(value: float) -> float:
    """The decimal that a sweep's range meant: 0.3 for 0.30000000000000004, 0 for 2.8e-17; a number that was written, or computed
    and near no short decimal, stays what it is to the last bit."""
    mantissa = f"{value!r}".partition("e")[0].strip("-").replace(".", "").strip("0")
    if len(mantissa) < LONG:
        return value
    if abs(value) < REACH / 10:
        return 0.0
    near = float(f"{value:.{MEANT_DIGITS}g}")
    return near if abs(near - value) <= REACH * abs(value) else value


def as_meant(tree: Any) -> Any:
    """`tree` of mappings and lists with every float as it was meant."""
    if isinstance(tree, dict):
        return {name: as_meant(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(as_meant(value) for value in tree)
    return meant(tree) if isinstance(tree, float) else tree


def shortest(value: Any) -> str:
    """At least as many digits as tell the number from every other: '51.8', '280.1785', '1e-05'."""
    text = f"{value:g}"
    return text if float(text) == value else repr(float(value))
