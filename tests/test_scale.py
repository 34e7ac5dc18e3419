"""What is below the paper's scale is read off the rows, whatever a preset is called; nothing is judged without rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from noise_reg.artefacts import REGISTRY
from noise_reg.artefacts.claims import judge_claims
from noise_reg.artefacts.fig3 import judge as judge_phases
from noise_reg.artefacts.lines import lines
from noise_reg.artefacts.nj import r1, r2
from noise_reg.artefacts.paper import paper_numbers
from noise_reg.artefacts.rows import Rows, read_rows
from noise_reg.artefacts.scale import below_paper_scale
from noise_reg.artefacts.statistics import NOT_JUDGED
from noise_reg.cli.reproduce import reproduce
from noise_reg.config import read_study
from noise_reg.place import Place, study_context
from noise_reg.wanted import wanted_runs
from tests.composed import CONF, ROOT, composed
from tests.made_rows import AS_CLAIMED, CONTEXT, made_rows

SCALE = paper_numbers()["ninr"]["scale"]
STUDIES = sorted(path.stem for path in CONF.glob("*.yaml") if "  cpu: {" in path.read_text())


def at_paper_scale(**columns: Any) -> Rows:
    """Ten runs a method to 98 %, in fp32, on all images; `columns` change every run."""
    rows = made_rows(n=10)
    runs = rows.runs.assign(max_epochs=500, train_images=36000, train_accuracy=0.981)
    runs["network"] = runs["arch"].map(SCALE["fig2"]["networks"])
    return Rows(runs.assign(**columns), rows.evaluations.assign(images=10000), rows.history)


def test_rows_at_the_papers_scale_say_nothing() -> None:
    assert below_paper_scale(at_paper_scale(), CONTEXT, "fig2") == ""


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"max_epochs": 1, "stopped_by": "epochs"}, "at most 1 epoch (the paper: 500 epochs)"),
        ({"train_images": 360}, "360 training images (the paper: 36000)"),
        ({"train_images": "360"}, "360 training images (the paper: 36000)"),
        ({"precision": "bf16"}, "bf16 (the paper: fp32)"),
        ({"network": "8"}, "8 units (the paper: 1024-1024-1024)"),
        ({"batch_size": 16}, "B = 16 (the paper: 128)"),
        ({"train_accuracy": 0.5}, "ended from 50.0 % training accuracy on (the paper: 98 %)"),
    ],
)
def test_every_shortfall_is_read_off_the_rows(columns: dict[str, Any], words: str) -> None:
    told = below_paper_scale(at_paper_scale(**columns), {**CONTEXT, "preset": "paper"}, "fig2")
    assert words in told and "FC" in told


def test_runs_and_tested_images_are_counted() -> None:
    rows = at_paper_scale()
    few = Rows(rows.runs[rows.runs["seed"] < 3], rows.evaluations, rows.history)
    assert below_paper_scale(few, CONTEXT, "fig2") == "FC and CNN: 3 runs a method (the paper: 10 runs)"
    one_less = rows.runs[(rows.runs["seed"] < 9) | (rows.runs["method"] != "l2") | (rows.runs["arch"] != "cnn")]
    assert (
        below_paper_scale(Rows(one_less, rows.evaluations), CONTEXT, "fig2")
        == "CNN: 9 to 10 runs a method (the paper: 10 runs)"
    )
    tested = rows.evaluations.assign(images="100")
    assert (
        below_paper_scale(Rows(rows.runs, tested), CONTEXT, "fig2") == "FC and CNN: 100 test images (the paper: 10000)"
    )
    old = Rows(rows.runs, rows.evaluations.drop(columns="images"))  # whose provenance says it
    context = {**CONTEXT, "evaluations": {"fc": {"corruption": {"images": 50}}}}
    assert below_paper_scale(old, context, "fig2") == "FC: 50 test images (the paper: 10000)"


def test_runs_that_reached_their_accuracy_were_not_cut() -> None:
    assert below_paper_scale(at_paper_scale(max_epochs=100), CONTEXT, "fig2") == ""


def test_the_scale_stands_in_figure_table_verdicts_and_provenance(tmp_path: Path) -> None:
    few = {m: AS_CLAIMED[m] for m in ("none", "cdt")}
    verdicts = REGISTRY["fig2"].build(
        made_rows(few, archs=("fc",), n=3), {**CONTEXT, "preset": "paper"}, tmp_path / "fig2"
    )
    words = "FC: 3 runs a method (the paper: 10 runs)"
    assert f"**Below paper scale: {words}.**" in (tmp_path / "fig2" / "fig2.md").read_text()
    assert all(f"below paper scale: {words}" in verdict.note for verdict in verdicts)
    assert json.loads((tmp_path / "fig2" / "provenance.json").read_text())["below_paper_scale"] == words


def test_preset_paper_with_one_epoch_on_few_images_says_so(tmp_path: Path) -> None:
    small = ["max_epochs=1", "reading.train_fraction=0.1", "optimizer.batch_size=32", "precision=bf16"]
    chosen = ["artefact=demo", "preset=paper", "corruption.grid=[0,0.9]", "corruption.draws=1", f"preset.panels.fc.overrides={small}",
              "preset.panels.fc.seeds=1", "artefact.second_readings=[]", 'artefact.methods=[["regularizer=none"]]', "name=tiny",
              "wandb=disabled", f"store={tmp_path}/store", f"results={tmp_path}"]  # fmt: skip
    with composed("reproduce", *chosen) as cfg:
        reproduce(cfg)
    text = (tmp_path / "demo-tiny" / "fig2.md").read_text()
    for words in (
        "1 run a method",
        "at most 1 epoch",
        "training images",
        "test images",
        "bf16",
        "(the paper: 10 runs, 500 epochs, 36000, 10000",
    ):
        assert words in text.partition("## ")[0]
    assert "Preset paper, changed in" in text
    verdicts = json.loads((tmp_path / "demo-tiny" / "verdicts.json").read_text())
    assert {v["verdict"] for v in verdicts if v["claim"].startswith("N")} == {NOT_JUDGED}
    assert all("no rows for" in v["note"] for v in verdicts if v["claim"].startswith("N"))


@pytest.mark.parametrize("name", ["fig2", "fig3", "fig9"])
def test_preset_paper_asks_for_the_papers_scale(name: str) -> None:
    """The one difference that it has is stated: products in bf16."""
    images = {"fmnist": 60000, "cifar10": 50000}
    with composed("reproduce", f"artefact={name}", "preset=paper", "artefact.second_readings=[]") as cfg:
        wanted = wanted_runs(cfg)
    runs = pd.DataFrame(
        [
            {
                "key": w.job.spec.key, "dataset": w.job.spec.dataset.name, "arch": w.job.spec.arch.name, "method": w.job.method,
                "reading": w.reading, "seed": w.job.spec.seed, "stopped_by": "epochs", "precision": w.job.spec.precision,
                "max_epochs": w.job.spec.max_epochs, "train_accuracy": w.job.spec.stop_accuracy,
                "train_images": int(images[w.job.spec.dataset.name] * w.job.spec.reading.train_fraction),
                "network": "-".join(map(str, (*w.job.spec.arch.filters, *w.job.spec.arch.widths))),
                "batch_size": w.job.spec.optimizer.batch_size, "learning_rate": w.job.spec.optimizer.learning_rate,
            }
            for w in wanted
        ]
    )  # fmt: skip
    none = pd.DataFrame(columns=["key", "evaluation", "strength", "accuracy"])
    told = below_paper_scale(Rows(runs, none), {}, name)
    assert told.partition(": ")[2] == ("" if name == "fig3" else "bf16 (the paper: fp32)")
    assert {w.job.spec.stop_accuracy for w in wanted} == {SCALE["fig2"]["stop_accuracy"]}


@pytest.mark.parametrize("missing", ["none", "cdt", "dropout", "in_ninr_catapult"])
def test_a_claim_about_a_method_without_rows_is_not_judged(missing: str) -> None:
    found = lines(made_rows({m: v for m, v in AS_CLAIMED.items() if m != missing}))
    for verdict in judge_claims(found, None):
        about = [p for p in verdict.numbers if "no rows for" in p.remark]
        assert all(p.verdict == NOT_JUDGED and p.difference is None for p in about)
        assert not about or (verdict.verdict == NOT_JUDGED and "no rows for" in verdict.note)
    assert any(v.verdict == NOT_JUDGED for v in judge_claims(found, None))


def test_phases_and_data_sets_without_rows_are_not_judged() -> None:
    assert judge_phases([], "") == []
    methods = {m: {0: 2.0, 1: 2.1, 2: 2.2} for m in ("none", "nj")}
    for verdict in (r1({("usps", 1): methods}), r2({("usps", 1): methods})):
        assert verdict.verdict == NOT_JUDGED
        assert "without MNIST" in verdict.note and "no rows for + J" in verdict.note


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_what_is_less_than_the_whole_one(name: str) -> None:
    def told(*overrides: str) -> dict[str, Any]:
        with composed(name, *overrides) as cfg:
            plain = read_study(cfg)
            return study_context(plain, Place(Path(), plain["preset"], "", "", (), False))

    assert told()["below_paper_scale"] == ""
    assert "(the whole study: " in told("preset=smoke")["below_paper_scale"]


def test_committed_folders_say_what_their_rows_say() -> None:
    for folder in sorted((ROOT / "results").glob("*/evaluations.csv")):
        context = json.loads((folder.parent / "provenance.json").read_text())
        assert context["below_paper_scale"] == below_paper_scale(read_rows(folder.parent), context, context["artefact"])
