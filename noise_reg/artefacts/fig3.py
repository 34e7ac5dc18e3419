"""Fig. 3 of the NINR paper: how |W_NI|, the weights behind it, loss and accuracy go in the four phases; claim N6.

The paper shows pictures, so what is compared is the phase of every run, named by the detector from its history alone. Both
losses of reading 2 are shown, because they decide what becomes of the two strongest noises.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noise_reg.artefacts import markdown
from noise_reg.artefacts.claims import PAPER_DATASET
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import dataset_name, training
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import CONTRADICTED, INCONCLUSIVE, REPRODUCED, combine
from noise_reg.artefacts.verdicts import Part, Verdict, absent, note_of, noted
from noise_reg.errors import UserError
from noise_reg.theory.phases import NAMING, PHASES, Phase, phase_of

SOURCE = "Noise Injection Node Regularization for Robust Learning, Fig. 3"
UNIT = 785 / 0.01  # d_in / eta of the paper's network, d_in with the constant input; of rows that do not say theirs
PAPER = dict(zip((0.0, 0.1, 1.0, 1.8), PHASES, strict=True))  # sigma_epsilon^2 in that unit
LOSSES = {"": ("clamped loss", (0, (4, 1.6))), "exact loss": ("exact loss", "-")}
QUANTITIES = {  # column: label, colour, marker
    "nin_norm_0": (r"$|W_{\mathrm{NI}}|$", "#0072B2", "o"),
    "weight_norm_1": (r"$|W^{(\ell+1)}|$", "#D55E00", ""),
    "train_{}": ("training, noise on", "#7B3F99", ""),
    "test_{}": ("test, noise off", "#009E73", "s"),
}
PEAK = (r"peak of $|W_{\mathrm{NI}}|$ within epoch 1", "#0072B2", "^")
NORM, LOSS = (0.03, 100.0), (0.2, 5e4)
RULE = (
    f"The phase of every run from its history alone. {NAMING} Reproduced if at each of the paper's four σ_ε every run has the "
    "paper's phase, contradicted if at one of them none has, else inconclusive."
)


@dataclass(frozen=True)
class Course:
    """One run: sigma_epsilon^2 in units of d_in / eta, the label of its reading, its history and its phase."""

    strength: float
    sigma: float  # sigma_epsilon
    reading: str
    seed: int
    history: pd.DataFrame
    phase: Phase
    diverged_at: int | None


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig3.png, .svg, .md under `out`, and the verdicts on N6."""
    found = courses(rows)
    verdicts = judge(found, note_of(context, PAPER_DATASET, dataset_name(context["dataset"])))
    made_with = training(rows.runs)
    save_figure(out, "fig3", figure(found, context, made_with))
    save_text(out, "fig3.md", as_markdown(found, context, verdicts, made_with))
    return verdicts


def courses(rows: Rows) -> list[Course]:
    if rows.history is None:
        raise UserError("fig3: the rows hold no history; make them again without keep_rows")
    found = []
    for run in rows.runs.to_dict("records"):
        history = rows.history[rows.history["key"] == run["key"]].sort_values("epoch")
        sigma = float(run.get("sigma_epsilon") or 0)
        strength = strength_of(sigma, unit_of(run))
        diverged = run["status"] == "diverged"
        phase = phase_of(history, diverged=diverged)
        at = int(run["epochs"]) if diverged else None
        found.append(Course(strength, sigma, str(run["reading"]), int(run["seed"]), history, phase, at))
    found.sort(key=lambda c: (c.strength, c.reading, c.seed))
    for one, other in itertools.pairwise(found):
        if (one.strength, one.reading, one.seed) == (other.strength, other.reading, other.seed):
            raise UserError(
                f"fig3: the rows hold two runs of σ_ε² = {one.strength} d_in/η, {loss_name(one.reading)}, seed {one.seed}"
            )
    return found


def unit_of(run: Mapping[Any, Any]) -> float:
    """d_in / eta of the run's own network, where its row says both."""
    inputs, rate = (str(run.get(name, "")) for name in ("inputs", "learning_rate"))
    return UNIT if {inputs, rate} & {"", "nan"} else (float(inputs) + 1) / float(rate)


def strength_of(sigma: float, unit: float = UNIT) -> float:
    """sigma_epsilon^2 in units of d_in / eta: the paper's where it is that, of which it prints two digits."""
    strength = sigma**2 / unit
    return next((known for known in PAPER if abs(known - strength) < 5e-5), float(f"{strength:.9g}"))


