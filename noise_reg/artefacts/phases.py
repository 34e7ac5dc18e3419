"""The phase diagram: every run of a sweep over sigma_epsilon by its phase, and where the catapult sets in; claim N14 and the rule
eta sigma_epsilon^2 = const."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import CONTRADICTED, INCONCLUSIVE, REPRODUCED, combine
from noise_reg.artefacts.verdicts import Part, Verdict
from noise_reg.errors import UserError
from noise_reg.theory.phases import CATAPULT, DIVERGENT, NAMING, PHASES, phase_of

SOURCE = "Noise Injection Node Regularization for Robust Learning, section 2.2 and appendix B"
MARKS = {  # phase: colour, marker, filled
    "decoupled": ("#999999", "s", False),
    "decay": ("#0072B2", "o", True),
    "catapult": ("#D55E00", "^", True),
    "divergent": ("#000000", "x", True),
}
PREDICTED, FACTOR = 2.0, 2.0  # sigma_cat^2 ~ 2 d / eta; '~' is read as a factor of two either way
ALIKE = 1.5
N14_RULE = (
    f"η σ_cat²/d_in from each onset's bracket. Reproduced if the bracket lies within {PREDICTED / FACTOR:g} to "
    f"{PREDICTED * FACTOR:g} (a factor of two around the linear network's 2), contradicted if wholly outside, else inconclusive."
)
BEYOND = "N14, beyond linear networks"
CONST_RULE = (
    f"The onset σ_cat in sqrt(d_in/η) against the first setting's, and the largest onset against the smallest. Reproduced if the "
    f"ratio lies within 1/{ALIKE:g} to {ALIKE:g} for all ends of the brackets, contradicted if for none, else inconclusive."
)
PAPER_CATAPULT = 3.4  # sigma_epsilon^2 of Fig. 2a's catapult in d_in / eta
CLAMP_RULE = (
    f"Where divergence begins with the exact loss and with the clamped one, as σ_ε²/(d_in/η), seed by seed, against {PAPER_CATAPULT:g}, "
    "Fig. 2's catapult. Reproduced if with the exact loss it begins below, and with the clamped loss beyond (or nowhere on the "
    "grid), in every seed; contradicted if not in any; else inconclusive."
)
Phases = dict[float, str]
Bracket = tuple[float | None, float | None]


def bracket(phases: Mapping[float, str], names: Sequence[str] = (CATAPULT, DIVERGENT)) -> Bracket:
    """(largest sigma_epsilon before the first run in one of the phases `names`, that first one); None where there is none."""
    beyond = [s for s, name in phases.items() if name in names]
    first = min(beyond, default=None)
    before = [s for s in phases if first is None or s < first]
    return max(before, default=None), first


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """phases.png, .svg, .md under `out`, and the verdicts."""
    found = by_setting(rows, context["settings"])
    verdicts = judge(found, context["settings"])
    save_figure(out, "phases", figure(found, context))
    save_text(out, "phases.md", as_markdown(found, context, verdicts))
    return verdicts


def by_setting(rows: Rows, settings: Mapping[str, Any]) -> dict[str, dict[int, Phases]]:
    """setting -> seed -> sigma_epsilon in units -> phase, settings in their order."""
    if rows.history is None:
        raise UserError("phases: the rows hold no history")
    histories = dict(list(rows.history.groupby("key")))
    found: dict[str, dict[int, Phases]] = {name: {} for name in settings}
    for run in rows.runs.to_dict("records"):
        name = str(run["reading"])
        strength = float(run["sigma_epsilon"]) / float(settings[name]["unit"])
        phase = phase_of(histories[run["key"]], diverged=run["status"] == "diverged")
        found[name].setdefault(int(run["seed"]), {})[strength] = phase.name
    return {name: seeds for name, seeds in found.items() if seeds}


def brackets(seeds: Mapping[int, Phases]) -> list[tuple[float, float]]:
    """Of the seeds whose onset lies within the grid."""
    both = [bracket(phases) for phases in seeds.values()]
    return [(low, high) for low, high in both if low is not None and high is not None]


def judge(found: Mapping[str, dict[int, Phases]], settings: Mapping[str, Any]) -> list[Verdict]:
    ends = {name: [s for pair in brackets(seeds) for s in pair] for name, seeds in found.items()}
    first = next(iter(found))
    predicted: dict[bool, list[Part]] = {True: [], False: []}  # by whether the network is linear
    constant = []
    for name, strengths in ends.items():
        inside = [PREDICTED / FACTOR <= s**2 <= PREDICTED * FACTOR for s in strengths]
        squares = (
            f"η σ_cat²/d_in between {min(strengths) ** 2:.3f} and {max(strengths) ** 2:.3f}"
            if strengths
            else "no onset found"
        )
        predicted[settings[name]["arch"] == "linear"].append(part(name, squares, inside, len(found[name])))
        if name != first:
            ratios = [s / t for s in strengths for t in ends[first]]
            inside = [1 / ALIKE <= ratio <= ALIKE for ratio in ratios]
            text = (
                f"σ_cat is {min(ratios):.3f} to {max(ratios):.3f} times that of '{first}'"
                if ratios
                else "no onset found"
            )
            constant.append(part(name, text, inside, len(found[name])))
    there = [strengths for strengths in ends.values() if strengths]
    if len(there) > 1:
        largest = max(max(strengths) for strengths in there) / min(min(strengths) for strengths in there)
        constant.append(
            part("largest and smallest", f"{largest:.2f} times apart", [largest <= ALIKE], len(found[first]))
        )
    verdicts = [
        ("N14", "σ_cat² ~ 2 d_in/η in a linear network.", predicted[True], N14_RULE),
        (BEYOND, "σ_cat² ~ 2 d_in/η in networks with ReLU too.", predicted[False], N14_RULE),
        ("η σ_ε² = const", "η σ_cat² does not depend on rate, batch, depth or width.", constant, CONST_RULE),
        ("reading 2", "Fig. 2's catapult σ_ε lies where the exact loss diverges and the clamped one does not.", clamped(found, settings), CLAMP_RULE),
    ]  # fmt: skip
    return [
        Verdict(claim, words, combine([p.verdict for p in of]), tuple(of), rule)
        for claim, words, of, rule in verdicts
        if of
    ]


def clamped(found: Mapping[str, dict[int, Phases]], settings: Mapping[str, Any]) -> list[Part]:
    """Reading 2's explanation, from two settings that differ in their loss alone; none without such a pair."""

    def but_loss(name: str) -> dict[str, Any]:
        return {key: value for key, value in settings[name].items() if key != "loss"}

    def is_pair(exact: str, other: str) -> bool:
        losses = settings[exact]["loss"], settings[other]["loss"]
        return losses == ("exact", "clamped") and but_loss(exact) == but_loss(other)

    parts = []
    for exact, other in filter(lambda pair: is_pair(*pair), permutations(found, 2)):
        inside, told = [], []
        for seed in sorted(found[exact].keys() & found[other]):
            (_, first), (last, beyond) = (bracket(found[name][seed], [DIVERGENT]) for name in (exact, other))
            survives = beyond is None or (last is not None and last**2 >= PAPER_CATAPULT)
            inside.append(first is not None and first**2 <= PAPER_CATAPULT and survives)
            told.append(" and ".join("nowhere" if s is None else f"{s**2:.2f}" for s in (first, beyond)))
        words = "; ".join(f"from {pair} on" for pair in dict.fromkeys(told))
        parts.append(part(f"{exact} and {other}", words, inside, len(inside)))
    return parts


