"""How large a setting of work may be: generous, and far below what would never come to an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from noise_reg.errors import SpecError

REPEATED = 10_000  # of what is done again and again: draws, attack steps, seeds, directions
IMAGES = 1_000_000  # of images; more than any data set has
EPOCHS = 1_000_000
SAMPLES = 10_000_000  # of what is one number each
YEAR = 365.25 * 86400


def duration(seconds: int) -> str:
    """Whole seconds, of any size, in the largest unit that fits."""
    if seconds >= 1_000_000 * YEAR:
        return "more than a million years"
    for unit, length in (("years", YEAR), ("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds} seconds"


def at_most(value: int, most: int) -> str | None:
    """'at most 10000; at a second each it would take 3169 years' of a larger value, else None."""
    return f"at most {most}; at a second each it would take {duration(value)}" if value > most else None


def count(least: int, most: int = REPEATED) -> Callable[[Any], str | None]:
    """The check of a whole number of things to be done, for `noise_reg.spec.checked`."""

    def check(value: int) -> str | None:
        return f"a whole number of at least {least}" if value < least else at_most(value, most)

    return check


def check_count(name: str, value: Any, least: int = 1, most: int = REPEATED) -> None:
    """Raises SpecError unless `value`, the setting `name`, is a whole number from `least` to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    problem = count(least, most)(value) if whole else f"a whole number of at least {least}"
    if problem:
        shown = value if not whole or abs(value) < 10**30 else f"a number of {value.bit_length()} bits"
        raise SpecError(f"{name} = {shown}: must be {problem}")