def groups(found: Sequence[Course]) -> dict[tuple[str, float], list[Course]]:
    """By reading and strength, the exact loss last."""
    made: dict[tuple[str, float], list[Course]] = {}
    for course in sorted(found, key=lambda c: (c.reading, c.strength)):
        made.setdefault((course.reading, course.strength), []).append(course)
    return made


def loss_name(reading: str) -> str:
    return LOSSES[reading][0] if reading in LOSSES else reading


def judge(found: Sequence[Course], note: str) -> list[Verdict]:
    verdicts = []
    for reading in dict.fromkeys(course.reading for course in sorted(found, key=lambda c: c.reading)):
        parts = []
        for strength, expected in PAPER.items():
            phases = [c.phase.name for c in found if c.reading == reading and c.strength == strength]
            agreeing = phases.count(expected)
            if not phases:
                parts.append(absent("FC", f"σ_ε² = {strength:g} d_in/η: {expected}", f"σ_ε² = {strength:g} d_in/η"))
                continue
            one = REPRODUCED if agreeing == len(phases) else INCONCLUSIVE if agreeing else CONTRADICTED
            what = f"σ_ε² = {strength:g} d_in/η: {expected} in {agreeing} of {len(phases)} runs"
            others = f"found: {tally(phases)}" if agreeing < len(phases) else ""
            parts.append(Part("FC", what, None, None, None, (len(phases), 0), False, one, others))
        overall = combine([one.verdict for one in parts])
        statement = f"The four phases, in this order, at the paper's four noises ({loss_name(reading)})."
        verdicts.append(
            Verdict(f"N6, {loss_name(reading)}", statement, overall, tuple(parts), RULE, noted(parts, note))
        )
    return verdicts


def tally(phases: Sequence[str]) -> str:
    return ", ".join(f"{name} {phases.count(name)}" for name in PHASES if name in phases) or "none"


def figure(found: Sequence[Course], context: Mapping[str, Any], made_with: str) -> Figure:
    """A column a noise; norms, loss and accuracy below each other; every run a line, dashed for the clamped loss."""
    strengths = sorted({course.strength for course in found})
    seeds = len({course.seed for course in found})
    head = Head(
        f"Four phases of a noise injection node: {dataset_name(context['dataset'])}",
        f"{made_with}, noise at the input. Every line is one run "
        f"(n = {seeds} a noise and loss). Epoch 0 is the state before the first step, its training loss that of the first "
        f"mini-batch. Preset {context['preset']}.",
        context["below_paper_scale"],
    )
    width = 3.1 * len(strengths) + 0.9
    top, keys, height = head.height(width), 0.55, 7.2
    total = top + keys + height + 0.55
    made = Figure(figsize=(width, total))
    axes = made.subplots(
        3,
        len(strengths),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={
            "left": 0.75 / width,
            "right": 1 - 0.15 / width,
            "bottom": 0.55 / total,
            "top": (0.55 + height - 0.5) / total,
            "hspace": 0.1,
            "wspace": 0.08,
        },
    )
    head.write(made, 0.15)
    for column, strength in zip(axes.T, strengths, strict=True):
        of = [course for course in found if course.strength == strength]
        column[0].set_title(title(strength, of), fontsize=9.5)
        for course in of:
            draw_course(column, course)
        column[-1].set_xlabel("epoch")
    last = max(int(course.history["epoch"].max()) for course in found)
    dress(axes, last)
    made.legend(
        handles=legend(found),
        loc="upper left",
        bbox_to_anchor=(0.1 / width, 1 - top / total),
        ncol=5,
        frameon=False,
        fontsize=9,
        handlelength=3,
    )
    return made


def title(strength: float, of: Sequence[Course]) -> str:
    lines = [rf"$\sigma_\epsilon^2 = {strength:g}\ d_{{\mathrm{{in}}}}/\eta$; paper: {PAPER.get(strength, '–')}"]
    for reading in sorted({course.reading for course in of}):
        phases = [course.phase.name for course in of if course.reading == reading]
        lines.append(f"{loss_name(reading)}: {tally(phases)}")
    return "\n".join(lines)


