"""Fig. 9 of the NINR paper: the VGG-style network on CIFAR-10 under Eq. 8, with and without in-NINR, and CDT; claim N13."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noise_reg.artefacts import fig2
from noise_reg.artefacts.claims import Lines, at_large_noise, between, clean_values, greater, judged, made, of_default
from noise_reg.artefacts.folder import save_figure, save_text
from noise_reg.artefacts.lines import Line, lines
from noise_reg.artefacts.methods import dataset_name
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.statistics import judge_lower
from noise_reg.artefacts.tables import as_csv
from noise_reg.artefacts.verdicts import Part, Verdict, note_of

SOURCE = "Noise Injection Node Regularization for Robust Learning, Fig. 9 and App. D"
ARCH, DATASET = "vgg", "cifar10"
N13_RULE = (
    "Large noise as in N1 (per run the mean accuracy over σ_noise from 0.6 to 0.9), in-NINR (decay) − the network alone: reproduced "
    "if the interval lies above 0, contradicted if the difference is negative with Holm's p < 0.05. Clean, in-NINR (catapult) − "
    "the network alone after the paper's 500 epochs: reproduced if the interval lies below 0, contradicted if above 0 or wholly "
    "within ±1 point. Otherwise under-powered if the half-width exceeds 2 points, else inconclusive."
)


def draw(rows: Rows, context: Mapping[str, Any], out: Path) -> list[Verdict]:
    """fig9.png, .svg, .md, .csv under `out`, and the verdict on N13."""
    found = lines(rows)
    verdicts = [judge(found, note_of(context, DATASET, dataset_name(context["dataset"])))]
    save_figure(out, "fig9", fig2.figure(found, context))
    save_text(out, "fig9.csv", as_csv(found, "sigma_noise"))
    save_text(out, "fig9.md", fig2.as_markdown(found, context, verdicts))
    return verdicts


def judge(found: Sequence[Line], note: str) -> Verdict:
    statement = (
        "On CIFAR-10 decay-phase in-NINR helps; the catapult has not regained its clean accuracy after 500 epochs."
    )
    return judged("N13", statement, N13_RULE, of_default(found, [ARCH]), compare, note)


def compare(arch: str, those: Lines) -> list[Part]:
    loss = between(those, "in_ninr_catapult", "none", clean_values)
    return [
        *greater(arch, those, [("in_ninr_decay", "none")], at_large_noise(those), "large noise"),
        made(arch, those, "in_ninr_catapult", "none", "clean", loss, judge_lower(loss)),
    ]
