"""Fig. 6 of the NINR paper: test accuracy under FGSM and PGD, FC and CNN; claim N10.

The paper gives its curves as a picture only, and neither the loss whose gradient it climbs nor PGD's steps. Beside each other stand
the exact cross-entropy with a gradient as libraries compute it, of which rounding takes the true class's part where a network is
confident; the same with a gradient that does not round; and (FGSM) the clamped loss that the networks were trained with, whose
gradient is exactly 0 for confident images. Accuracy that rests on rounding or clamp is masked, not robust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noise_reg.artefacts import markdown
from noise_reg.artefacts.claims import BEST, PAPER_DATASET, Lines, greater, judged, of_default
from noise_reg.artefacts.curves import SPREADS, Panel, Words, accuracy_figure
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.lines import SAME_STRENGTH, Line, archs, classes_of, lines, of_arch
from noise_reg.artefacts.methods import arch_name, dataset_name
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.tables import accuracy_table, as_csv, claim_block, claims_table, fates, panel_title, spread_of
from noise_reg.artefacts.verdicts import Part, Verdict, note_of
from noise_reg.errors import UserError

SOURCE = "Noise Injection Node Regularization for Robust Learning, Fig. 6 and Eq. 17"
ATTACKS = {  # evaluation: its name, and what it climbs
    "fgsm": ("FGSM", "one step of δ along the sign of the gradient of the exact cross-entropy"),
    "fgsm_clamped": ("FGSM on the training loss", "one step of δ along the sign of the gradient of the clamped loss"),
    "fgsm_stable": (
        "FGSM, unrounded gradient",
        "one step of δ along the sign of the gradient of the exact cross-entropy, computed so that rounding takes nothing of it",
    ),
    "pgd": ("PGD", "{steps} steps of {step:g} δ within the ball of δ, from the image; exact cross-entropy"),
    "pgd_stable": (
        "PGD, unrounded gradient",
        (
            "{steps} steps of {step:g} δ within the ball of δ, from the image; exact cross-entropy, its gradient computed so that "
            "rounding takes nothing of it"
        ),
    ),
}
DRAWN = 0.1  # the largest delta of the figures: beyond it most lines are at 0
JUDGED = (0.005, 0.01, 0.02, 0.03, 0.05)  # pixels
DROPOUT_BEST = "dropout"
PLAIN = ("none", "l2")
RULE = (
    "Per run: the mean accuracy over δ = 0.005, 0.01, 0.02, 0.03 and 0.05 (pixels from 0 to 1). {who} A part is reproduced if "
    "its interval lies above 0, contradicted if the difference is negative with Holm's p < 0.05 over the comparisons of the "
    "architecture; otherwise under-powered if the half-width exceeds 2 points, else inconclusive."
)
FGSM_WHO = "Dropout against each other method, and in-NINR (catapult), N1's best, against L2 and no regulariser."
PGD_WHO = "in-NINR (catapult), N1's best, against dropout, L2 and no regulariser."


@dataclass(frozen=True)
class Certificate:
    """Of one replica: the accuracy by library and delta."""

    arch: str
    label: str
    seed: int
    values: Mapping[tuple[str, float], float]


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig6-<attack>.png, .svg, .md, .csv under `out` for each attack in the rows, and the verdicts on N10."""
    there = [name for name in ATTACKS if (rows.evaluations["evaluation"] == name).any()]
    if not there:
        raise UserError(f"fig6: the rows hold no evaluation of {', '.join(ATTACKS)}")
    note = note_of(context, PAPER_DATASET, dataset_name(context["dataset"]))
    certified, verdicts = certificates(rows), []
    for name in there:
        found = lines(rows, name)
        one = judge(name, found, note)
        save_figure(out, f"fig6-{name}", figure(name, found, certified, context))
        save_text(out, f"fig6-{name}.csv", as_csv(found, "delta_pixel", standardized_units(context)))
        save_text(out, f"fig6-{name}.md", as_markdown(name, rows, found, certified, context, one))
        verdicts.append(one)
    return verdicts


def standardized_units(context: Mapping[str, Any]) -> dict[str, float]:
    """What delta = 1 pixel is in the standardised image, where that is one number."""
    scale = context.get("pixel_scale", [])
    return {"delta_standardized": 1 / scale[0]} if len(scale) == 1 else {}


def judge(name: str, found: Sequence[Line], note: str) -> Verdict:
    """N10 for one attack: dropout best under FGSM, NINR best under PGD."""
    pairs = [(BEST, rival) for rival in PLAIN]
    if name.startswith("pgd"):
        statement, who = "Under PGD, NINR is more robust than L2, dropout and no regulariser.", PGD_WHO
        pairs.append((BEST, DROPOUT_BEST))
    else:
        statement, who = "Under FGSM, dropout is most robust, and NINR more so than L2 and no regulariser.", FGSM_WHO

    def compare(arch: str, those: Lines) -> list[Part]:
        rivals = (
            [] if name.startswith("pgd") else [(DROPOUT_BEST, method) for method in those if method != DROPOUT_BEST]
        )
        return greater(arch, those, [*rivals, *pairs], lambda line: line.at(JUDGED), "mean over δ")

    title = f"N10, {ATTACKS[name][0]}"
    return judged(title, statement, RULE.format(who=who), of_default(found), compare, note)