def draw_course(column: Sequence[Axes], course: Course) -> None:
    dash = LOSSES.get(course.reading, ("", ":"))[1]
    history = course.history
    for axis, pairs in zip(
        column,
        (
            [("nin_norm_0", 1.0), ("weight_norm_1", 1.0)],
            [("train_loss", 1.0), ("test_loss", 1.0)],
            [("train_accuracy", 100.0), ("test_accuracy", 100.0)],
        ),
        strict=True,
    ):
        for name, scale in pairs:
            if name not in history:
                continue
            kind = name.replace("_loss", "_{}").replace("_accuracy", "_{}")
            _, colour, marker = QUANTITIES[kind]
            known = history[history[name].map(math.isfinite)]
            if name == "nin_norm_0" and known.empty:
                continue
            axis.plot(
                known["epoch"], scale * known[name], color=colour, ls=dash, lw=1.1,
                marker=marker or None, ms=3, markevery=0.12,
            )  # fmt: skip
    if "nin_peak_0" in history and history["nin_peak_0"].notna().any():
        first = history[history["epoch"] == 1]["nin_peak_0"]
        column[0].plot([0.5], first, color=PEAK[1], marker=PEAK[2], ms=5, ls="", mfc="none" if dash != "-" else PEAK[1])
    for axis in column:
        if course.diverged_at is not None:
            axis.axvline(course.diverged_at, color="#333333", lw=0.8, ls=":")


def dress(axes: Any, last: int) -> None:
    for axis, label in zip(axes[:, 0], ("norm of the weights", "loss (nats)", "accuracy (%)"), strict=True):
        axis.set_ylabel(label)
    for axis in axes.flat:
        axis.set_xscale("symlog", linthresh=1, linscale=0.4)
        ticks = [t for t in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500) if t <= last]
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.set_xlim(0, last)
        axis.grid(color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[0]:
        axis.set_yscale("log")
        axis.set_ylim(*NORM)
    for axis in axes[1]:
        axis.set_yscale("log")
        axis.set_ylim(*LOSS)
    for axis in axes[2]:
        axis.set_ylim(0, 100)


def has_node(course: Course) -> bool:
    """Whether |W_NI| was watched: at sigma_epsilon = 0 no node is trained."""
    return course.strength > 0


def legend(found: Sequence[Course]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker or None, ms=4, lw=1.4, label=label)
        for label, colour, marker in QUANTITIES.values()
    ]
    handles.insert(1, Line2D([], [], color=PEAK[1], marker=PEAK[2], ms=5, ls="", label=PEAK[0]))
    for reading in sorted({course.reading for course in found}):
        name, dash = LOSSES.get(reading, (reading, ":"))
        handles.append(Line2D([], [], color="#333333", ls=dash, lw=1.4, label=name))
    if any(course.diverged_at is not None for course in found):
        handles.append(Line2D([], [], color="#333333", lw=0.8, ls=":", label="diverged"))
    return handles


def as_markdown(
    found: Sequence[Course], context: Mapping[str, Any], verdicts: Sequence[Verdict], made_with: str
) -> str:
    body = []
    for (reading, strength), of in groups(found).items():
        body.append(
            [
                loss_name(reading),
                f"{strength:g}",
                f"{of[0].sigma:.1f}",
                PAPER.get(strength, "–"),
                tally([course.phase.name for course in of]),
                str(len(of)),
                extent([course.phase.peak for course in of if has_node(course)], "{:.3f}"),
                extent([course.phase.last for course in of if has_node(course)], "{:.3f}"),
                extent([course.history["train_loss"].iloc[0] for course in of], "{:.1f}"),
                extent([course.history["train_loss"].iloc[-1] for course in of], "{:.2f}"),
                extent([100 * course.history["test_accuracy"].iloc[-1] for course in of], "{:.1f}"),
            ]
        )
    header = [
        "loss", "σ_ε² / (d_in/η)", "σ_ε", "paper", "ours (runs)", "n", "peak of |W_NI| / start", "end / start",
        "first training loss", "last training loss", "test accuracy (%)",
    ]  # fmt: skip
    below = [f"**Below paper scale:** {context['below_paper_scale']}."] if context["below_paper_scale"] else []
    caption = (
        f"{dataset_name(context['dataset'])}, {made_with}; lowest and highest of n runs. "
        f"Preset {context['preset']}. The paper shows pictures only; its phases are the ones that its caption names."
    )
    lines = []
    for verdict in verdicts:
        note = f" ({verdict.note})" if verdict.note else ""
        parts = "; ".join(p.comparison + (f" ({p.remark})" if p.remark else "") for p in verdict.numbers)
        lines.append(f"- {verdict.claim}: **{verdict.verdict}**{note}. {verdict.statement} {parts}.")
    return markdown.document(
        "# Fig. 3: phases of the noise injection node", *below, caption, markdown.table(header, body), "\n".join(lines),
        f"Rule: {RULE}",
    )  # fmt: skip


def extent(values: Sequence[float], form: str) -> str:
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return "–"
    low, high = form.format(min(known)), form.format(max(known))
    return low if low == high else f"{low} to {high}"
