"""Fig. 2 again under another noise distribution (Fig. 7) or optimiser (Fig. 8, Table 3) of the NINR paper; claim N11.

The runs of a variant carry its name as their `reading`; those of Fig. 2 itself, where they are there, have none. The paper
shows pictures only, with 5 runs a line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from noise_reg.artefacts import markdown
from noise_reg.artefacts.claims import (
    CATAPULT,
    DECAY,
    N1_RULE,
    PAPER_ARCHS,
    PAPER_DATASET,
    Lines,
    at_large_noise,
    between,
    judged,
    made,
    n1,
)
from noise_reg.artefacts.curves import SPREADS, Panel, Words, accuracy_figure
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.lines import Line, archs, lines, of_arch
from noise_reg.artefacts.methods import arch_name, dataset_name, label
from noise_reg.artefacts.paper import paper_numbers
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import (
    CONTRADICTED,
    REPRODUCED,
    UNDER_POWERED,
    Interval,
    judge_alike,
    too_few,
    undecided,
)
from noise_reg.artefacts.tables import accuracy_table, as_csv, claim_block, claims_table, fates, panel_title, spread_of
from noise_reg.artefacts.verdicts import Part, Verdict, note_of
from noise_reg.errors import UserError

FIG7_SOURCE = "Noise Injection Node Regularization for Robust Learning, Fig. 7"
FIG8_SOURCE = "Noise Injection Node Regularization for Robust Learning, Fig. 8 and Table 3"
TWO_PEAKS = (
    "double Gaussian",
    "asymmetric double Gaussian",
)  # the paper's second distribution under either of its readings
LAWS = {  # by the distribution's name, of epsilon as noise_reg/streams.py draws it
    "uniform": "uniform on (−σ_ε, σ_ε), as printed, of variance σ_ε²/3",
    "uniform_matched": "uniform on (−√3 σ_ε, √3 σ_ε), of variance σ_ε²",
    "double_gaussian": "peaks at ±σ_ε of standard deviation {width:g} σ_ε, the upper one with probability {weight:g}",
    "laplace": "Laplace's, of variance σ_ε²",
    "student_t": "Student's t with {df:g} degrees of freedom, scaled to variance σ_ε²",
}
N11_RULE = (
    "Per run: the mean accuracy over σ_noise from 0.6 to 0.9; each NINR method with this distribution − with the Gaussian. "
    "Alike: reproduced if the interval lies within ±1 point, contradicted if wholly outside. Where the paper saw an effect (two "
    "peaks, catapult) the other way round. Otherwise under-powered if the half-width exceeds 2 points, else inconclusive."
)


def draw_fig7(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig7-<distribution>.png, .svg, .md, .csv under `out`, and N11 for each distribution."""
    found, note = lines(rows), note_of(context, PAPER_DATASET, dataset_name(context["dataset"]))
    verdicts = []
    for variant in variants("fig7", found):
        verdict = judge(variant, found, note)
        draw_one("fig7", variant, found, context, out, f"nodes with {variant} noise", verdict)
        verdicts.append(verdict)
    return verdicts