def settings_of(name: str, context: Mapping[str, Any], arch: str) -> Mapping[str, Any]:
    """How `arch` was attacked, as the provenance has it."""
    found: Mapping[str, Any] = context.get("evaluations", {}).get(arch, {}).get(name, {})
    return found


def figure(name: str, found: Sequence[Line], certified: Sequence[Certificate], context: Mapping[str, Any]) -> Any:
    """One panel an architecture, up to `DRAWN`."""
    panels = []
    for arch in archs(found):
        of = of_arch(found, arch)
        shown = [up_to(line.learned(), DRAWN) for line in of]
        panels.append(Panel(f"{panel_title(arch, of)}, {images(name, context, arch)}", shown))
    head = Head(
        f"Test accuracy under attack, {ATTACKS[name][0]}: {dataset_name(context['dataset'])}",
        f"{how(name, context, archs(found)[0])}. Line: mean over runs; band: {SPREADS[spread_of(context)]}. "
        f"Preset {context['preset']}.",
        context["below_paper_scale"],
    )
    words = Words(head, r"$\delta$ (pixels from 0 to 1)", "", [*fates(found), *masking(certified)])
    return accuracy_figure(panels, words, spread_of(context))


def up_to(line: Line, largest: float) -> Line:
    return replace(line, curve=line.curve[[c for c in line.curve.columns if float(c) <= largest + SAME_STRENGTH]])


def images(name: str, context: Mapping[str, Any], arch: str) -> str:
    count = settings_of(name, context, arch).get("images")
    return f"{count} images" if count else "all test images"


def how(name: str, context: Mapping[str, Any], arch: str) -> str:
    """'PGD: 20 steps of 0.125 delta within the ball of delta ...; images kept in [0, 1]'."""
    settings = {"steps": "?", "step": 0.0, "clip": True, **settings_of(name, context, arch)}
    words = ATTACKS[name][1].format(steps=settings["steps"], step=settings["step"])
    return f"{ATTACKS[name][0]}: {words}{'; images kept in [0, 1]' if settings['clip'] else ''}"


def as_markdown(
    name: str,
    rows: Rows,
    found: Sequence[Line],
    certified: Sequence[Certificate],
    context: Mapping[str, Any],
    verdict: Verdict,
) -> str:
    spread = spread_of(context)
    units = "".join(
        f" δ = 0.01 is {0.01 * factor:.3f} of the standardised image."
        for factor in standardized_units(context).values()
    )
    caption = (
        f"{how(name, context, archs(found)[0])}. δ in pixels from 0 to 1.{units} Accuracy in %, mean ± {SPREADS[spread]}; n = "
        f"runs with a finite accuracy. Attacked in fp32, whatever a run was trained in. Preset {context['preset']}. The paper "
        "shows a picture only, and gives neither loss nor steps."
    )
    blocks = [
        f"# Test accuracy under attack: {ATTACKS[name][0]}",
        caption,
        markdown.scale_note(context),
    ]
    for arch in archs(found):
        of = of_arch(found, arch)
        blocks += [f"## {panel_title(arch, of)}, {images(name, context, arch)}", accuracy_table(of, spread, "δ")]
    shown = masked_table(rows, name)
    blocks += ["## Hidden gradients", MASKED + (ROUNDED if "rounded" in shown else ""), shown]
    blocks += certificate_blocks(found, certified, context)
    return markdown.document(*blocks, "## Claim", claims_table([verdict]), claim_block(verdict))


def certificate_blocks(
    found: Sequence[Line], certified: Sequence[Certificate], context: Mapping[str, Any]
) -> list[str]:
    """What independent libraries found on one replica of each method; nothing if they were not asked."""
    body = []
    for line in (line for line in found if line.arch in {one.arch for one in certified}):
        rows = [
            [str(one.seed), *certificate_cells(one.values, 1 / classes_of(line.runs))]
            for one in certified
            if (one.arch, one.label) == (line.arch, line.label)
        ]
        missing = [*["–"] * 9, "none: no run that learned"]
        body += [[arch_name(line.arch), line.label, *row] for row in rows or [missing]]
    if not body:
        return []
    settings = settings_of("certificate_autoattack", context, archs(found)[0])
    count, delta, large = (settings.get(name, "?") for name in ("images", "delta", "large"))
    header = [
        "network",
        "method",
        "seed",
        "clean",
        "FGSM, ours",
        "FGSM, foolbox",
        "PGD, ours",
        "PGD, ART",
        "PGD, unrounded",
        "AutoAttack",
        f"PGD at {large}",
        "certificate",
    ]
    words = f"One replica a method, the first {count} test images, accuracy in % at δ = {delta} (FGSM and PGD: and at {large})."
    return [
        "## Certificate",
        f"{words} {CERTIFICATE_RULE.format(chance=100 / classes_of(found[0].runs))}",
        markdown.table(header, body),
    ]


