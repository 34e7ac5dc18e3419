"""A verdict on a claim or a number of the paper, with everything needed to check it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from noise_reg.artefacts.statistics import CONTRADICTED, INCONCLUSIVE, NOT_JUDGED, REPRODUCED, VERDICTS, Interval
from noise_reg.errors import UserError

NO_ROWS = "no rows for "


@dataclass(frozen=True)
class Part:
    """One comparison behind a verdict: first - second in percentage points with its interval, at 95 % unless its rule names another level.

    `n` counts runs of first and second, or `counted` of what else; None stands where too few of them leave a number undefined.
    """

    arch: str
    comparison: str
    difference: float | None
    low: float | None
    high: float | None
    n: tuple[int, int]
    paired: bool
    verdict: str
    remark: str = ""
    counted: str = "pairs"


@dataclass(frozen=True)
class Verdict:
    """`claim` is its short name ('N1', 'Table 2, FC, L2'), `rule` how numbers became the verdict, fixed beforehand.

    `note` limits what it says: another data set than the paper's, less than the paper's scale.
    """

    claim: str
    statement: str
    verdict: str
    numbers: tuple[Part, ...]
    rule: str
    note: str = ""


def part(arch: str, comparison: str, interval: Interval, verdict: str, remark: str = "") -> Part:
    difference, low, high = (finite(number) for number in (interval.difference, interval.low, interval.high))
    return Part(arch, comparison, difference, low, high, interval.n, interval.paired, verdict, remark)


def absent(arch: str, comparison: str, what: str) -> Part:
    """A part on which nothing is said, because the rows have no runs of `what`."""
    return Part(arch, comparison, None, None, None, (0, 0), False, NOT_JUDGED, f"{NO_ROWS}{what}")


def noted(parts: Sequence[Part], note: str) -> str:
    """`note`, after what there are no rows of: 'no rows for Dropout (fc)'."""
    missing = dict.fromkeys(f"{p.remark} ({p.arch})" for p in parts if p.verdict == NOT_JUDGED)
    return "; ".join([*missing, *([note] if note else [])])


def slope_part(
    arch: str,
    what: str,
    against: str,
    places: Sequence[float],
    values: Sequence[float],
    expected: float,
    tolerance: float,
    remark: str,
) -> Part:
    """log `values` at `places` against log `against`, as it is named: the slope minus the `expected` one, with its 95 % t interval, and whether it is that."""
    fit = stats.linregress(np.log(np.asarray(places, float)), np.log(np.asarray(values, float)))
    reach = float(stats.t.ppf(0.975, len(places) - 2)) * float(fit.stderr)
    off = float(fit.slope) - expected
    low, high = off - reach, off + reach
    inside, outside = low >= -tolerance and high <= tolerance, low > tolerance or high < -tolerance
    verdict = REPRODUCED if inside else CONTRADICTED if outside else INCONCLUSIVE
    words, n = f"{what}: slope against {against} − ({expected:g})", (len(places), len(places))
    counted = f"values of {against}"
    return Part(arch, words, round(off, 6), round(low, 6), round(high, 6), n, True, verdict, remark, counted)


def finite(value: float) -> float | None:
    """To a millionth of a point, so that other machines' last bits do not change the file."""
    return round(value, 6) if math.isfinite(value) else None


def limited(verdict: Verdict, below_paper_scale: str) -> Verdict:
    """The verdict, whose note says what is below the paper's scale, if anything is."""
    scale = f"below paper scale: {below_paper_scale}"
    if not below_paper_scale or scale in verdict.note:
        return verdict
    return dataclasses.replace(verdict, note="; ".join(filter(None, [verdict.note, scale])))


def note_of(context: Mapping[str, Any], paper_dataset: str, dataset_name: str) -> str:
    """What limits every verdict of an artefact: its data set and its scale."""
    notes = []
    if context["dataset"] != paper_dataset:
        notes.append(f"on {dataset_name}, not the paper's data set")
    if context["below_paper_scale"]:
        notes.append(f"below paper scale: {context['below_paper_scale']}")
    return "; ".join(notes)


def to_json(verdict: Verdict) -> dict[str, Any]:
    return dataclasses.asdict(verdict)


def from_json(tree: Any) -> Verdict:
    """The verdict back from `to_json`'s mapping; a UserError when it is not one."""
    try:
        parts = tuple(Part(**{**p, "n": tuple(p["n"])}) for p in tree["numbers"])
        verdict = Verdict(**{**tree, "numbers": parts})
    except (TypeError, KeyError) as error:
        raise UserError(f"not a verdict: {error}") from None
    if verdict.verdict not in VERDICTS:
        raise UserError(f"not a verdict: {verdict.verdict!r}; one of {', '.join(VERDICTS)} is needed")
    return verdict


def interval_text(p: Part) -> str:
    """'+1.20 [+0.40, +2.00]', with a true minus sign; '–' when there is no difference. Two decimals, four where they would all be 0."""
    if p.difference is None:
        return "–"
    numbers = [p.difference] if p.low is None or p.high is None else [p.difference, p.low, p.high]
    places = 2 if max(map(abs, numbers)) >= 0.01 or not any(numbers) else 4
    first, *ends = (f"{number:+.{places}f}".replace("-", "−") for number in numbers)
    return f"{first} [{', '.join(ends)}]" if ends else first


def size_text(p: Part) -> str:
    return f"n = {p.n[0]} {p.counted}" if p.paired else f"n = {p.n[0]} and {p.n[1]}"
