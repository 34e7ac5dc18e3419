"""What noise in the input of a Jacobian penalty adds to it, against |H|^2 and against the whole second order; claim R3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head, two_columns
from noise_reg.artefacts.statistics import CONTRADICTED, INCONCLUSIVE, REPRODUCED, combine
from noise_reg.artefacts.tables import claims_table
from noise_reg.artefacts.verdicts import Part, Verdict, interval_text
from noise_reg.decimals import shortest

SOURCE = "Adding noise to the input of a model trained with a regularized objective (a summary), and its expansion"
TABLES = ("expansion",)
PAPERS_SIGMA = 0.1
TOLERANCE = 0.1
RULE = (
    f"At σ = {PAPERS_SIGMA} (the paper's): what the noise adds minus {{term}}, in units of σ²(‖H‖² + |Σ ∇F·∇ΔF|), the terms' sizes "
    "without their cancelling, with its 95 % interval (2 standard errors of the noise's draws and of Hutchinson's vectors). "
    f"Reproduced if wholly within ±{TOLERANCE}, contradicted if wholly outside, else inconclusive."
)
STATEMENTS = {  # column: claim, statement, the term in words
    "hessian": ("R3", "E‖J(x + ε)‖² ≈ ‖J‖² + σ²‖H‖².", "σ²‖H‖²"),
    "second": (
        "R3, second order",
        "E‖J(x + ε)‖² ≈ ‖J‖² + σ²(‖H‖² + Σ ∇F·∇ΔF).",
        "σ²(‖H‖² + Σ ∇F·∇ΔF)",
    ),
}
COLOURS = {"hessian": ("#D55E00", "--"), "second": ("#0072B2", "-")}


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """nj_expansion.png, .svg, .md under `out`, and the verdicts."""
    table = tables["expansion"]
    verdicts = [judge(table, column) for column in STATEMENTS]
    save_figure(out, "nj_expansion", figure(table, context))
    save_text(out, "nj_expansion.md", as_markdown(table, context, verdicts))
    return verdicts


def judge(table: pd.DataFrame, column: str) -> Verdict:
    claim, statement, term = STATEMENTS[column]
    parts = []
    for network in dict.fromkeys(table["network"]):
        rows = table[table["network"] == network].to_dict("records")
        nearest = min(rows, key=lambda row: abs(row["sigma"] - PAPERS_SIGMA))
        off, reach = off_by(nearest, column)
        low, high = off - reach, off + reach
        outside = low > TOLERANCE or high < -TOLERANCE
        verdict = REPRODUCED if max(-low, high) <= TOLERANCE else CONTRADICTED if outside else INCONCLUSIVE
        words = f"added − {term} at σ = {shortest(nearest['sigma'])}"
        numbers = (round(off, 6), round(low, 6), round(high, 6))
        parts.append(Part(str(network), words, *numbers, (1, 1), False, verdict))
    return Verdict(claim, statement, combine([p.verdict for p in parts]), tuple(parts), RULE.format(term=term))


def off_by(row: Any, column: str) -> tuple[float, float]:
    """What the noise adds less a term, in units of the terms' sizes, and the half-width of its interval."""
    size = row["sigma"] ** 2 * (row["hessian"] + abs(row["second"] - row["hessian"]))
    error = (row["added_error"] ** 2 + (row["sigma"] ** 2 * row[f"{column}_error"]) ** 2) ** 0.5
    return float((row["added"] - row["sigma"] ** 2 * row[column]) / size), float(2 * error / size)