def certificates(rows: Rows) -> list[Certificate]:
    """Those in the rows, in the order of the lines."""
    table = rows.evaluations[rows.evaluations["evaluation"].str.startswith("certificate_")]
    by_key = dict(list(table.groupby("key")))
    found = []
    for line in lines(rows):
        for key, seed in zip(line.runs["key"], line.runs["seed"], strict=True):
            if key in by_key:
                of = by_key[key]
                columns = (of["evaluation"].str.removeprefix("certificate_"), of["strength"], of["accuracy"])
                values = {(str(e), float(s)): float(a) for e, s, a in zip(*columns, strict=True)}
                found.append(Certificate(line.arch, line.label, int(seed), values))
    return found


def masking(certified: Sequence[Certificate]) -> list[str]:
    """A note on where AutoAttack shows that accuracy under PGD is not robustness, if it was asked."""
    if not certified:
        return []
    delta, _ = certified_at(certified[0].values)
    words = f"AutoAttack at δ = {delta:g} on one replica of each of {len(certified)} methods and networks"
    masked = [f"{arch_name(one.arch)}, {one.label}" for one in certified if is_masked(one.values, delta)]
    points = f"{100 * MASKED_BY:g} points"
    told = f"masked, by more than {points}: {', '.join(masked)}" if masked else f"within {points} of PGD for all"
    return [f"{words}: {told}."]


def certified_at(values: Mapping[tuple[str, float], float]) -> tuple[float, float]:
    """The two deltas of a certificate, where the libraries are compared and where accuracy must be at chance."""
    delta, large = sorted(strength for kind, strength in values if kind == "foolbox_fgsm")
    return delta, large


def is_masked(values: Mapping[tuple[str, float], float], delta: float) -> bool:
    return values["pgd", delta] - values["autoattack", delta] > MASKED_BY


CERTIFICATE_RULE = (
    "It holds if: δ = 0 gives the clean accuracy of the exported network exactly; FGSM equals foolbox's within 10⁻⁶; PGD is no "
    "higher than FGSM; at the large δ PGD's accuracy is at most chance ({chance:.0f} %). *Masked* where AutoAttack is more than 5 points "
    "below PGD: accuracy under PGD is then not robustness."
)
MASKED_BY = 0.05


def certificate_cells(values: Mapping[tuple[str, float], float], chance: float) -> list[str]:
    """The numbers of one replica and what they certify. Keys: library and delta. chance: as a fraction."""
    delta, large = certified_at(values)
    names = [
        ("clean", 0.0),
        *((kind, delta) for kind in ("fgsm", "foolbox_fgsm", "pgd", "art_pgd", "pgd_stable", "autoattack")),
        ("pgd", large),
    ]
    faults = []
    if not values["clean", 0.0] == values["fgsm", 0.0] == values["pgd", 0.0]:
        faults.append("δ = 0 is not clean")
    apart = max(abs(values["fgsm", d] - values["foolbox_fgsm", d]) for d in (delta, large))
    if apart > 1e-6:
        faults.append(f"FGSM {100 * apart:.2g} points from foolbox's")
    if any(values["pgd", d] > values["fgsm", d] for d in (delta, large)):
        faults.append("PGD above FGSM")
    if values["pgd", large] > chance:
        faults.append("above chance at the large δ")
    if is_masked(values, delta):
        faults.append("masked")
    return [*(f"{100 * values[name]:.1f}" if name in values else "–" for name in names), "; ".join(faults) or "holds"]


MASKED = (
    "Share of test images, in %, mean over runs (lowest to highest), whose gradient is exactly 0 in every pixel: no attack that "
    "climbs it can move them."
)
ROUNDED = (
    " *Rounded*: whose gradient lacks the true class's part, since its probability rounds to 1 in float32 (a margin of 16.6): an "
    "attack that climbs it goes another way than the loss rises."
)


def masked_table(rows: Rows, name: str) -> str:
    columns = {"zero gradients": f"{name}_zero_gradients", "rounded": f"{name}_rounded_gradients"}
    found = {title: shares(lines(rows, evaluation)) for title, evaluation in columns.items()}
    found = {title: of for title, of in found.items() if of}
    body = []
    for line in lines(rows, columns["zero gradients"]):
        key = arch_name(line.arch), line.label
        cells = [of.get(key, ("–", 0)) for of in found.values()]
        if any(n for _, n in cells):
            body.append([*key, *(words for words, _ in cells), str(max(n for _, n in cells))])
    return markdown.table(["network", "method", *found, "n"], body)


def shares(found: Sequence[Line]) -> dict[tuple[str, str], tuple[str, int]]:
    """By architecture and method: '2.2 (1.6 to 2.8)' and the number of runs."""
    words = {}
    for line in found:
        values = [float(v) for v in line.curve[0.0]] if 0.0 in line.curve else []
        if values:
            text = f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            words[arch_name(line.arch), line.label] = text, len(values)
    return words
