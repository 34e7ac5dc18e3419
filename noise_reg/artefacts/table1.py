"""Table 1 of the NINR paper: domain shift, trained on MNIST, tested on USPS brought to MNIST's format; claim N12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from noise_reg.artefacts import markdown
from noise_reg.artefacts.claims import CATAPULT, DECAY, Lines, clean_values, greater, judged, of_default
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.head import Head
from noise_reg.artefacts.lines import Line, lines
from noise_reg.artefacts.methods import arch_name, dataset_name
from noise_reg.artefacts.numbers import Subject, draw_numbers, plus_minus
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import summarise
from noise_reg.artefacts.tables import claim_block, claims_table
from noise_reg.artefacts.verdicts import Part, Verdict, note_of
from noise_reg.errors import UserError

SOURCE = "Noise Injection Node Regularization for Robust Learning, Table 1"
MAIN = "usps_mass_bilinear_source"
READINGS = {  # reading 14, by evaluation
    MAIN: "centre of mass, bilinear, MNIST's statistics (default)",
    "usps_box_bilinear_source": "bounding box's centre",
    "usps_mass_bicubic_source": "bicubic",
    "usps_mass_bilinear_target": "standardised by USPS's own statistics",
}
N12_RULE = (
    "Accuracy on USPS, each NINR method − no regulariser, and for the CNN catapults also − each other method of the table. A "
    "part is reproduced if its interval lies above 0, contradicted if the difference is negative with Holm's p < 0.05 over the "
    "comparisons of the architecture; otherwise under-powered if the half-width exceeds 2 points, else inconclusive."
)
SUBJECT = Subject(
    "table1",
    "table_1",
    "Accuracy on USPS after training on MNIST",
    "the USPS test images, brought to 28 × 28, of networks trained on MNIST",
    "USPS test",
)


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """table1.md, .csv, .png, .svg under `out`, a verdict on every number that the paper prints, and on N12."""
    found = shifted(rows, MAIN)
    if not any(line.clean for line in found):
        raise UserError(f"table1: the rows hold no evaluation {MAIN}")
    n12 = judge(found, note_of(context, SUBJECT.dataset, dataset_name(context["dataset"])))
    further = ["## Claim", claims_table([n12]), claim_block(n12), "## Readings", readings_table(rows)]
    return [*draw_numbers(SUBJECT, found, context, out, *further), n12]


def shifted(rows: Rows, evaluation: str) -> list[Line]:
    """The lines with the accuracy on the other data set (percent, by seed) in place of the clean one."""
    return [replace(line, clean=line.at([0.0])) for line in lines(rows, evaluation)]


def judge(found: Sequence[Line], note: str) -> Verdict:
    statement = "NINR helps domain shift from MNIST to USPS, most in the catapult phase of the CNN."
    return judged("N12", statement, N12_RULE, of_default(found), compare, note)


def compare(arch: str, those: Lines) -> list[Part]:
    pairs = [(method, "none") for method in (*DECAY, *CATAPULT)]
    if arch == "cnn":
        pairs += [(method, rival) for method in CATAPULT for rival in ("l2", "dropout", *DECAY)]
    return greater(arch, those, pairs, clean_values, "USPS")


def readings_table(rows: Rows) -> str:
    """MNIST's own test accuracy, and USPS's under each reading of how its images are converted."""
    by_reading = {evaluation: shifted(rows, evaluation) for evaluation in READINGS}
    body = []
    for n, line in enumerate(lines(rows)):
        cells = [plus_minus(summarise(list(line.clean.values())))]
        cells += [plus_minus(summarise(list(found[n].clean.values()))) for found in by_reading.values()]
        body.append([arch_name(line.arch), line.label, *cells])
    return markdown.table(["network", "method", "MNIST", *READINGS.values()], body)


CENTRINGS = {"mass": "its centre of mass", "box": "its bounding box's centre"}


def draw_digits(
    before: NDArray[np.uint8], after: Mapping[str, NDArray[np.uint8]], labels: NDArray[np.int64], out: Path
) -> None:
    """table1-digits.png, .svg, .md: for each digit the first image before (N, H, W) and after (N, 28, 28) its conversion, a row
    for each centring."""
    rows = ["as it comes", *(f"centred by {CENTRINGS[centring]}" for centring in after)]
    head = Head("USPS test images before and after conversion", f"First of each digit; rows: {', '.join(rows)}.", "")
    width, side = 9.0, 0.84
    height = head.height(width) + 0.1 + 0.9 * len(rows)
    figure = Figure(figsize=(width, height))
    head.write(figure, 0.15)
    for column, digit in enumerate(sorted(set(labels.tolist()))):
        place = int(np.flatnonzero(labels == digit)[0])
        for row, images in enumerate((before, *after.values())):
            up = 0.9 * (len(rows) - 1 - row) + 0.05
            axes = figure.add_axes((0.02 + 0.097 * column, up / height, side / width, side / height))
            axes.imshow(images[place], cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
    save_figure(out, "table1-digits", figure)
    size = f"{before.shape[1]} × {before.shape[2]}"
    words = (
        f"Above, USPS as it comes ({size}); below, its longer side scaled to 20 pixels and moved by whole pixels until the middle of "
        f"28 × 28 is {' or '.join(CENTRINGS[centring] for centring in after)}. LeCun et al. (1998) took the centre of mass for MNIST."
    )
    save_text(out, "table1-digits.md", markdown.document("# USPS test images before and after conversion", words))