def part(setting: str, text: str, inside: Sequence[bool], seeds: int) -> Part:
    verdict = (
        INCONCLUSIVE if not inside or (any(inside) and not all(inside)) else REPRODUCED if all(inside) else CONTRADICTED
    )
    return Part("FC", f"{setting}: {text}", None, None, None, (seeds, 0), False, verdict)


def figure(found: Mapping[str, dict[int, Phases]], context: Mapping[str, Any]) -> Figure:
    """A row a setting and seed; the onset's bracket is the line below its marks."""
    lanes = [(name, seed) for name, seeds in found.items() for seed in sorted(seeds)]
    head = Head(
        f"Phases of a noise injection node against its noise: {dataset_name(context['dataset'])}",
        f"Every mark is one run ({length(context['settings'])}), its phase named from that history: 'divergent' is also one that has "
        "not recovered by its end. The onset is bracketed by bisection. "
        f"First row: {describe(next(iter(context['settings'].values())))}; the others change what they "
        f"name. {seeds_text(int(context['seeds']))}.",
        str(context["below_paper_scale"]),
    )
    seeds = len({seed for _, seed in lanes}) > 1
    words = [f"{name}, seed {seed}" if seeds else name for name, seed in lanes]
    width, left = 10.0, 0.4 + 0.08 * max(map(len, words))
    lane_height = 0.42 if len(lanes) < 12 else 0.3
    top, height = head.height(width) + 0.65, lane_height * len(lanes) + 0.3
    total = top + height + 0.7
    made = Figure(figsize=(width, total))
    axis = made.add_axes((left / width, 0.7 / total, 1 - (left + 0.25) / width, height / total))
    head.write(made, 0.15)
    for lane, (name, seed) in enumerate(lanes):
        phases = found[name][seed]
        for phase, (colour, marker, filled) in MARKS.items():
            of = [s for s, p in phases.items() if p == phase]
            axis.plot(of, [lane] * len(of), ls="", marker=marker, ms=6, color=colour, mfc=colour if filled else "none")
        for low, high in brackets({seed: phases}):
            axis.plot([(low * high) ** 0.5], [lane], ls="", marker="|", ms=40 * lane_height, mew=1.6, color="#333333")
    axis.axvline(PREDICTED**0.5, color="#009E73", ls="--", lw=1.2)
    axis.set_xscale("log")
    axis.set_ylim(len(lanes) - 0.4, -0.6)
    axis.set_yticks(range(len(lanes)), words)
    axis.set_xlabel(r"$\sigma_\epsilon\ /\ \sqrt{d_{\mathrm{in}}/\eta}$")
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], ls="", marker=marker, ms=6, color=colour, mfc=colour if filled else "none", label=phase)
        for phase, (colour, marker, filled) in MARKS.items()
    ]
    handles.append(
        Line2D(
            [], [], ls="", marker="|", ms=14, mew=1.6, color="#333333", label="onset: first catapult or divergent run"
        )
    )
    handles.append(Line2D([], [], color="#009E73", ls="--", lw=1.2, label=r"N14: $\sqrt{2}$"))
    made.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.1 / width, 1 - (top - 0.62) / total), ncol=3, frameon=False,
        fontsize=9, columnspacing=1.4,
    )  # fmt: skip
    return made