def figure(table: pd.DataFrame, context: Mapping[str, Any]) -> Figure:
    settings = context["settings"]
    head = Head(
        "What noise in the Jacobian's input adds to ‖J‖²",
        f"tanh MLPs, one run each; {settings['images']} test images, {settings['draws']} pairs ±ε an image, {settings['vectors']} "
        "Hutchinson vectors where not every Hessian is whole; fp64. Bars: 2 "
        "standard errors. Dotted: the paper's σ.",
        context["below_paper_scale"],
    )
    networks = list(dict.fromkeys(table["network"]))

    def draw_panel(axis: Axes, n: int) -> None:
        panel(axis, table[table["network"] == networks[n]], networks[n])
        if n == 0:
            axis.legend(fontsize=8.5, frameon=False, loc="lower left")

    ylabel = r"added, in units of $\sigma^2(\|H\|^2 + |\sum\nabla F\cdot\nabla\Delta F|)$"
    return two_columns(
        head, len(networks), draw_panel, each=2.9, xlabel=r"$\sigma$ (pixels from 0 to 1)", ylabel=ylabel
    )


def panel(axis: Axes, rows: pd.DataFrame, network: str) -> None:
    """What is added over sigma^2 beside the two predictions, all in units of the terms' sizes: the sign is what matters."""
    size = rows["hessian"] + (rows["second"] - rows["hessian"]).abs()
    unit = rows["sigma"] ** 2 * size
    axis.errorbar(
        rows["sigma"], rows["added"] / unit, yerr=2 * rows["added_error"] / unit, fmt="o", color="#000000", ms=5, capsize=2,
        label=r"measured: $E\|J(x+\varepsilon)\|^2 - \|J\|^2$",
    )  # fmt: skip
    words = {"hessian": r"$\sigma^2\|H\|^2$", "second": r"$\sigma^2(\|H\|^2 + \sum \nabla F \cdot \nabla\Delta F)$"}
    for column, (colour, dash) in COLOURS.items():
        axis.plot(rows["sigma"], rows[column] / size, color=colour, ls=dash, lw=1.6, label=words[column])
    axis.axhline(0, color="#999999", lw=0.8)
    axis.axvline(PAPERS_SIGMA, color="#999999", lw=0.8, ls=":")
    axis.set(xscale="log", ylim=(-1.05, 1.05))
    axis.set_title(network, fontsize=10, loc="left")


def as_markdown(table: pd.DataFrame, context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    settings = context["settings"]
    first = table.drop_duplicates("network").to_dict("records")
    terms = [
        [
            str(r["network"]), f"{r['jacobian']:.4g}", number(r["hessian"], r["hessian_error"]),
            f"{r['second'] - r['hessian']:.4g}", number(r["second"], r["second_error"]), "whole" if r["whole"] else "Hutchinson",
        ]
        for r in first
    ]  # fmt: skip
    body = [
        [
            str(r["network"]),
            f"{shortest(r['sigma'])}",
            number(r["added"], r["added_error"]),
            *(off_text(r, c) for c in STATEMENTS),
        ]
        for r in table.to_dict("records")
    ]
    parts = [[v.claim, p.arch, p.comparison, interval_text(p), p.verdict] for v in verdicts for p in v.numbers]
    return markdown.document(
        "# What noise in the Jacobian's input adds to ‖J‖²",
        f"Means over {settings['images']} test images of tanh MLPs, one run each, J and H of the outputs by the pixels, summed over the "
        f"outputs; ± standard error over {settings['draws']} pairs ±ε or {settings['vectors']} vectors. Differences in units of σ²(‖H‖² + "
        "|Σ ∇F·∇ΔF|), ± 2 standard errors. The paper gives no such numbers.",
        markdown.scale_note(context),
        markdown.table(["network", "‖J‖²", "‖H‖²", "Σ ∇F·∇ΔF", "sum: half of Δ‖J‖²", "Hessians"], terms),
        markdown.table(["network", "σ", "added", "added − σ²‖H‖²", "added − σ²(‖H‖² + Σ ∇F·∇ΔF)"], body),
        "## Claims",
        claims_table(verdicts),
        markdown.table(["claim", "network", "part", "off by [95 % interval]", "verdict"], parts),
        "\n".join(f"- {v.claim}: {v.rule}" for v in verdicts),
    )


def number(value: float, error: float) -> str:
    return f"{value:.4g}" + (f" ± {error:.1g}" if error else "")


def off_text(row: Any, column: str) -> str:
    off, reach = off_by(row, column)
    return f"{off:+.3f} ± {reach:.1g}".replace("-", "−")
