"""Studies: measured from settings, drawn from their tables, redrawn to the same bytes, refused when impossible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from noise_reg.artefacts import redraw
from noise_reg.artefacts.report import build_report
from noise_reg.artefacts.studies import STUDIES
from noise_reg.errors import UserError
from tests.composed import CONF, composed
from tests.forked import run_script

FEW = ["grid=13", "samples=500", "repeats=400", "bound_draws=2000", "steps=80", "batch_sizes=[4,16,64,256]"]


def settings(*overrides: str) -> dict[str, Any]:
    with composed("study", *(f"study.{override}" for override in overrides)) as cfg:
        found: dict[str, Any] = OmegaConf.to_container(cfg.study)  # type: ignore[assignment]
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, few = tmp_path_factory.mktemp("results") / "toy", settings(*FEW)
    STUDIES["toy"].build(STUDIES["toy"].measure(few), {"settings": few, "date": "2000-01-01"}, folder)
    return folder


def verdict(folder: Path, claim: str) -> dict[str, Any]:
    (found,) = (v for v in json.loads((folder / "verdicts.json").read_text()) if v["claim"] == claim)
    return dict(found)


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_has_its_settings(study: str) -> None:
    assert sorted(path.stem for path in (CONF / "study").glob("*.yaml")) == sorted(STUDIES)
    assert settings()["name"] == study
    STUDIES[study].check(settings())


def test_the_toy_model_bears_out_its_equations_but_not_the_printed_bound(built: Path) -> None:
    found = {claim: verdict(built, claim)["verdict"] for claim in ("B1", "B2", "B5", "B6", "B7")}
    expected = {"B1": "contradicted", "B2": "reproduced", "B5": "reproduced", "B6": "reproduced", "B7": "contradicted"}
    assert found == expected
    for part in verdict(built, "B3")["numbers"] + verdict(built, "B4")["numbers"]:
        assert abs(part["difference"]) < 0.1
    assert "wrong in 0 of 2000 draws" in (built / "toy.md").read_text()


def test_a_study_is_redrawn_to_the_same_bytes_from_its_tables(built: Path) -> None:
    before = {path.name: path.read_bytes() for path in built.iterdir()}
    for name in ("toy.png", "toy.svg", "toy.md", "verdicts.json"):
        (built / name).unlink()
    redraw(built)
    assert {path.name: path.read_bytes() for path in built.iterdir()} == before


def test_the_same_settings_give_the_same_tables(built: Path) -> None:
    again = STUDIES["toy"].measure(settings(*FEW))
    for name, table in STUDIES["toy"].read(built).items():
        pd.testing.assert_frame_equal(table, again[name].reset_index(drop=True), rtol=1e-6, obj=name)


def test_the_report_shows_a_study_and_names_a_table_that_is_missing(built: Path) -> None:
    assert build_report(built.parent, built.parent / "report.html") == []
    assert "Appendix B: the linear toy model" in (built.parent / "report.html").read_text()
    kept = (built / "bound.csv").read_bytes()
    (built / "bound.csv").unlink()
    assert build_report(built.parent, built.parent / "report.html") == [
        "toy/bound.csv: not found; reproduce the artefact first"
    ]
    (built / "bound.csv").write_bytes(kept)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("eta=-1", "study.eta = -1: must be above 0"),
        ("grid=0", "study.grid = 0: must be a whole number of at least 2"),
        ("sigma_range=[3,1]", "study.sigma_range"),
        ("batch_sizes=[4]", "study.batch_sizes"),
    ],
)
def test_impossible_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        STUDIES["toy"].check(settings(override))
    assert message in str(raised.value)


def test_the_script_writes_a_study_and_refuses_a_mistake_in_one_line(tmp_path: Path) -> None:
    done = run_script("study.py", f"results={tmp_path}", "name=small", *(f"study.{o}" for o in FEW), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "B2: reproduced" in done.stdout and (tmp_path / "toy-small" / "toy.png").exists()
    wrong = run_script("study.py", f"results={tmp_path}", "study.eta=0", cwd=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.endswith("study.eta = 0: must be above 0\n")
    assert "Traceback" not in wrong.stderr
