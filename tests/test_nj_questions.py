"""The study of N+J's open questions: what it trains and times, and what it shows of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from noise_reg.artefacts import redraw
from noise_reg.artefacts.nj_questions import mean_map, ratios, variants_table
from noise_reg.nj_questions import study
from noise_reg.spec import SpecError
from tests.composed import composed

BASE = (
    "'dataset=digits','arch=tanh_mlp','arch.widths=[8]','optimizer.batch_size=32','reading.loss=exact','max_epochs=2'"
)
SMALL = [
    f"overrides=[{BASE}]", "seeds=3", "map.seeds=1", "map.jacobian=[0.001,0.01]", "map.noise=[0.0,0.1]",  # one of them is the variants' own N+J
    "wandb=disabled",
    "perturbation.occlusion.grid=[0,2]", "perturbation.rotation.grid=[0,20]", "attack.fgsm.grid=[0,0.1]",
    "cost.repeats=2", "cost.steps=2", "cost.batch_size=16", f"cost.overrides=[{BASE}]", "~cost.networks",
    "+cost.networks={tiny: [], wider: ['arch.widths=[9]'], cnn: ['arch=cnn_small']}",
]  # fmt: skip


def test_it_is_made_from_its_configuration(tmp_path: Path) -> None:
    with composed("nj_questions", *SMALL, f"store={tmp_path}/store", f"results={tmp_path}", "name=small") as cfg:
        study(cfg)
    folder = tmp_path / "nj_questions-small"
    cost, grid, variants, perturbed = (
        pd.read_csv(folder / f"{name}.csv") for name in ("cost", "map", "variants", "perturbed")
    )
    assert (
        cost["network"].value_counts().to_dict() == {"tiny": 2 * 6, "wider": 2 * 6, "cnn": 2 * 2}
        and (cost["ms"] > 0).all()
    )
    assert len(grid) == 4 and set(grid["status"]) == {"completed"}
    assert len(variants) == 4 * 4 * 3
    base = variants[variants["variant"] == "cross-entropy"].set_index(["method", "seed"])["test_accuracy"]
    heavy = variants[variants["variant"] == "Student's t noise"].set_index(["method", "seed"])["test_accuracy"]
    assert base["none"].equals(heavy["none"]) and base["jacobian"].equals(heavy["jacobian"])  # no noise, no tails
    untouched = perturbed[perturbed["strength"] == 0].set_index(["evaluation", "method", "seed"])["accuracy"]
    for evaluation in ("occlusion", "rotation", "fgsm"):
        assert untouched[evaluation].to_dict() == pytest.approx(base.to_dict())
    assert set(perturbed["variant"]) == {"cross-entropy"}
    document = (folder / "nj_questions.md").read_text()
    assert any(line.startswith("| cnn") and line.count("refused") == 4 for line in document.splitlines())
    assert redraw(folder) == [] and (folder / "nj_questions.md").read_text() == document
    assert str(tmp_path) not in (folder / "provenance.json").read_text()


def test_a_cost_is_the_median_ratio_to_the_plain_step_of_the_same_repeat() -> None:
    plain, ours = [1.0, 2.0, 4.0], [3.0, 4.0, 20.0]
    rows = [
        {"network": "n", "method": m, "repeat": r, "ms": v}
        for m, vs in (("plain", plain), ("J", ours))
        for r, v in enumerate(vs)
    ]
    assert ratios(pd.DataFrame(rows)) == {"n": {"plain": (2.0, 1.0), "J": (4.0, 3.0)}}


def test_diverged_runs_are_in_no_mean() -> None:
    rows = [
        {"jacobian": 0.1, "noise": 0.0, "seed": 0, "status": "completed", "test_accuracy": 0.9},
        {"jacobian": 0.1, "noise": 0.0, "seed": 1, "status": "diverged", "test_accuracy": float("nan")},
    ]
    assert mean_map(pd.DataFrame(rows)).to_numpy().tolist() == [[pytest.approx(10.0)]]
    runs = [{**row, "variant": "v", "method": m} for row in rows for m in ("none", "nj")]
    assert "| 10.00 " in variants_table(pd.DataFrame(runs))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=0", "seeds = 0: must be a whole number of at least 1"),
        ("cost.repeats=0", r"cost\.repeats = 0: must be a whole number of at least 1"),
        ("map.jacobian=[0.0]", r"map\.jacobian = \[0\.0\]: must be a list of numbers above 0"),
        ("map.noise=[]", r"map\.noise = \[\]: must be a list of numbers of at least 0"),
        ("~methods.none", "methods: must begin with the plain network"),
        ("cost.steps=1000", r"cost\.steps = 1000: must be at most"),
    ],
)
def test_impossible_settings_are_named(override: str, message: str, tmp_path: Path) -> None:
    overrides = [*SMALL, f"store={tmp_path}/store", f"results={tmp_path}", override]
    with composed("nj_questions", *overrides) as cfg, pytest.raises(SpecError, match=message):
        study(cfg)