def seeds_text(seeds: int) -> str:
    return "One seed a setting" if seeds == 1 else f"{seeds} seeds a setting"


def span_text(pair: Bracket, power: int = 1) -> str:
    low, high = pair
    return "–" if low is None or high is None else f"{low**power:.3f} to {high**power:.3f}"


def describe(facts: Mapping[str, Any]) -> str:
    widths = "-".join(str(w) for w in facts["widths"])
    kind = "linear" if facts["arch"] == "linear" else "FC"
    epochs = markdown.counted(facts["epochs"], "epoch")
    return f"{kind} {widths}, η = {facts['eta']:g}, B = {facts['batch']}, {facts['loss']} loss, {epochs}"


def length(settings: Mapping[str, Any]) -> str:
    """'36 000 training images, bf16, 180 steps a run'."""
    steps = sorted({of["images"] // of["batch"] * of["epochs"] for of in settings.values()})
    images = ", ".join(f"{n:,}".replace(",", " ") for n in sorted({of["images"] for of in settings.values()}))
    precisions = ", ".join(sorted({of["precision"] for of in settings.values()}))
    return f"{images} training images, {precisions}, {steps[0] if len(steps) == 1 else f'{steps[0]} to {steps[-1]}'} steps a run"


def as_markdown(found: Mapping[str, dict[int, Phases]], context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    body = []
    for name, seeds in found.items():
        for seed, phases in sorted(seeds.items()):
            onset = bracket(phases)
            counts = ", ".join(f"{p} {list(phases.values()).count(p)}" for p in PHASES if p in phases.values())
            body.append(
                [
                    name, describe(context["settings"][name]), str(seed), str(len(phases)), counts, span_text(onset),
                    span_text(onset, 2), span_text(bracket(phases, [DIVERGENT])),
                ]
            )  # fmt: skip
    header = [
        "setting",
        "what",
        "seed",
        "runs",
        "phases",
        "σ_cat / sqrt(d_in/η)",
        "η σ_cat²/d_in",
        "divergence from / sqrt(d_in/η)",
    ]
    lines = []
    for verdict in verdicts:
        parts = "; ".join(f"{p.comparison} ({p.verdict})" for p in verdict.numbers)
        lines.append(f"- {verdict.claim}: **{verdict.verdict}**. {verdict.statement} {parts}.")
    rules = "\n".join(f"- {verdict.claim}: {verdict.rule}" for verdict in verdicts)
    return markdown.document(
        "# Phases of the noise injection node", f"{dataset_name(context['dataset'])}; σ_cat between the last run before the "
        "catapult's onset and the first beyond it; divergence begins between two runs of the grid. "
        f"{length(context['settings'])}: a run still recovering at its end counts as divergent. A run's phase: {NAMING}",
        markdown.scale_note(context),
        markdown.table(header, body), "\n".join(lines), "Rules:", rules,
    )  # fmt: skip
