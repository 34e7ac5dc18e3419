"""What the tables of accuracy against a strength share: cells, notes on runs that did not learn, claims."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from noise_reg.artefacts import markdown
from noise_reg.artefacts.curves import SPREADS, half_band
from noise_reg.artefacts.lines import Line, span, what_chance_is
from noise_reg.artefacts.methods import arch_name
from noise_reg.artefacts.statistics import Summary
from noise_reg.artefacts.verdicts import Verdict, interval_text, size_text
from noise_reg.decimals import shortest
from noise_reg.errors import UserError


def spread_of(context: Mapping[str, Any]) -> str:
    spread = str(context.get("spread", "runs"))
    if spread not in SPREADS:
        raise UserError(f"context: spread = {spread!r}; one of {', '.join(SPREADS)} is needed")
    return spread


def panel_title(arch: str, of: Sequence[Line]) -> str:
    """'FC: n = 10 runs a method, at most 500 epochs, bf16'. n counts runs with a finite accuracy."""
    main = [line for line in of if not line.reading] or list(of)
    n = span([len(line.finite) for line in main])
    caps = span([int(cap) for line in main for cap in line.runs["max_epochs"]])
    precisions = sorted({str(p) for line in main for p in line.runs["precision"]})
    epochs = markdown.counted(caps, "epoch")
    return f"{arch_name(arch)}: n = {n} runs a method, at most {epochs}, {' and '.join(precisions)}"


def fates(found: Sequence[Line]) -> list[str]:
    """Notes on lines of which some runs did not complete or learn, those with the same fate together, and on what 'at chance' is."""
    alike: dict[tuple[str, str], list[str]] = {}
    for line in found:
        if line.tally():
            alike.setdefault((arch_name(line.arch), line.account() + drawn_without(line)), []).append(line.label)
    limit = 80 * len({line.arch for line in found})  # characters under a panel
    notes = [f"{arch}, {', '.join(labels)}: {words}." for (arch, words), labels in alike.items()]
    wrapped = [row for note in notes for row in textwrap.wrap(note, limit)]
    return [*wrapped, *filter(None, [what_chance_is(found)])]


def drawn_without(line: Line) -> str:
    rest = line.learned().count
    return "" if rest == line.count else f" (the line is the mean over the other {rest}; verdicts count all)"


def as_csv(found: Sequence[Line], strength: str, units: Mapping[str, float] | None = None) -> str:
    """One line an architecture, method, reading and strength, whose column is named `strength`; accuracies in percent.
    `units` names further columns for the strength in other units, and what one is in them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arch", "method", "reading", strength, "runs", "n", "mean", "sd", "two_sd", *(units or {})])
    for line in found:
        for sigma, s in line.summaries().items():
            others = [f"{factor * sigma:.6g}" for factor in (units or {}).values()]
            numbers = ["" if math.isnan(v) else f"{v:.6f}" for v in (s.mean, s.sd, 2 * s.sd)]
            writer.writerow([line.arch, line.method, line.reading, repr(sigma), line.count, s.n, *numbers, *others])
    return out.getvalue()


def accuracy_table(of: Sequence[Line], spread: str, symbol: str) -> str:
    """A line a method, a column a strength, which `symbol` names; runs at chance are also told apart."""
    sigmas = sorted({sigma for line in of for sigma in line.summaries()})
    header = ["method", "n", "not completed or learned", *(f"{symbol} = {shortest(sigma)}" for sigma in sigmas)]
    body = []
    for line in of:
        body.append([line.label, str(len(line.finite)), line.account() or "–", *cells(line, sigmas, spread)])
        if (learned := line.learned()) is not line:
            words = f"{line.label}, without those at chance"
            body.append([words, str(len(learned.finite)), learned.account() or "–", *cells(learned, sigmas, spread)])
    return "\n\n".join(filter(None, [markdown.table(header, body), what_chance_is(of)]))


def cells(line: Line, sigmas: Sequence[float], spread: str) -> list[str]:
    known, n = line.summaries(), len(line.finite)
    return [cell(known.get(sigma), spread, n) for sigma in sigmas]


def cell(summary: Summary | None, spread: str, n: int) -> str:
    if summary is None or not summary.n:
        return "–"
    reach = half_band(summary, spread)
    text = f"{summary.mean:.1f}" + ("" if math.isnan(reach) else f" ± {reach:.1f}")
    return text if summary.n == n else f"{text} ({summary.n})"


def claims_table(verdicts: Sequence[Verdict]) -> str:
    return markdown.table(
        ["claim", "statement", "verdict", "limits"],
        [[v.claim, v.statement, v.verdict, v.note or "–"] for v in verdicts],
    )


def claim_block(verdict: Verdict) -> str:
    rows = [
        [arch_name(p.arch), p.comparison, interval_text(p), size_text(p), p.verdict, p.remark or "–"]
        for p in verdict.numbers
    ]
    header = ["network", "comparison", "difference in points [95 % interval]", "runs", "part", "remark"]
    return f"### {verdict.claim}: {verdict.verdict}\n\n{verdict.rule}\n\n{markdown.table(header, rows)}"
