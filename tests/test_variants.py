"""Figs 7 and 8: N11 follows its rule, Table 3 keeps eta sigma^2, and smoke runs make both from their configurations."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from noise_reg.artefacts import REGISTRY, redraw, variants
from noise_reg.artefacts.rows import Rows, read_rows
from noise_reg.cli.reproduce import reproduce
from noise_reg.errors import UserError
from noise_reg.wanted import wanted_runs
from tests.composed import composed
from tests.made_rows import AS_CLAIMED, CONTEXT, made_rows

NINR = {method: AS_CLAIMED[method] for method in AS_CLAIMED if "ninr" in method}


def both(variant: str, shift: float, only: str = "catapult") -> Rows:
    """Fig. 2's rows and the same again under `variant`, methods named `only` moved by `shift` points."""
    moved = {m: (v[0], v[1] + shift, v[2] + shift) if only in m else v for m, v in NINR.items()}
    plain, other = made_rows(NINR, early_loss=None), made_rows(moved, early_loss=None)
    names = {key: f"f{key[1:]}" for key in other.runs["key"]}
    runs = other.runs.assign(key=other.runs["key"].map(names), reading=variant)
    evaluations = other.evaluations.assign(key=other.evaluations["key"].map(names))
    return Rows(pd.concat([plain.runs, runs]), pd.concat([plain.evaluations, evaluations]))


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("variant", "shift", "only", "verdict"),
    [
        ("uniform", 0.0, "", "reproduced"),
        ("uniform", -10.0, "decay", "contradicted"),
        ("double Gaussian", -10.0, "catapult", "reproduced"),
        ("asymmetric double Gaussian", 0.0, "", "contradicted"),
        ("Laplace", 0.4, "", "reproduced"),
    ],
)
def test_n11_follows_its_rule(variant: str, shift: float, only: str, verdict: str, tmp_path: Path) -> None:
    (found,) = REGISTRY["fig7"].build(both(variant, shift, only), CONTEXT, tmp_path)
    assert (found.claim, found.verdict) == (f"N11, {variant}", verdict)
    assert redraw(tmp_path) == [found]
    part = f"fig7-{variant.lower().replace(' ', '-')}"
    assert all((tmp_path / f"{part}.{ending}").exists() for ending in ("png", "svg", "md", "csv"))


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "reproduced"), (-30.0, "contradicted")])
def test_n1_is_asked_again_of_each_optimiser(shift: float, verdict: str, tmp_path: Path) -> None:
    clean, middle, large = AS_CLAIMED["in_ninr_catapult"]
    levels = AS_CLAIMED | {"in_ninr_catapult": (clean, middle + shift, large + shift)}
    rows = made_rows(levels, early_loss=None)
    runs = rows.runs.assign(reading="Adam")
    (found,) = REGISTRY["fig8"].build(Rows(runs, rows.evaluations), CONTEXT, tmp_path)
    assert (found.claim, found.verdict) == ("N1, Adam", verdict)
    assert "### N1, Adam: " in (tmp_path / "fig8-adam.md").read_text()


@pytest.mark.usefixtures("unrendered")
def test_a_distribution_s_table_gives_its_law_its_draws_and_the_gaussian_beside(tmp_path: Path) -> None:
    law = {"name": "double_gaussian", "width": 0.1, "weight": 0.75, "df": 0.0}
    evaluations = {"fc_asymmetric": {"corruption": {"draws": 1}}}
    context = CONTEXT | {"distributions": {"asymmetric double Gaussian": law}, "evaluations": evaluations}
    REGISTRY["fig7"].build(both("asymmetric double Gaussian", -10.0), context, tmp_path)
    text = " ".join((tmp_path / "fig7-asymmetric-double-gaussian.md").read_text().split())
    assert "under Eq. 8, 1 draw of δ an image, nodes with asymmetric double Gaussian noise" in text
    assert "peaks at ±σ_ε of standard deviation 0.1 σ_ε, the upper one with probability 0.75." in text
    assert "| in-NINR (catapult), Gaussian |" in text and "| in-NINR (catapult), asymmetric double Gaussian |" in text