def draw_fig8(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig8-<optimiser>.png, .svg, .md, .csv under `out`, Table 3 in each, and N1 for each optimiser."""
    found, note = lines(rows), note_of(context, PAPER_DATASET, dataset_name(context["dataset"]))
    verdicts = []
    for variant in variants("fig8", found):
        verdict = judge_optimizer(variant, found, note)
        table = "## Table 3: σ_ε", TABLE_3, table_3()
        draw_one("fig8", variant, found, context, out, f"trained with {variant}", verdict, *table)
        verdicts.append(verdict)
    return verdicts


def variants(name: str, found: Sequence[Line]) -> list[str]:
    there = list(dict.fromkeys(line.reading for line in found if line.reading))
    if not there:
        raise UserError(f"{name}: the rows hold no runs of a variant: give its name as their `reading`")
    return there


def draw_one(
    name: str,
    variant: str,
    found: Sequence[Line],
    context: Mapping[str, Any],
    out: Path,
    words: str,
    verdict: Verdict,
    *further: str,
) -> None:
    """One variant's figure, table and verdict; thin beside its lines those of Fig. 2 itself, where they are there."""
    of = [line for line in found if line.reading == variant]
    named = [replace(line, reading="") for line in of]  # the title says what they have in common
    usual = [replace(line, reading="Gaussian") for line in found if not line.reading]
    part = f"{name}-{re.sub(r'[^a-z0-9]+', '-', variant.lower())}"
    title = f"Test accuracy under input corruption, {words}: {dataset_name(context['dataset'])}"
    law = law_of(variant, context)
    panels = [
        Panel(
            panel_title(arch, of_arch(of, arch)),
            [line.learned() for line in (*of_arch(named, arch), *of_arch(usual, arch))],
        )
        for arch in archs(of)
    ]
    spread, below = spread_of(context), context["below_paper_scale"]
    under = (
        f"Eq. 8, x → √(1 − σ²) x + σ δ{draws_of(context)}. Line: mean over runs; band: {SPREADS[spread]}"
        f"{'; thin: Gaussian nodes' if usual else ''}. {law}Preset {context['preset']}."
    )
    shown = Words(Head(title, under, below), r"$\sigma_\mathrm{noise}$", "", fates([*named, *usual]))
    save_figure(out, part, accuracy_figure(panels, shown, spread))
    save_text(out, f"{part}.csv", as_csv(of, "sigma_noise"))
    caption = (
        f"Accuracy in % on {dataset_name(context['dataset'])} under Eq. 8{draws_of(context)}, {words}; mean ± {SPREADS[spread]}; n = "
        f"runs with a finite accuracy. {law}Preset {context['preset']}. The paper shows a picture only (5 runs)."
    )
    blocks = [f"# {title}", caption, markdown.scale_note(context)]
    for arch in archs(of):
        blocks += [
            f"## {panel_title(arch, of_arch(of, arch))}",
            accuracy_table([*of_arch(of, arch), *of_arch(usual, arch)], spread, "σ"),
        ]
    claim = ["## Claim", claims_table([verdict]), claim_block(verdict)]
    save_text(out, f"{part}.md", markdown.document(*blocks, *further, *claim))


def law_of(variant: str, context: Mapping[str, Any]) -> str:
    """What ε of the nodes is drawn from, in a sentence; '' where it is the Gaussian or not known."""
    settings = context.get("distributions", {}).get(variant, {"name": "gaussian"})
    return f"Nodes' ε: {LAWS[settings['name']].format(**settings)}. " if settings["name"] in LAWS else ""


def draws_of(context: Mapping[str, Any]) -> str:
    """', 1 draw of δ an image', where the provenance says so."""
    found = {of["corruption"]["draws"] for of in context.get("evaluations", {}).values() if "corruption" in of}
    return f", {markdown.counted(found.pop(), 'draw')} of δ an image" if len(found) == 1 else ""


def judge_optimizer(variant: str, found: Sequence[Line], note: str) -> Verdict:
    """N1 asked again of the runs with another optimiser; the paper shows their curves without a claim in words."""
    by_arch = {
        arch: {line.method: line for line in found if line.arch == arch and line.reading == variant}
        for arch in PAPER_ARCHS
    }

    statement = f"With {variant} too NINR is the most robust to Eq. 8 noise, in-NINR (catapult) best."
    return judged(f"N1, {variant}", statement, N1_RULE, by_arch, n1, note)


def judge(variant: str, found: Sequence[Line], note: str) -> Verdict:
    """N11 for one distribution: alike with the Gaussian, but for a catapult whose noise has two peaks."""
    by_arch: dict[str, Lines] = {}
    for arch in PAPER_ARCHS:
        of = [line for line in found if line.arch == arch and line.reading in ("", variant)]
        by_arch[arch] = {line.label: line for line in of} if any(line.reading for line in of) else {}

    def compare(arch: str, those: Lines) -> list[Part]:
        large, parts = at_large_noise(those), []
        for method in (*DECAY, *CATAPULT):
            pair = label(method, variant), label(method)
            interval = between(those, *pair, large)
            rule = judge_apart if variant in TWO_PEAKS and method in CATAPULT else judge_alike
            parts.append(made(arch, those, *pair, "large noise", interval, rule(interval)))
        return parts

    statement = f"With {variant} noise NINR does as with Gaussian noise"
    statement += ", but for the catapult phase." if variant in TWO_PEAKS else "."
    return judged(f"N11, {variant}", statement, N11_RULE, by_arch, compare, note)


def judge_apart(interval: Interval) -> str:
    """'Not alike': `judge_alike` the other way round."""
    if too_few(interval):
        return UNDER_POWERED
    if interval.wholly_outside(1):
        return REPRODUCED
    return CONTRADICTED if interval.wholly_inside(1) else undecided(interval)


TABLE_3 = (
    "As printed, decay (catapult); the last two columns are the η σ_ε² that follow. The printed table leaves the fully connected full-NINR "
    "empty: those two, marked *inferred*, come from the η σ_ε² that all other cells keep."
)


def table_3() -> str:
    """sigma_epsilon by optimiser, network and node, with eta sigma_epsilon^2."""
    ninr = paper_numbers()["ninr"]
    printed = {"sgd": ninr["figure_2"]["sigma_epsilon"], **ninr["table_3"]["sigma_epsilon"]}
    inferred, rates = ninr["table_3_inferred"]["sigma_epsilon"], ninr["learning_rate"]
    body = []
    for optimizer, by_arch in printed.items():
        for arch in by_arch:
            known = {**inferred.get(optimizer, {}).get(arch, {}), **by_arch[arch]}
            sigmas, products, rate = [], [], rates[optimizer][arch]
            for node in ("in_ninr", "full_ninr"):
                decay, catapult = known[f"{node}_decay"], known[f"{node}_catapult"]
                mark = "" if f"{node}_decay" in by_arch[arch] else " *inferred*"
                sigmas.append(f"{decay:g} ({catapult:g}){mark}")
                products.append(f"{rate * decay**2:.3g} ({rate * catapult**2:.4g})")
            name = {"sgd": "SGD (Fig. 2)", "rmsprop": "RMSprop", "adam": "Adam"}[optimizer]
            body.append([name, arch_name(arch), f"{rate:g}", *sigmas, *products])
    header = ["optimiser", "network", "η", "in-NINR", "full-NINR", "in-NINR, η σ_ε²", "full-NINR, η σ_ε²"]
    return markdown.table(header, body)
