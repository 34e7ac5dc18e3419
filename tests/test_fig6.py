"""Fig. 6: N10's verdict follows its rule, tables tell hidden gradients and the certificate, and a smoke run makes it all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from noise_reg.artefacts import REGISTRY, fig6, redraw
from noise_reg.artefacts.rows import Rows, read_rows
from noise_reg.cli.reproduce import reproduce
from noise_reg.errors import UserError
from tests.composed import composed
from tests.made_rows import CONTEXT, made_rows, wobble

UNDER_ATTACK = {"none": 30.0, "l2": 31.0, "dropout": 60.0, "in_ninr_catapult": 50.0}
CONTEXT_6 = {
    **CONTEXT,
    "pixel_scale": [0.125],
    "evaluations": {
        arch: {
            "pgd": {"images": 500, "steps": 20, "step": 0.125, "clip": True},
            "certificate_autoattack": {"images": 400, "delta": 0.03, "large": 0.3},
        }
        for arch in ("fc", "cnn")
    },
}


def attacked(attack: str, truth: dict[str, float]) -> Rows:
    """Four runs a method; accuracy falls from 88 % to `truth` at every delta that is judged, and to 0 at 0.3."""
    rows = made_rows(dict.fromkeys(truth, (88.0, 88.0, 88.0)), early_loss=None)
    made = []
    for which, (_, run) in enumerate(rows.runs.iterrows()):
        level = truth[run["method"]] + wobble(int(run["seed"]), which % 7, 0.3)
        made += [(run["key"], attack, delta, level / 100) for delta in fig6.JUDGED]
        made += [(run["key"], attack, 0.0, 0.88), (run["key"], attack, 0.3, 0.0)]
        for kind, share in (("zero", 0.4), ("rounded", 0.6)):
            share *= run["method"] == "dropout"
            made.append((run["key"], f"{attack}_{kind}_gradients", 0.0, share))
    return Rows(rows.runs, pd.DataFrame(made, columns=rows.evaluations.columns))


def certificate(rows: Rows, autoattack: float = 0.3, foolbox: float = 0.4) -> Rows:
    key = rows.runs["key"][0]
    values = [
        ("clean", 0.0, 0.9),
        ("autoattack", 0.03, autoattack),
        ("foolbox_fgsm", 0.03, foolbox),
        ("foolbox_fgsm", 0.3, 0.1),
    ]
    for kind, level in (("fgsm", 0.4), ("pgd", 0.32)):
        values += [(kind, 0.0, 0.9), (kind, 0.03, level), (kind, 0.3, 0.1)]
    values += [("art_pgd", 0.03, 0.31), ("art_pgd", 0.3, 0.1), ("pgd_stable", 0.03, 0.315)]
    more = [(key, f"certificate_{kind}", delta, value) for kind, delta, value in values]
    return Rows(rows.runs, pd.concat([rows.evaluations, pd.DataFrame(more, columns=rows.evaluations.columns)]))


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("attack", "changes", "verdict"),
    [
        ("fgsm", {}, "reproduced"),
        ("fgsm", {"in_ninr_catapult": 70.0}, "contradicted"),
        ("pgd", {}, "contradicted"),
        ("pgd", {"in_ninr_catapult": 70.0}, "reproduced"),
    ],
)
def test_the_verdict_follows_the_rule(attack: str, changes: dict[str, float], verdict: str, tmp_path: Path) -> None:
    rows = attacked(attack, {**UNDER_ATTACK, **changes})
    (found,) = REGISTRY["fig6"].build(rows, CONTEXT_6, tmp_path)
    assert (found.claim, found.verdict) == (f"N10, {fig6.ATTACKS[attack][0]}", verdict)
    assert redraw(tmp_path) == [found]


@pytest.mark.usefixtures("unrendered")
def test_tables_name_settings_units_hidden_gradients_and_the_certificate(tmp_path: Path) -> None:
    REGISTRY["fig6"].build(certificate(attacked("pgd", UNDER_ATTACK)), CONTEXT_6, tmp_path)
    text = " ".join((tmp_path / "fig6-pgd.md").read_text().split())
    assert (
        "20 steps of 0.125 δ" in text and "500 images" in text and "δ = 0.01 is 0.080 of the standardised image" in text
    )
    assert "| FC | Dropout | 40.0 (40.0 to 40.0) | 60.0 (60.0 to 60.0) | 4 |" in text
    assert "| FC | no regulariser | 0 | 90.0 | 40.0 | 40.0 | 32.0 | 31.0 | 31.5 | 30.0 | 10.0 | holds |" in text
    assert "| FC | Dropout | – |" in text and "| none: no run that learned |" in text
    table = pd.read_csv(tmp_path / "fig6-pgd.csv")
    assert table["delta_standardized"].tolist() == pytest.approx((table["delta_pixel"] / 0.125).tolist(), rel=1e-5)


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"autoattack": 0.2}, "masked"), ({"foolbox": 0.41}, "FGSM 1 points from foolbox's")],
)
def test_a_certificate_that_does_not_hold_says_why(changes: dict[str, float], fault: str, tmp_path: Path) -> None:
    rows = certificate(attacked("pgd", UNDER_ATTACK), **changes)
    REGISTRY["fig6"].build(rows, CONTEXT_6, tmp_path)
    assert fault in (tmp_path / "fig6-pgd.md").read_text()
    told = (
        "masked, by more than 5 points: FC, no regulariser." if fault == "masked" else "within 5 points of PGD for all."
    )
    assert fig6.masking(fig6.certificates(rows)) == [
        f"AutoAttack at δ = 0.03 on one replica of each of 1 methods and networks: {told}"
    ]


def test_rows_without_an_attack_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="fig6: the rows hold no evaluation of fgsm, fgsm_clamped, fgsm_stable, pgd, pgd_stable"
    ):
        REGISTRY["fig6"].build(made_rows(), CONTEXT, tmp_path)


def test_it_is_made_from_its_configuration(tmp_path: Path) -> None:
    overrides = [
        "artefact=fig6", "preset=smoke", "attack=light", f"store={tmp_path}/store", f"results={tmp_path}", "name=smoke", "wandb=disabled",
        "artefact.overrides=['dataset=digits']", "artefact.panels.fc=['arch=fc_small']", "~artefact.panels.cnn",
        "artefact.methods=[['regularizer=none'],['regularizer=in_ninr_decay']]", "attack.certificate.images=20",
        "preset.panels.fc.overrides=['max_epochs=3','optimizer.batch_size=32']", "preset.panels.fc.certificate=true",
    ]  # fmt: skip
    with composed("reproduce", *overrides) as cfg:
        reproduce(cfg)
    folder = tmp_path / "fig6-smoke"
    written = {path.name for path in folder.iterdir()}
    assert {f"fig6-{attack}.{ending}" for attack in fig6.ATTACKS for ending in ("png", "svg", "md", "csv")} <= written
    rows = read_rows(folder).evaluations
    certified = rows[rows["evaluation"] == "certificate_autoattack"]
    assert len(certified) == 2 and (certified["strength"] == 0.03).all()
    values = rows.set_index(["key", "evaluation", "strength"])["accuracy"]
    for key in certified["key"]:
        assert values[key, "certificate_fgsm", 0.03] == values[key, "certificate_foolbox_fgsm", 0.03]
        assert values[key, "certificate_autoattack", 0.03] <= values[key, "certificate_pgd", 0.03] + 0.05
    assert "## Certificate" in (folder / "fig6-fgsm.md").read_text()
