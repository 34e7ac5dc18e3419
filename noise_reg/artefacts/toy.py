"""The linear toy model of the NINR paper's appendix B: equations against simulation, and the phases of the noise weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.statistics import CONTRADICTED, INCONCLUSIVE, REPRODUCED, combine
from noise_reg.artefacts.verdicts import Part, Verdict, slope_part
from noise_reg.theory.toy import PHASES, Toy, Weights, mean_step, rescaled, terms, weights

SOURCE = "Noise Injection Node Regularization for Robust Learning, appendix B, Eqs 9 to 16"
TITLE = "The univariate linear network of appendix B"
SHADES = {"decoupled": "#f2f2f2", "decay": "#9ecae1", "catapult": "#e6842a", "divergent": "#3b3b3b"}
MARKS = {"decoupled": ("-", "s"), "decay": ("--", "o"), "catapult": ("-.", "^"), "divergent": (":", "v")}
LINE_COLOURS = {"decoupled": "#777777", "decay": "#3182bd", "catapult": "#d95f02", "divergent": "#000000"}
SLOPE_TOLERANCE = 0.05
SIGMA, W_NI = r"$\sigma_\epsilon$", r"$|w_{\mathrm{NI}}|$"

RULES = {
    "bound": (
        "Weights, rates and noise drawn at random; one step of Eq. 13 each. Reproduced if the condition says rightly in "
        "every draw whether |w_NI| shrinks, contradicted if it is wrong in any."
    ),
    "slope": (
        "The slope of a straight line through the logarithms, with its 95 % t interval. Reproduced if slope − expected "
        "lies wholly within ±0.05, contradicted if wholly outside, else inconclusive."
    ),
    "order": (
        "Along σ_ε at each rate of the diagram the phases must come as decoupled, decay, catapult, divergent, each at "
        "most once. Reproduced if they do at every rate, contradicted if at none, else inconclusive."
    ),
    "fail": (
        "Eq. 15 and Eq. 16 from the same weights. Reproduced if Eq. 16 shrinks both weights at every σ_ε and Eq. 15 "
        "diverges at some, contradicted otherwise."
    ),
    "footnote": (
        "One step of Eq. 13 at M and of the M = 1 problem that footnote 10 names. Reproduced if all three weights' "
        "steps agree to 1e-12, contradicted if one does not."
    ),
}


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """toy.png, .svg, .md under `out`, and the verdicts."""
    verdicts = judge(tables, context["settings"])
    save_figure(out, "toy", figure(tables, context["settings"]))
    save_text(out, "toy.md", as_markdown(tables, context["settings"], verdicts))
    return verdicts


def judge(tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]) -> list[Verdict]:
    def verdict(claim: str, statement: str, rule: str, parts: Sequence[Part]) -> Verdict:
        return Verdict(claim, statement, combine([p.verdict for p in parts]), tuple(parts), RULES[rule])

    table, batch = tables["bound"], tables["batches"]
    start = weights(settings["w0"], settings["w1"], settings["w_ni"])
    _, first, second = terms(start, Toy(settings["eta"], settings["batch_sigma"]))
    return [
        verdict("B1", "|w_NI| shrinks in a step where (w¹)² > ησ_ε²/2, as printed.", "bound", [rightly(table, "printed")]),
        verdict("B2", "|w_NI| shrinks where 0 < (w¹)² < 2/(ησ_ε²).", "bound", [rightly(table, "corrected")]),
        verdict(
            "B3",
            "R_1 has spread |w_NI w¹ (w¹w⁰ − M)| σ_x σ_ε / √|B|, R_2 does not depend on |B| (Eq. 12; N8 here).",
            "slope",
            [
                slope(batch, "r1_spread", -0.5, f"at |B| = {batch['batch'].iloc[-1]} {ratio(batch, 'r1_spread', abs(first))}"),
                slope(batch, "r2_mean", 0.0, f"at |B| = {batch['batch'].iloc[-1]} {ratio(batch, 'r2_mean', second)}"),
            ],
        ),
        verdict("B4", "Gradient descent on samples tends to Eq. 13 as 1/√|B|.", "slope", [slope(batch, "step_error", -0.5, "")]),
        verdict("B5", "Eq. 16 can only shrink the weights; the discrete Eq. 15 diverges.", "fail", [failure(tables, start)]),
        verdict("B6", "The phases come in the order decoupled, decay, catapult, divergent (N6 here).", "order", [order(tables)]),
        verdict("B7", "M = 1 without loss of generality (footnote 10).", "footnote", [footnote(start)]),
    ]  # fmt: skip


def plain_part(comparison: str, verdict: str, n: int, remark: str) -> Part:
    return Part("toy", comparison, None, None, None, (n, n), True, verdict, remark)


def rightly(table: pd.DataFrame, column: str) -> Part:
    draws = int(table["draws"].sum())
    wrong = int(table.loc[table[column] != table["shrinks"], "draws"].sum())
    words = f"wrong in {wrong} of {draws} draws"
    return plain_part("condition against step", CONTRADICTED if wrong else REPRODUCED, draws, words)


def slope(table: pd.DataFrame, column: str, expected: float, remark: str) -> Part:
    """log `column` against log |B|."""
    name = {"r1_spread": "spread of R_1", "r2_mean": "mean of R_2", "step_error": "distance from Eq. 13"}[column]
    return slope_part(
        "toy", name, "|B|", table["batch"].tolist(), table[column].tolist(), expected, SLOPE_TOLERANCE, remark
    )


def ratio(table: pd.DataFrame, column: str, expected: Any) -> str:
    last = table.iloc[-1]
    of = float(expected) / (math.sqrt(last["batch"]) if column == "r1_spread" else 1)
    return f"{last[column] / of:.3f} of Eq. 12"


def failure(tables: Mapping[str, pd.DataFrame], start: Weights) -> Part:
    table = tables["noise_only"]
    shrank = (table["continuous_w_ni"] <= abs(float(start.w_ni)) * (1 + 1e-12)) & (
        table["continuous_w1"] <= abs(float(start.w1)) * (1 + 1e-12)
    )
    gone = ~np.isfinite(table["discrete_w_ni"])
    least = f"from ησ_ε² = {table.loc[gone, 'pull'].min():.3g} on" if gone.any() else "nowhere"
    words = f"Eq. 16 shrinks both at {int(shrank.sum())} of {len(table)} strengths; Eq. 15 diverges {least}"
    return plain_part("Eq. 15 − Eq. 16", REPRODUCED if shrank.all() and gone.any() else CONTRADICTED, len(table), words)


def order(tables: Mapping[str, pd.DataFrame]) -> Part:
    right, rates, seen = 0, 0, []
    for _, line in tables["diagram"].sort_values("sigma_epsilon").groupby("eta"):
        places = [PHASES.index(p) for p in line["phase"]]
        rates += 1
        right += places == sorted(places)
        seen.append(len(set(places)))
    words = f"in order at {right} of {rates} rates, {min(seen)} to {max(seen)} phases a rate"
    verdict = REPRODUCED if right == rates else CONTRADICTED if not right else INCONCLUSIVE
    return plain_part("order along σ_ε", verdict, rates, words)


def footnote(start: Weights) -> Part:
    toy = Toy(0.05, 0.5, m=3.0)
    scaled, small = rescaled(start, toy)
    ours, theirs = mean_step(start, toy), mean_step(scaled, small)
    back = Weights(theirs.w0, 3 * theirs.w1, 3 * theirs.w_ni)
    off = {n: float(abs(a - b)) for n, a, b in zip(("w⁰", "w¹", "w_NI"), ours, back, strict=True)}
    agree = [name for name, value in off.items() if value < 1e-12]
    words = f"M = 3: the steps of {', '.join(agree)} agree; " + ", ".join(
        f"{name} is off by {value:.2g}" for name, value in off.items() if name not in agree
    )
    return plain_part("M = 3 − rescaled M = 1", REPRODUCED if len(agree) == 3 else CONTRADICTED, 1, words)


def figure(tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]) -> Figure:
    """Four panels: courses, phase diagram, discrete against continuous, batch size."""
    made = Figure(figsize=(11.0, 9.4))
    start = f"w⁰ = {settings['w0']}, w¹ = {settings['w1']}, w_NI = {settings['w_ni']}, M = σ_x = 1"
    Head(
        TITLE,
        f"Start: {start}. Simulated, no data set. On samples R₁ goes on pushing |w_NI| until the fit is exact.",
        "",
    ).write(made, 0.7)
    boxes = [(0.075, 0.53, 0.4, 0.36), (0.57, 0.53, 0.4, 0.36), (0.075, 0.07, 0.4, 0.36), (0.57, 0.07, 0.4, 0.36)]
    axes = [made.add_axes(box) for box in boxes]
    draw_courses(axes[0], tables["courses"], settings)
    draw_diagram(axes[1], tables["diagram"], settings)
    draw_noise_only(axes[2], tables["noise_only"], settings)
    draw_batches(axes[3], tables["batches"])
    for one in axes:
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    return made


def draw_courses(axes: Axes, table: pd.DataFrame, settings: Mapping[str, Any]) -> None:
    for name, course in table.groupby("phase", sort=False):
        dash, mark = MARKS[str(name)]
        label = f"{name}, {SIGMA} = {course['sigma_epsilon'].iloc[0]:g}"
        finite = course[np.isfinite(course["limit"]) & (course["limit"] > 0)]
        axes.plot(finite["step"], finite["limit"], dash, color=LINE_COLOURS[str(name)], label=label, linewidth=1.7)
        dots = course[np.isfinite(course["sampled"]) & (course["step"] % 4 == 0)]
        axes.plot(
            dots["step"], dots["sampled"], mark, color=LINE_COLOURS[str(name)], markersize=3.5, markerfacecolor="none"
        )
    axes.set(yscale="log", ylim=(1e-7, 1e4), xlabel="step", ylabel=W_NI, xlim=(0, settings["shown_steps"]))
    axes.set_title(
        f"Eq. 13 (lines) and descent on {settings['samples']} samples (marks), η = {settings['eta']:g}",
        fontsize=10,
        loc="left",
    )
    axes.legend(frameon=False, fontsize=8.5, loc="upper right")
    axes.grid(color="#e6e6e6", linewidth=0.7)


def draw_diagram(axes: Axes, table: pd.DataFrame, settings: Mapping[str, Any]) -> None:
    eta, sigma = np.sort(table["eta"].unique()), np.sort(table["sigma_epsilon"].unique())
    places = table.pivot(index="eta", columns="sigma_epsilon", values="phase").to_numpy()
    shades = [tuple(int(SHADES[name][i : i + 2], 16) / 255 for i in (1, 3, 5)) for name in places.ravel()]
    image = np.array(shades).reshape(*places.shape, 3)
    axes.pcolormesh(sigma, eta, image, shading="nearest", rasterized=True)
    for name in PHASES:
        at = np.argwhere(places == name)
        if not len(at):
            continue
        middle = at[np.argmin(np.abs(at - np.median(at, axis=0)).sum(1))]
        x, y = sigma[middle[1]], eta[middle[0]]
        words: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9.5}
        if name == "catapult":  # a narrow strip, named from outside
            axes.annotate(name, (x, y), (x / 8, y * 1.6), arrowprops={"arrowstyle": "-", "color": "black"}, **words)
        else:
            axes.text(x, y, name, color="white" if name == "divergent" else "black", **words)
    w1 = settings["w1"]
    for top, dash, label in (
        (2 / (eta * w1**2), "-", r"$(w^{(1)})^2 = 2/(\eta\sigma_\epsilon^2)$, corrected"),
        (2 * w1**2 / eta, ":", r"$(w^{(1)})^2 = \eta\sigma_\epsilon^2/2$, as printed"),
    ):
        axes.plot(np.sqrt(top), eta, dash, color="black", linewidth=2.4)
        axes.plot(np.sqrt(top), eta, dash, color="white", linewidth=1.2, label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=SIGMA,
        ylabel="learning rate η",
        xlim=(sigma[0], sigma[-1]),
        ylim=(eta[0], eta[-1]),
    )
    axes.set_title("Phases of Eq. 13; lines: the bounds at the first step", fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="lower left", facecolor="#999999", labelcolor="white", framealpha=0.9)


def draw_noise_only(axes: Axes, table: pd.DataFrame, settings: Mapping[str, Any]) -> None:
    looks = {"w_ni": ("#d95f02", "o", W_NI), "w1": ("#3182bd", "s", r"$|w^{(1)}|$")}
    for name, (colour, mark, label) in looks.items():
        axes.plot(
            table["pull"], table[f"continuous_{name}"], "-", color=colour, linewidth=1.6, label=f"{label}, Eq. 16"
        )
        finite = table[np.isfinite(table[f"discrete_{name}"])]
        axes.plot(
            finite["pull"],
            finite[f"discrete_{name}"],
            mark,
            color=colour,
            markersize=3.5,
            markerfacecolor="none",
            label=f"{label}, Eq. 15",
        )
    gone = table.loc[~np.isfinite(table["discrete_w_ni"]), "pull"]
    if len(gone):
        axes.axvspan(gone.min(), table["pull"].max(), color="#3b3b3b", alpha=0.18, linewidth=0)
        axes.text(gone.min() * 1.25, 2e-4, "Eq. 15 diverges", fontsize=9, rotation=90, va="bottom")
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(1e-4, 10),
        xlabel=r"$\eta\sigma_\epsilon^2$",
        ylabel=f"size of the weights after {settings['noise_steps']} steps",
    )
    axes.set_title("Noise alone: discrete against continuous", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")
    axes.grid(color="#e6e6e6", linewidth=0.7)


def draw_batches(axes: Axes, table: pd.DataFrame) -> None:
    looks = {
        "r1_spread": ("#d95f02", "o", "spread of R₁", -0.5),
        "step_error": ("#777777", "^", "distance of a step from Eq. 13", -0.5),
        "r2_mean": ("#3182bd", "s", "mean of R₂", 0.0),
    }
    for name, (colour, mark, label, expected) in looks.items():
        axes.plot(table["batch"], table[name], mark, color=colour, label=label, markerfacecolor="none")
        middle = np.exp(np.mean(np.log(table[name]) - expected * np.log(table["batch"])))
        axes.plot(table["batch"], middle * table["batch"] ** expected, "-", color=colour, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="|B|", ylabel="size")
    axes.set_title("Lines: slope −1/2, or 0 for R₂", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8.5)
    axes.grid(color="#e6e6e6", linewidth=0.7)


def as_markdown(tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    """Claims with the numbers behind them, then the batch sizes."""
    claims = [
        [v.claim, v.statement, v.verdict, "; ".join(filter(None, (numbers(p) for p in v.numbers)))] for v in verdicts
    ]
    body = [
        [str(int(row["batch"])), *(f"{row[c]:.4g}" for c in ("r1_spread", "r2_mean", "step_error"))]
        for _, row in tables["batches"].iterrows()
    ]
    rules = [
        f"{', '.join(v.claim for v in verdicts if v.rule == rule)}: {rule}"
        for rule in dict.fromkeys(v.rule for v in verdicts)
    ]
    return markdown.document(
        f"# {TITLE}",
        f"Simulated from w⁰ = {settings['w0']}, w¹ = {settings['w1']}, w_NI = {settings['w_ni']}, M = σ_x = 1; {settings['repeats']} draws a batch size.",
        markdown.table(["claim", "statement", "verdict", "numbers"], claims),
        "## Batch size",
        markdown.table(["B", "spread of R_1", "mean of R_2", "distance of a step from Eq. 13"], body),
        "## How a verdict is reached",
        *rules,
    )


def numbers(p: Part) -> str:
    if p.difference is None or p.low is None or p.high is None:
        return p.remark
    words = f"{p.comparison}: {p.difference:+.3f} [{p.low:+.3f}, {p.high:+.3f}]".replace("-", "−")
    return f"{words} ({p.remark})" if p.remark else words
