"""Fig. 2 of the NINR paper: test accuracy against sigma_noise of Eq. 8, for every method, FC and CNN; claims N1 to N5.

The paper gives its curves as a picture only. What it prints are the clean accuracies (Table 2), which stand beside
ours at sigma_noise = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from noise_reg.artefacts import markdown
from noise_reg.artefacts.claims import PAPER_DATASET, judge_claims
from noise_reg.artefacts.curves import SPREADS, Panel, Words, accuracy_figure
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.lines import Line, archs, lines, of_arch
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.paper import printed
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.tables import accuracy_table, as_csv, claim_block, claims_table, fates, panel_title, spread_of
from noise_reg.artefacts.verdicts import Verdict, note_of
from noise_reg.errors import UserError

SOURCE = "Noise Injection Node Regularization for Robust Learning, Fig. 2"
PAPER_CURVES = (
    "The paper shows these curves as a picture only; its clean accuracies are in Table 2. Its caption names L2, "
    "dropout, in- and full-NINR and CDT 0.4; 'no regulariser' is drawn here as well."
)
NO_SIGNAL = "At σ = 1 nothing is left of the image and every line is at chance (numbers in the table)."
TITLE = "Test accuracy under input corruption"


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig2.png, .svg, .md, .csv under `out`, and the verdicts on N1 to N5."""
    found = lines(rows)
    note = note_of(context, PAPER_DATASET, dataset_name(context["dataset"]))
    verdicts = judge_claims(found, rows.history, note)
    save_figure(out, "fig2", figure(found, context))
    save_text(out, "fig2.csv", as_csv(found, "sigma_noise"))
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
            *fates(found),
            *([NO_SIGNAL] if any(1.0 in line.summaries() for line in found) else []),
        ],
    )
    return accuracy_figure(panels, words, spread_of(context))


def as_markdown(found: Sequence[Line], context: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    spread = spread_of(context)
    caption = (
        f"Accuracy in % on {dataset_name(context['dataset'])} under Eq. 8, mean ± {SPREADS[spread]}; n = runs with a "
        f"finite accuracy. A cell whose n differs says so in brackets. Preset {context['preset']}."
    )
    blocks = [f"# {TITLE}", caption, markdown.scale_note(context)]
    for arch in archs(found):
        of = of_arch(found, arch)
        blocks += [f"## {panel_title(arch, of)}", accuracy_table(of, spread, "σ")]
    if context["dataset"] == PAPER_DATASET:
        blocks.append(PAPER_CURVES)
    else:
        blocks.append("The paper has no numbers for this data set.")
    return markdown.document(*blocks, "## Claims", claims_table(verdicts), *(claim_block(v) for v in verdicts))
