"""The measured study of section 2.1: verdicts follow their rules, a smoke run makes it, bad settings are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from noise_reg.artefacts import EVERY, redraw
from noise_reg.artefacts.meters import made_with
from noise_reg.meter_study import study
from noise_reg.spec import SpecError
from tests.composed import composed

SETTINGS = {"draws": 8, "images": 10, "vectors": 4, "batch": 5, "spectrum_images": 3}
CONTEXT: dict[str, Any] = {"preset": "smoke", "dataset": "fmnist", "below_paper_scale": "", "settings": SETTINGS}


def tables(*, slope: float = -0.5, lowest: float = 0.0, off: float = 0.0) -> dict[str, pd.DataFrame]:
    at = {"network": "decay", "epoch": 0}
    numbers = {
        "sigma": 88.6,
        "loss": 2.3,
        "nin_norm": 1.0,
        "gradient_norm": 0.2,
        "r1_rms": 0.1,
        "r2": 2.0,
        "r2_sd": 0.1,
    }
    numbers |= {"trace": 0.2, "trace_error": 0.01, "corrupted_r2": 0.1, "corrupted_r2_error": 0.01}
    batch = [
        {**at, "batch": b, "k": k, "rms": b ** (slope if k % 2 else 0.0) * (1 + 1e-4 * b % 3), "rms_error": 0.01}
        for k in (1, 2, 3, 4)
        for b in (8, 32, 128, 512)
    ]
    return {
        "course": pd.DataFrame([{**at, **numbers}]),
        "expansion": pd.DataFrame(
            [{**at, "sigma": s, "added": (1 + off) * s, "r1": s, "r2": 0.0} for s in (0.01, 0.1, 9)]
        ),
        "batch": pd.DataFrame(batch),
        "spectrum": pd.DataFrame(
            [{**at, "loss": loss, "lowest": lowest, "highest": 1.0} for loss in ("squared", "exact")]
        ),
    }


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"Eq. 4": "reproduced", "N8": "reproduced", "N9": "reproduced"}),
        ({"off": 0.2}, {"Eq. 4": "contradicted", "N8": "reproduced", "N9": "reproduced"}),
        ({"slope": 0.0}, {"Eq. 4": "reproduced", "N8": "contradicted", "N9": "reproduced"}),
        ({"lowest": -0.01}, {"Eq. 4": "reproduced", "N8": "reproduced", "N9": "contradicted"}),
    ],
)
def test_verdicts_follow_their_rules(changes: dict[str, float], expected: dict[str, str], tmp_path: Path) -> None:
    verdicts = EVERY["meters"].build(tables(**changes), CONTEXT, tmp_path)
    assert {v.claim: v.verdict for v in verdicts} == expected
    assert redraw(tmp_path) == verdicts


def test_a_folder_of_an_older_version_says_what_its_settings_do() -> None:
    asked = ["arch=fc", "arch.widths=[8]", "optimizer.batch_size=1000", "arch.widths=[16]"]
    assert made_with({"settings": {"overrides": asked}}) == "FC 16, B = 1000"


FEW = ["epochs=[0,1]", "draws=4", "images=60", "vectors=3", "spectrum_images=20", "batch=40", "batch_sizes=[8,16,32]"]
SMALL = ["overrides=['dataset=digits','arch=fc','arch.widths=[12]','optimizer.learning_rate=0.01']", "wandb=disabled"]


def test_it_is_made_from_its_configuration(tmp_path: Path) -> None:
    with composed("meters", *FEW, *SMALL, f"store={tmp_path}/store", f"results={tmp_path}", "name=small") as cfg:
        study(cfg)
    assert "FC 64-12-10, η = 0.01, B = 128" in (tmp_path / "meters-small" / "meters.md").read_text()
    course = pd.read_csv(tmp_path / "meters-small" / "course.csv")
    assert course["network"].tolist() == ["decay", "decay", "catapult", "catapult"] and course["epoch"].tolist() == [
        0,
        1,
        0,
        1,
    ]
    assert (course["r2"] > 0).all() and course["nin_norm"][0] == pytest.approx(course["nin_norm"][2])
    spectrum = pd.read_csv(tmp_path / "meters-small" / "spectrum.csv")
    assert (spectrum["lowest"] > -1e-10).all() and set(spectrum["network"]) == {"decay", "catapult", "linear"}
    assert str(tmp_path) not in (tmp_path / "meters-small" / "provenance.json").read_text()
    assert {"meters.png", "meters.svg", "meters.md"} <= {path.name for path in (tmp_path / "meters-small").iterdir()}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch=0", "batch = 0: must be a whole number of at least 2"),
        ("sigmas=[a]", r"sigmas = \['a'\]: must be a rising list"),
        ("draws=1", "draws = 1: must be a whole number of at least 2"),
        ("epochs=[2,1]", r"epochs = \[2, 1\]: must be a rising list"),
        ("sigmas=[-1]", r"sigmas = \[-1\]: must be a rising list of numbers of at least 0"),
        ("batch_sizes=[8,16]", "must be at least three numbers"),
    ],
)
def test_impossible_settings_are_named(override: str, message: str) -> None:
    with composed("meters", override) as cfg, pytest.raises(SpecError, match=message):
        study(cfg)
