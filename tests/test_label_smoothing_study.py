"""The study of label smoothing: every verdict can be reached, a tiny run makes it, bad settings are named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noise_reg.artefacts import EVERY, redraw
from noise_reg.artefacts.label_smoothing import absent, in_words, judge
from noise_reg.artefacts.verdicts import Verdict
from noise_reg.label_smoothing_study import study
from noise_reg.spec import SpecError
from noise_reg.store import Store
from tests.composed import composed
from tests.made_rows import wobble

CONTEXT: dict[str, Any] = {
    "preset": "smoke",
    "dataset": "fmnist",
    "below_paper_scale": "",
    "reading": {"loss": "exact"},
    "network": {"arch": "fc", "widths": [8], "optimizer": "sgd", "eta": 0.1, "batch": 10, "epochs": 2, "precision": "fp32"},
    "settings": {"seeds": 4, "bins": 2, "sure": 0.99},
}  # fmt: skip
PLAIN = {"train_accuracy": 0.97, "accuracy": 0.88, "nll": 0.5, "confidence": 0.95, "ece": 0.07, "sure": 0.7}
SMOOTHED = {0.1: {"confidence": 0.89, "ece": 0.02, "sure": 0.2}, 0.2: {"confidence": 0.9, "ece": 0.03, "sure": 0.1}}


def tables(
    changes: dict[float, dict[str, float]], *, seeds: int = 4, size: float = 0.001, large: float = 0.05
) -> dict[str, pd.DataFrame]:
    """Runs around PLAIN, SMOOTHED and `changes`, each of which deviates by at most `size`; `large`: what smoothing adds to
    the accuracy at large noise."""
    runs, bins, curve = [], [], []
    for which, epsilon in enumerate((0.0, *SMOOTHED)):
        truth = PLAIN | SMOOTHED.get(epsilon, {}) | changes.get(epsilon, {})
        for seed in range(seeds):
            at = {"epsilon": epsilon, "seed": seed}
            row = {name: value + wobble(seed, 10 * which + n, size) for n, (name, value) in enumerate(truth.items())}
            runs.append({**at, "status": "completed", **row})
            for m, count in enumerate((40, 60)):
                middle = {"confidence": 0.3 + 0.5 * m, "accuracy": 0.35 + 0.4 * m}
                bins.append({**at, "bin": m, "low": m / 2, "high": (m + 1) / 2, "count": count, **middle})
            for sigma in (0.0, 0.6, 0.9):
                added = large if epsilon and sigma else 0.0
                accuracy = 0.9 - 0.2 * sigma + added + wobble(seed, which, size)
                curve.append({**at, "sigma_noise": sigma, "accuracy": accuracy})
    return {"runs": pd.DataFrame(runs), "bins": pd.DataFrame(bins), "curve": pd.DataFrame(curve)}


def words(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.claim: verdict.verdict for verdict in verdicts}


AS_CLAIMED = dict.fromkeys(("L1", "L2, overconfidence", "L2, calibration", "L2, robustness"), "reproduced")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({0.2: {"ece": 0.12, "confidence": 0.76}}, {"L2, calibration": "contradicted"}),
        ({0.1: {"sure": 0.9}}, {"L1": "contradicted"}),
        ({0.1: {"confidence": 0.99}}, {"L1": "contradicted", "L2, overconfidence": "contradicted"}),
        ({0.1: {"accuracy": 0.80}}, {"L2, overconfidence": "contradicted"}),
        ({0.1: {"ece": 0.07}}, {"L2, calibration": "inconclusive"}),
    ],
)
def test_verdicts_follow_their_rules(changes: dict[float, dict[str, float]], expected: dict[str, str]) -> None:
    assert words(judge(tables(changes), 0.99)) == AS_CLAIMED | expected


def test_robustness_is_judged_at_large_noise() -> None:
    assert words(judge(tables({}, large=-0.05), 0.99))["L2, robustness"] == "contradicted"
    assert words(judge(tables({}, large=0.0, size=0.004), 0.99))["L2, robustness"] == "inconclusive"


def test_few_or_scattered_runs_are_under_powered() -> None:
    assert set(words(judge(tables({}, seeds=2), 0.99)).values()) == {"under-powered"}
    scattered = dict.fromkeys(SMOOTHED, PLAIN)
    assert words(judge(tables(scattered, size=0.2, large=0.0), 0.99))["L2, overconfidence"] == "under-powered"
    elsewhere = tables({})
    elsewhere["curve"] = elsewhere["curve"][elsewhere["curve"]["sigma_noise"] == 0]
    assert words(judge(elsewhere, 0.99))["L2, robustness"] == "under-powered"


def test_holms_correction_is_over_the_epsilons() -> None:
    """A p between 0.025 and 0.05 decides when it stands alone, but not beside another that decides nothing."""
    made = tables({0.1: {"ece": 0.07}, 0.2: {"ece": 0.07}}, size=0)
    ece, epsilon = made["runs"]["ece"].to_numpy(copy=True), made["runs"]["epsilon"]
    ece[epsilon == 0.1] += np.array([-0.0013, -0.0023, -0.0043, -0.0058])  # t = -3.4 on 3 degrees of freedom: p = 0.043
    ece[epsilon == 0.2] += np.array([0.001, -0.001, 0.002, -0.002])
    made["runs"]["ece"] = ece

    def part(of: dict[str, pd.DataFrame]) -> str:
        return next(v for v in judge(of, 0.99) if v.claim == "L2, calibration").numbers[0].verdict

    assert part(made) == "inconclusive"
    assert part({**made, "runs": made["runs"][epsilon != 0.2]}) == "reproduced"


def test_under_confidence_is_told_where_it_is() -> None:
    found = judge(tables({0.2: {"ece": 0.12, "confidence": 0.76}}, size=0), 0.99)[2]
    assert (
        "over-confident by 1.00 points" in found.numbers[0].remark
        and "under-confident by 12.00 points" in found.numbers[1].remark
    )
    errors = {0.0: {0: 7.0}, 0.1: {0: 2.0}, 0.2: {0: 12.0}}
    told = in_words(errors, {0.0: {0: 7.0}, 0.1: {0: 1.0}, 0.2: {0: -12.0}})
    assert told.startswith("ECE is least at ε = 0.1 (2.00 %).") and told.endswith("at ε = 0.2.")
    assert "over-confident at every ε" in in_words(errors, {0.0: {0: 7.0}, 0.1: {0: 1.0}})


@pytest.mark.usefixtures("unrendered")
def test_a_run_that_diverged_is_named_and_counts_nowhere(tmp_path: Path) -> None:
    made = tables({})
    gone = (made["runs"]["epsilon"] == 0.2) & (made["runs"]["seed"] == 1)
    made["runs"].loc[gone, list(PLAIN)] = math.nan
    made["runs"].loc[gone, "status"] = "diverged"
    for name in ("bins", "curve"):
        made[name] = made[name][(made[name]["epsilon"] != 0.2) | (made[name]["seed"] != 1)]
    assert absent(made["runs"]) == "Without these runs: ε = 0.2, seed 1 (diverged)."
    verdicts = EVERY["label_smoothing"].build(made, CONTEXT, tmp_path)
    assert [p.n for p in verdicts[1].numbers] == [(4, 4), (3, 3)]
    made["runs"].loc[made["runs"]["epsilon"] == 0.2, [*PLAIN]] = math.nan
    made["bins"], made["curve"] = (made[name][made[name]["epsilon"] != 0.2] for name in ("bins", "curve"))
    verdicts = EVERY["label_smoothing"].build(made, CONTEXT, tmp_path)  # not a run of an epsilon is left
    assert verdicts[1].numbers[1].verdict == "under-powered" and verdicts[1].numbers[1].remark == "no runs to compare"


SMALL = [
    "wandb=disabled", "seeds=2", "epsilons=[0,0.3]", "bins=5", "workers=1",
    ("overrides=['dataset=digits','arch=fc','arch.widths=[16]','optimizer.batch_size=32','reading=exact_loss','max_epochs=8',"
    "'stop_accuracy=1.0','corruption.grid=[0.5,0.7]','corruption.draws=1']"),
]  # fmt: skip


def test_it_is_made_from_its_configuration_and_goes_on_from_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with composed("label_smoothing", *SMALL, f"store={tmp_path}/store", f"results={tmp_path}", "name=small") as cfg:
        study(cfg)
        folder = tmp_path / "label_smoothing-small"
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        study(cfg)
    assert "plan: 4 runs, 4 found" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    verdicts = redraw(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [v.claim for v in verdicts] == list(AS_CLAIMED)
    assert str(tmp_path) not in (folder / "provenance.json").read_text()
    assert json.loads((folder / "provenance.json").read_text())["settings"]["epsilons"] == [0, 0.3]

    runs, bins, curve = (pd.read_csv(folder / f"{name}.csv") for name in ("runs", "bins", "curve"))
    store = Store(tmp_path / "store")
    assert set(store.runs()["key"]) == set(runs["key"]) and runs["seed"].tolist() == [0, 1, 0, 1]
    strengths = [store.spec(key)["strengths"]["label_smoothing"] for key in runs["key"]]
    assert strengths == runs["epsilon"].tolist() == [0, 0, 0.3, 0.3]
    confidence = runs.groupby("epsilon")["confidence"].mean()
    assert confidence[0.3] < confidence[0] - 0.1
    clean = store.evaluations().query("evaluation == 'clean'").set_index("key")["accuracy"]
    np.testing.assert_allclose(runs["accuracy"], clean[runs["key"]], atol=0.003)
    bins["weighted"] = bins["count"] * (bins["accuracy"] - bins["confidence"]).abs()
    by_run = bins.groupby(["epsilon", "seed"])[["weighted", "count"]].sum()
    np.testing.assert_allclose(by_run["weighted"] / by_run["count"], runs["ece"], atol=1e-6)
    assert curve["sigma_noise"].tolist() == [0.5, 0.7] * 4 and curve["accuracy"].between(0.1, 1).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epsilons=[0,1.0]", r"epsilons = \[0, 1\.0\]: must each be a number in \[0, 1\)"),
        ("epsilons=[-0.1,0]", r"epsilons = \[-0\.1, 0\]: must each be a number in \[0, 1\)"),
        ("epsilons=[0,a]", r"epsilons = \[0, 'a'\]: must be a rising list"),
        ("epsilons=[0,0.1,0.1]", r"epsilons = \[0, 0\.1, 0\.1\]: must be a rising list"),
        ("epsilons=[0.1,0.2]", r"epsilons = \[0\.1, 0\.2\]: must hold 0 and at least one number above it"),
        ("epsilons=[0]", r"epsilons = \[0\]: must hold 0 and at least one number above it"),
        ("seeds=0", "seeds = 0: must be a whole number of at least 1"),
        ("seeds=true", "seeds = True: must be a whole number of at least 1"),
        ("bins=1", "bins = 1: must be a whole number of at least 2"),
        ("sure=1.0", r"sure = 1\.0: must be a number between 0 and 1"),
        ("overrides=['dataset=digits','reading.loss=squared']", r"reading\.loss = squared: must be exact or clamped"),
    ],
)
def test_impossible_settings_fail_before_any_work(override: str, message: str, tmp_path: Path) -> None:
    with composed("label_smoothing", f"store={tmp_path}/s", override) as cfg, pytest.raises(SpecError, match=message):
        study(cfg)
    assert not (tmp_path / "s").exists()
