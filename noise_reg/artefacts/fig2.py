"""Fig. 2 of the NINR paper: test accuracy against sigma_noise of Eq. 8, for every method, FC and CNN; claims N1 to N5.

The paper gives its curves as a picture only. What it prints are the clean accuracies (Table 2), which stand beside
ours at sigma_noise = 0.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from noise_reg.artefacts import markdown
from noise_reg.artefacts.claims import PAPER_DATASET, judge_claims
from noise_reg.artefacts.curves import SPREADS, Panel, Words, accuracy_figure, half_band
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.lines import Line, archs, lines, of_arch, span
from noise_reg.artefacts.methods import arch_name, dataset_name
from noise_reg.artefacts.paper import printed
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import Summary
from noise_reg.artefacts.verdicts import Verdict, interval_text, note_of, size_text
from noise_reg.errors import UserError

SOURCE = "Noise Injection Node Regularization for Robust Learning, Fig. 2"
PAPER_CURVES = (
    "The paper shows these curves as a picture only; its clean accuracies are in Table 2. Its caption names L2, "
    "dropout, in- and full-NINR and CDT 0.4; 'no regulariser' is drawn here as well."
)
NO_SIGNAL = "At σ = 1 nothing is left of the image and every line is at chance, below the axis (numbers in the table)."
TITLE = "Test accuracy under input corruption"


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig2.png, .svg, .md, .csv under `out`, and the verdicts on N1 to N5."""
    found = lines(rows)
    note = note_of(context, PAPER_DATASET, dataset_name(context["dataset"]))
    verdicts = judge_claims(found, rows.history, note)
    save_figure(out, "fig2", figure(found, context))
    save_text(out, "fig2.csv", as_csv(found))
    save_text(out, "fig2.md", as_markdown(found, context, verdicts))
    return verdicts


def figure(found: Sequence[Line], context: Mapping[str, Any]) -> Figure:
    """One panel an architecture."""
    if not any(len(line.curve) for line in found):
        raise UserError("fig2: the rows hold no evaluation 'corruption' with a finite accuracy")
    dataset = context["dataset"]
    panels = []
    for arch in archs(found):
        of = of_arch(found, arch)
        drawn = {line.method for line in of if not line.reading}
        marks = {method: printed("table_2", arch, method, dataset) for method in sorted(drawn)}
        shown = [line.learned() for line in of]
        panels.append(Panel(panel_title(arch, of), shown, {m: s for m, s in marks.items() if s is not None}))
    words = Words(
        head=Head(
            f"{TITLE}: {dataset_name(dataset)}",
            f"Eq. 8, x → √(1 − σ²) x + σ δ. Line: mean over runs; band: {SPREADS[spread_of(context)]}. "
            f"Preset {context['preset']}.",
            context["below_paper_scale"],
        ),
        x_label=r"$\sigma_\mathrm{noise}$",
        beside="paper (clean, ± 2σ)",
        notes=[
            *(
                f"{arch_name(line.arch)}, {line.label}: {line.account()}{drawn_without(line)}."
                for line in found
                if line.tally()
            ),
            *([NO_SIGNAL] if any(1.0 in line.summaries() for line in found) else []),
        ],
    )
    return accuracy_figure(panels, words, spread_of(context))


def drawn_without(line: Line) -> str:
    rest = line.learned().count
    return "" if rest == line.count else f" (the line is the mean over the other {rest}; verdicts count all)"


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
    return f"{arch_name(arch)}: n = {n} runs a method, at most {caps} epochs, {' and '.join(precisions)}"


def as_csv(found: Sequence[Line]) -> str:
    """One line an architecture, method, reading and sigma_noise; accuracies in percent."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arch", "method", "reading", "sigma_noise", "runs", "n", "mean", "sd", "two_sd"])
    for line in found:
        for sigma, s in line.summaries().items():
            numbers = ["" if math.isnan(v) else f"{v:.6f}" for v in (s.mean, s.sd, 2 * s.sd)]
            writer.writerow([line.arch, line.method, line.reading, repr(sigma), line.count, s.n, *numbers])
    return out.getvalue()


def as_markdown(found: Sequence[Line], context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    spread, below = spread_of(context), context["below_paper_scale"]
    caption = (
        f"Accuracy in % on {dataset_name(context['dataset'])} under Eq. 8, mean ± {SPREADS[spread]}; n = runs with a "
        f"finite accuracy. A cell whose n differs says so in brackets. Preset {context['preset']}."
    )
    blocks = [f"# {TITLE}", caption, f"**Below paper scale: {below}.**" if below else ""]
    for arch in archs(found):
        of = of_arch(found, arch)
        blocks += [f"## {panel_title(arch, of)}", accuracy_table(of, spread)]
    if context["dataset"] == PAPER_DATASET:
        blocks.append(PAPER_CURVES)
    else:
        blocks.append("The paper has no numbers for this data set.")
    return markdown.document(*blocks, "## Claims", claims_table(verdicts), *(claim_block(v) for v in verdicts))


def accuracy_table(of: Sequence[Line], spread: str) -> str:
    sigmas = sorted({sigma for line in of for sigma in line.summaries()})
    header = ["method", "n", "not completed or learned", *(f"σ = {sigma:g}" for sigma in sigmas)]
    body = []
    for line in of:
        body.append([line.label, str(len(line.finite)), line.account() or "–", *cells(line, sigmas, spread)])
        if (learned := line.learned()) is not line:
            words = f"{line.label}, without those at chance"
            body.append([words, str(len(learned.finite)), learned.account() or "–", *cells(learned, sigmas, spread)])
    return markdown.table(header, body)


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
