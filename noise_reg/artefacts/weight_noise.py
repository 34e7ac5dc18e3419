"""Weight noise as a gradient penalty (Deep Learning, section 7.5), measured: claims W1 to W4 and the picture of flat and sharp
minima."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from noise_reg.artefacts import markdown
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.statistics import summarise
from noise_reg.artefacts.tables import claims_table
from noise_reg.artefacts.verdicts import Verdict, interval_text, size_text
from noise_reg.artefacts.weight_noise_claims import added_at, gains, joint_means, judge, moments
from noise_reg.artefacts.weight_noise_figure import TITLE, figure
from noise_reg.decimals import shortest

SOURCE = "Deep Learning (Goodfellow, Bengio, Courville), section 7.5, Eqs 7.31 and 7.32"
TABLES = ("expansion", "moments", "runs", "flatness", "lines")


def draw(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """weight_noise.png, .svg, .md under `out`, and the verdicts."""
    verdicts = judge(tables)
    save_figure(out, "weight_noise", figure(tables, context, joint_means(tables["moments"]), gains(tables["flatness"])))
    save_text(out, "weight_noise.md", as_markdown(tables, context, verdicts))
    return verdicts


def as_markdown(tables: Mapping[str, pd.DataFrame], context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    settings = context["settings"]
    caption = (
        f"{dataset_name(context['dataset'])}, squared error summed over the classes against one-hot targets, pixels in [0, 1]; noise "
        f"N(0, η) on every weight and bias. {settings['draws']} pairs ±ε, {settings['images']} training images, fp64, one network "
        "each. The text gives no numbers. P = E|∇_W y|² and L = E[(y − t) Δ_W y] are closed forms, '± s' is a standard error."
    )
    claims_of = {v.rule: [w.claim for w in verdicts if w.rule == v.rule] for v in verdicts}
    rules = [f"- {'; '.join(claims)}: {rule}" for rule, claims in claims_of.items()]
    parts = [[v.claim, p.comparison, interval_text(p), size_text(p), p.verdict] for v in verdicts for p in v.numbers]
    return markdown.document(
        f"# {TITLE}",
        caption,
        markdown.scale_note(context),
        expansion_table(tables),
        "One layer is linear in its weights: J is quadratic in them and the expansion ends there. Two linear layers are not, but each "
        "weight enters linearly, so L = 0. A ReLU's Δ_W y is 0 almost everywhere, yet noise carries units over their kinks, where it is "
        "not: what is left goes with η itself until η is too small to reach any image's next kink. The mean of that, with a hidden unit's "
        "z of noise s² = η (|x|² + 1), is 2 E[(y − t) W (s φ(z/s) − |z| Φ(−|z|/s))], W the output's weights: the claim 'W1, kinks'.",
        "W3 is of the first-order change b. With the whole change of the output the cross term is the column `shift` of expansion.csv, "
        "whose mean is η L (ReLU: `kinks`), not 0.",
        "## Solutions compared",
        runs_caption(settings),
        runs_table(tables),
        f"The figure's lines along random directions: from each method's solution (first seed) {settings['directions']} directions drawn from "
        "N(0, I) in weight space, the same ones for every method; the loss at t of their standard deviations, which is one draw of noise with "
        "η = t². That is the text's picture of a minimum that a perturbation leaves where the loss is as small: the flatter, the less noise adds.",
        "## Claims",
        claims_table(verdicts),
        markdown.table(["claim", "part", "difference [interval]", "n", "verdict"], parts),
        "\n".join(rules),
    )


def expansion_table(tables: Mapping[str, pd.DataFrame]) -> str:
    etas = sorted(set(tables["expansion"]["eta"]))
    shown = [etas[0], etas[len(etas) // 3], etas[2 * len(etas) // 3], etas[-1]]
    ratios = {(name, epoch): rows.set_index("eta") for name, epoch, rows in moments(tables["expansion"])}
    body = []
    for r in tables["moments"].to_dict("records"):
        of = ratios[r["network"], r["epoch"]]
        found = [
            f"{of.loc[e, 'added'] / of.loc[e, 'penalty']:.3f} ± {of.loc[e, 'added_error'] / of.loc[e, 'penalty']:.1g}"
            for e in shown
        ]
        exact = [f"{1 + of.loc[e, 'rest_1'] / of.loc[e, 'penalty']:.4f}" for e in shown]
        drawn = f"{r['curvature_drawn']:.3g} ± {r['curvature_drawn_error']:.1g}"
        body.append(
            [r["network"], str(r["epoch"]), f"{r['loss']:.3f}", f"{r['penalty']:.4g}", f"{r['curvature']:.3g}", drawn]
            + [f"{a} ({b})" for a, b in zip(found, exact, strict=True)]
        )
    header = ["network", "epoch", "J", "P", "L", "L drawn", *(f"(J̃ − J) / ηP, η = {shortest(e)}" for e in shown)]
    return (
        markdown.table(header, body) + "\n\nIn brackets the same with each draw's own terms taken off, as it is judged."
    )


def runs_caption(settings: Mapping[str, Any]) -> str:
    trainings = "; ".join(f"{name}: {markdown.code(own)}" for name, own in settings["trainings"].items())
    return (
        f"{settings['seeds']} seeds, mean ± sd. Every run: {markdown.code(settings['overrides'])}; {trainings}. 'noise per sample' draws the weights' noise anew for each sample, as the text has it, "
        "'noise per mini-batch' for each mini-batch. Flatness is what noise of the η in the last columns adds to J, over "
        f"{settings['probe_draws']} pairs; J, P, |∇J| and flatness on {settings['images']} training images."
    )


def runs_table(tables: Mapping[str, pd.DataFrame]) -> str:
    strengths = sorted(set(tables["runs"]["eta"]) - {0.0})
    body = []
    for (training, method, eta), runs in tables["runs"].groupby(["training", "method", "eta"], sort=False):
        of = tables["flatness"]
        own = of[(of["training"] == training)]
        flat = [list(added_at(own, str(method), float(str(eta)), probe).values()) for probe in strengths]
        columns = [runs[name].tolist() for name in ("loss", "test_error", "penalty", "curvature", "gradient_norm")]
        done = int((runs["status"] == "completed").sum())
        cells = [f"{s.mean:.3g} ± {s.sd:.1g}" for s in map(summarise, columns + flat)]
        body.append([str(training), str(method), f"{shortest(eta)}", f"{done} of {len(runs)}", *cells])
    header = ["training", "method", "η", "completed", "J", "test error in %", "P", "L", "|∇J|"]
    return markdown.table([*header, *(f"flatness, η = {shortest(eta)}" for eta in strengths)], body)