def test_table_3_marks_what_is_inferred_and_keeps_eta_sigma_squared() -> None:
    table = " ".join(variants.table_3().split())
    assert (
        "| RMSprop | FC | 0.0001 | 1158.2 (5179.9) | 366.3 (1158.2) *inferred* | 134 (2683) | 13.4 (134.1) |" in table
    )
    assert "| Adam | CNN | 0.01 | 6.2 (195.8) | 1.95 (138.4) | 0.384 (383.4) | 0.038 (191.5) |" in table
    assert "| SGD (Fig. 2) | FC | 0.05 | 51.8 (231.6) | 16.4 (51.8) | 134 (2682) | 13.4 (134.2) |" in table


def test_rows_without_a_variant_are_named(tmp_path: Path) -> None:
    for name in ("fig7", "fig8"):
        with pytest.raises(UserError, match=f"{name}: the rows hold no runs of a variant"):
            REGISTRY[name].build(made_rows(), CONTEXT, tmp_path)


def test_what_the_configurations_ask_for() -> None:
    with composed("reproduce", "artefact=fig7", "preset=paper") as cfg:
        fig7 = wanted_runs(cfg)
    with composed("reproduce", "artefact=fig8", "preset=paper") as cfg:
        fig8 = wanted_runs(cfg)
    with composed("reproduce", "artefact=fig2", "preset=paper") as cfg:
        fig2 = {w.job.spec.key for w in wanted_runs(cfg)}
    assert len(fig7) == 7 * 2 * 4 * 5 and len({w.job.spec.key for w in fig7}) == len(fig7)
    assert {w.job.spec.distribution.name for w in fig7 if not w.reading} == {"gaussian"}
    assert {w.job.spec.key for w in fig7 if not w.reading} <= fig2  # trained once
    assert len(fig8) == 3 * 2 * 8 * 5 and not {w.job.spec.key for w in fig8} & fig2
    rates = {(w.reading, w.job.spec.arch.name): w.job.spec.optimizer.learning_rate for w in fig8}
    adam = {(reading, arch): 0.01 for reading in ("Adam", "Adam, exact loss") for arch in ("fc", "cnn")}
    assert rates == adam | {("RMSprop", "fc"): 1e-4, ("RMSprop", "cnn"): 1e-3}
    assert {w.reading for w in fig8 if w.job.spec.reading.loss == "exact"} == {"Adam, exact loss"}
    sigmas = {(w.reading, w.job.method): w.job.spec.strengths.nin_input for w in fig8 if w.job.spec.arch.name == "fc"}
    assert sigmas["RMSprop", "in_ninr_catapult"] == 5179.9 and sigmas["Adam", "full_ninr_decay"] == 36.6


@pytest.mark.parametrize(
    ("name", "panels", "part"),
    [
        ("fig7", "{fc: ['arch=fc_small'], fc_uniform: ['arch=fc_small', 'distribution=uniform']}", "fig7-uniform"),
        ("fig8", "{fc_adam: ['arch=fc_small', 'optimizer=adam']}", "fig8-adam"),
    ],
)
def test_it_is_made_from_its_configuration(name: str, panels: str, part: str, tmp_path: Path) -> None:
    overrides = [
        f"artefact={name}", "preset=smoke", "corruption=light", f"store={tmp_path}/store", f"results={tmp_path}", "name=smoke",
        "wandb=disabled", "artefact.overrides=['dataset=digits']", "~artefact.panels", f"+artefact.panels={panels}",
        "artefact.methods=[['regularizer=in_ninr','regularizer.sigma=15'],['regularizer=full_ninr','regularizer.sigma=4']]",
        "preset.panels.fc.overrides=['max_epochs=2','optimizer.batch_size=32']",
    ]  # fmt: skip
    with composed("reproduce", *overrides) as cfg:
        reproduce(cfg)
    folder = tmp_path / f"{name}-smoke"
    assert {f"{part}.{ending}" for ending in ("png", "svg", "md", "csv")} <= {path.name for path in folder.iterdir()}
    assert len(read_rows(folder).runs) == (8 if name == "fig7" else 4)
