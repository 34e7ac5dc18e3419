"""The comparison of precisions: intervals, verdicts and counts that can fail, a tiny run that makes it, bad settings named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noise_reg.artefacts import EVERY, redraw
from noise_reg.artefacts.precision_pairs import judge, pairings
from noise_reg.artefacts.verdicts import Part, Verdict
from noise_reg.precision_study import CURVE, RUNS, below_paper_scale, study
from noise_reg.spec import SpecError
from noise_reg.store import Store
from tests.composed import composed, job
from tests.made_rows import wobble

SIGMAS = (0.0, 0.4, 0.9)
SEEDS = 10
NETWORK = {"arch": "fc", "widths": [8], "optimizer": "sgd", "eta": 0.1, "batch": 10, "stop_accuracy": 0.98}
CONTEXT: dict[str, Any] = {
    "preset": "smoke", "dataset": "fmnist", "below_paper_scale": "", "reading": {"loss": "clamped"}, "network": NETWORK,
    "settings": {"reference": "fp32", "fast": ["bf16"], "seeds": SEEDS, "margin": 0.3, "max_epochs": 500},
    "products": {"fp32": "in full", "bf16": "factors rounded to bf16"},
}  # fmt: skip
ALL_HOLD = dict.fromkeys(
    ("bf16, clean", "bf16, mean of the curve", "bf16, each strength", "bf16, runs that do not learn"), "reproduced"
)
Tables = dict[str, pd.DataFrame]


def tables(
    shift: Mapping[float, float] | None = None,
    *,
    seeds: int = SEEDS,
    size: float = 0.1,
    methods: tuple[str, ...] = ("none", "cdt"),
    precisions: tuple[str, ...] = ("fp32", "bf16"),
) -> Tables:
    """Runs of accuracies that differ by whole points between seeds, by at most `size` points between precisions, and for
    'none' by `shift` points more, given by strength."""
    runs: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    for p, precision in enumerate(precisions):
        for m, method in enumerate(methods):
            for seed in range(seeds):
                of = {"method": method, "precision": precision, "seed": seed}
                for sigma in SIGMAS:
                    points = 88 - 20 * sigma + wobble(seed, m, 2.0) + (wobble(seed, 10 + m, size) if p else 0)
                    points += (shift or {}).get(sigma, 0.0) * (p > 0 and method == "none")
                    curve.append({**of, "sigma_noise": sigma, "accuracy": points / 100})
                clean = next(row["accuracy"] for row in curve[-len(SIGMAS) :])
                row = {"key": f"{len(runs):x}", "status": "completed", "stopped_by": "accuracy", "epochs": 30, "device": "cpu"}  # fmt: skip
                runs.append({**of, **row, "train_accuracy": 0.98, "test_accuracy": clean, "seconds": 1.0})
    return {"runs": pd.DataFrame(runs, columns=RUNS), "curve": pd.DataFrame(curve, columns=CURVE)}


def kill(made: Tables, method: str, precision: str, seeds: range, *, diverged: bool = False) -> Tables:
    """The same, but these runs stayed at chance, or diverged and have no accuracies."""

    def there(table: pd.DataFrame) -> pd.Series:
        return (table["method"] == method) & (table["precision"] == precision) & table["seed"].isin(list(seeds))

    runs, curve = made["runs"].copy(), made["curve"].copy()
    runs.loc[there(runs), ["train_accuracy", "test_accuracy"]] = math.nan if diverged else 0.1
    runs.loc[there(runs), "status"] = "diverged" if diverged else "completed"
    curve.loc[there(curve), "accuracy"] = 0.1
    return {"runs": runs, "curve": curve[~there(curve)] if diverged else curve}


def judged(made: Tables, **settings: Any) -> list[Verdict]:
    context = {**CONTEXT, "settings": {**CONTEXT["settings"], **settings}}
    return judge(pairings(made, context), context)


def words(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.claim: verdict.verdict for verdict in verdicts}


def parts(verdicts: list[Verdict], claim: str) -> dict[str, Part]:
    (found,) = (v for v in verdicts if v.claim == f"bf16, {claim}")
    return {p.arch: p for p in found.numbers}


def test_the_interval_is_the_one_computed_by_hand() -> None:
    made = tables(seeds=3, size=0.0, methods=("none",))
    fast, seed = made["curve"]["precision"] == "bf16", made["curve"]["seed"]
    made["curve"].loc[fast, "accuracy"] += (
        0.1 + 0.1 * seed[fast]
    ) / 100  # 0.1, 0.2, 0.3 points: mean 0.2, deviation 0.1
    reach = 2.919986 * 0.1 / math.sqrt(3)  # t of 2 degrees of freedom at 95 %, one-sided
    part = parts(judged(made), "clean")["no regulariser"]
    assert part.difference == pytest.approx(0.2, abs=1e-6) and part.n == (3, 3) and part.paired
    assert (part.low, part.high) == pytest.approx((0.2 - reach, 0.2 + reach), abs=2e-6)
    found = {margin: words(judged(made, margin=margin))["bf16, clean"] for margin in (0.4, 0.3, 0.03)}
    assert found == {0.4: "reproduced", 0.3: "under-powered", 0.03: "contradicted"}


@pytest.mark.parametrize(
    ("shift", "different"),
    [
        ({}, {}),
        (dict.fromkeys(SIGMAS, 1.0), dict.fromkeys(("clean", "mean of the curve", "each strength"), "contradicted")),
        (dict.fromkeys(SIGMAS, -1.0), dict.fromkeys(("clean", "mean of the curve", "each strength"), "contradicted")),
        ({0.9: 0.7}, {"each strength": "contradicted"}),
        ({0.0: 0.7}, {"clean": "contradicted"}),
        ({0.0: 0.3}, {"clean": "under-powered"}),
    ],
)
def test_a_shifted_fast_precision_is_contradicted_where_it_is_shifted(
    shift: dict[float, float], different: dict[str, str]
) -> None:
    assert words(judged(tables(shift))) == ALL_HOLD | {f"bf16, {name}": word for name, word in different.items()}


def test_scattered_or_few_pairs_are_under_powered() -> None:
    accuracies = set(ALL_HOLD) - {"bf16, runs that do not learn"}
    scattered = words(judged(tables(size=3.0)))
    assert {scattered[claim] for claim in accuracies} == {"under-powered"}
    assert set(words(judged(tables(seeds=2))).values()) == {"under-powered"}


def test_runs_that_died_are_counted_and_enter_no_difference() -> None:
    made = kill(tables(), "none", "bf16", range(3))
    made = kill(made, "none", "fp32", range(2, 4), diverged=True)
    verdicts = judged(made)
    assert {p.n for claim in ("clean", "mean of the curve", "each strength") for p in parts(verdicts, claim).values()} == {(6, 6), (10, 10)}  # fmt: skip
    assert words(verdicts) == ALL_HOLD | {"bf16, runs that do not learn": "under-powered"}  # other seeds died
    part = parts(verdicts, "runs that do not learn")["no regulariser"]
    assert part.difference == pytest.approx(10.0) and part.n == (10, 10)
    assert part.remark.startswith("fp32: 2 of 10 diverged; bf16: 3 of 10 at chance; Fisher's p = 1")
    same = kill(kill(tables(), "none", "bf16", range(5)), "none", "fp32", range(5), diverged=True)
    assert words(judged(same)) == ALL_HOLD


def test_more_deaths_than_chance_explains_are_told_and_corrected_for_the_number_of_methods() -> None:
    """5 of 10 against none: p = 2 C(10, 5) / C(20, 5) = 0.0325 alone, twice that beside another method with deaths."""
    alone = kill(tables(), "none", "bf16", range(5))
    found = judged(alone)
    assert words(found)["bf16, runs that do not learn"] == "contradicted"
    assert "Fisher's p = 0.033, Holm's 0.033" in parts(found, "runs that do not learn")["no regulariser"].remark
    assert parts(found, "runs that do not learn")["CDT 0.4"].remark == "all learned"
    all_dead = kill(kill(alone, "cdt", "fp32", range(SEEDS)), "cdt", "bf16", range(SEEDS))
    assert (
        "Holm's 0.033" in parts(judged(all_dead), "runs that do not learn")["no regulariser"].remark
    )  # nothing to test
    both = parts(judged(kill(alone, "cdt", "fp32", range(1))), "runs that do not learn")
    assert "Holm's 0.065" in both["no regulariser"].remark and both["no regulariser"].verdict == "under-powered"


@pytest.mark.usefixtures("unrendered")
def test_a_method_that_learns_nowhere_is_named_and_one_that_learns_once_is_not_equivalent(tmp_path: Path) -> None:
    once = kill(tables(), "none", "bf16", range(SEEDS))
    found = EVERY["precision"].build(once, CONTEXT, tmp_path)
    assert words(found)["bf16, clean"] == "under-powered" and parts(found, "clean")["no regulariser"].n == (0, 0)
    nowhere = kill(once, "none", "fp32", range(SEEDS), diverged=True)
    found = EVERY["precision"].build(nowhere, CONTEXT, tmp_path)
    assert words(found) == ALL_HOLD and list(parts(found, "clean")) == ["CDT 0.4"]
    assert "accuracies are not compared: no regulariser." in (tmp_path / "precision.md").read_text()


@pytest.mark.usefixtures("unrendered")
def test_each_fast_precision_is_judged_by_itself(tmp_path: Path) -> None:
    made = tables(precisions=("fp32", "bf16", "tf32"))
    curve = made["curve"]
    curve.loc[(curve["precision"] == "tf32") & (curve["sigma_noise"] > 0), "accuracy"] += 0.01
    context = {**CONTEXT, "settings": {**CONTEXT["settings"], "fast": ["bf16", "tf32"]}}
    found = words(EVERY["precision"].build(made, context, tmp_path))
    assert found == ALL_HOLD | {
        "tf32, clean": "reproduced", "tf32, mean of the curve": "contradicted", "tf32, each strength": "contradicted",
        "tf32, runs that do not learn": "reproduced",
    }  # fmt: skip
    told = (tmp_path / "precision.md").read_text()
    assert "## tf32 against fp32" in told
    assert "Products: fp32 in full; bf16 factors rounded to bf16." in told


def test_what_is_below_the_papers_scale_is_told() -> None:
    assert below_paper_scale({"seeds": 10, "max_epochs": 500}) == ""
    told = below_paper_scale({"seeds": 10, "max_epochs": 1})
    assert told == "10 seeds, at most 1 epoch (the paper: 10 seeds, 500 epochs)"


OVERRIDES = ["dataset=digits", "arch=fc_small", "optimizer.batch_size=32", "corruption.grid=[0.5,0.7]", "corruption.draws=1"]  # fmt: skip
SMALL = [
    "wandb=disabled", "device=cpu", "workers=1", "seeds=2", "max_epochs=2", "methods=[['regularizer=none'],['regularizer=l2']]",
    f"overrides={json.dumps(OVERRIDES)}",
]  # fmt: skip


def test_it_is_made_from_its_configuration_and_goes_on_from_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with composed("precision", *SMALL, f"store={tmp_path}/store", f"results={tmp_path}", "name=small") as cfg:
        study(cfg)
        folder = tmp_path / "precision-small"
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        study(cfg)
    assert "plan: 8 runs, 8 found" in capsys.readouterr().out
    assert {"precision.png", "precision.svg", "precision.md", "verdicts.json", "runs.csv", "curve.csv"} <= before.keys()
    for name in ("precision.png", "precision.svg", "precision.md", "verdicts.json"):
        (folder / name).unlink()
    verdicts = redraw(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [v.claim for v in verdicts] == list(ALL_HOLD)
    assert "below paper scale: 2 seeds, at most 2 epochs" in verdicts[0].note
    assert str(tmp_path) not in (folder / "provenance.json").read_text()

    runs, curve = (pd.read_csv(folder / f"{name}.csv") for name in ("runs", "curve"))
    store = Store(tmp_path / "store")
    assert [store.spec(key)["precision"] for key in runs["key"]] == runs["precision"].tolist()
    assert runs["precision"].tolist() == ["fp32"] * 4 + ["bf16"] * 4
    assert runs["seed"].tolist() == [0, 1] * 4 and runs["method"].tolist() == ["none", "none", "l2", "l2"] * 2
    own = job(*OVERRIDES, "max_epochs=2", "precision=bf16", "regularizer=l2").spec.replace(seed=1)
    assert own.key == runs["key"].iloc[-1], "the run that any other command would make"
    clean = store.evaluations().query("evaluation == 'clean'").set_index("key")["accuracy"]
    np.testing.assert_allclose(runs["test_accuracy"], clean[runs["key"]], rtol=1e-7)
    assert curve["sigma_noise"].tolist() == [0.5, 0.7] * 8 and curve["accuracy"].between(0.05, 1).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reference=fp8", "reference = fp8: must be of fp32, bf16, fp64"),
        ("fast=[bf16,half]", r"fast = \['bf16', 'half'\]: must be of fp32, bf16, fp64"),
        ("fast=[]", r"fast = \[\]: must be a list of at least one, each once, of fp32, bf16, fp64"),
        ("fast=bf16", r"fast = bf16: must be a list of at least one"),
        ("fast=[bf16,bf16]", r"fast = \['bf16', 'bf16'\]: must be a list of at least one, each once"),
        ("fast=[bf16,fp32]", r"fast = \['bf16', 'fp32'\]: must not hold reference = fp32.*; must be of bf16, fp64"),
        ("fast=[tf32]", r"fast = \['tf32'\]: tf32 needs device = cuda; must be of fp32, bf16, fp64 on cpu"),
        ("reference=tf32", "reference = tf32: tf32 needs device = cuda; must be of fp32, bf16, fp64 on cpu"),
        ("margin=0", "margin = 0: must be a finite number of points above 0"),
        ("margin=-0.3", r"margin = -0\.3: must be a finite number of points above 0"),
        ("margin=1e999", "margin = inf: must be a finite number of points above 0"),
        ("margin=true", "margin = True: must be a finite number of points above 0"),
        ("seeds=0", "seeds = 0: must be a whole number of at least 1"),
        ("seeds=1.5", r"seeds = 1\.5: must be a whole number of at least 1"),
        ("max_epochs=0", "max_epochs = 0: must be a whole number of at least 1"),
        ("methods=[]", r"methods = \[\]: must be a list of at least one, each a list of overrides"),
        ("methods=['regularizer=none']", "methods = .*: must be a list of at least one, each a list of overrides"),
        ("methods=[['regularizer=l2'],['regularizer=l2']]", "must be of different methods, l2 is there twice"),
        ("methods=[['regularizer=l2'],['regularizer=none','reading=exact_loss']]", "must differ in their regularizer alone"),
        ("overrides=['precision=bf16']", "must not hold precision=bf16; precisions, seeds and epochs are given as"),
        ("overrides=null", "overrides = None: must be a list of overrides"),
        ("overrides=['++max_epochs=3']", r"must not hold \+\+max_epochs=3"),
        ("methods=[['seed=3']]", r"methods = \['seed=3'\]: must not hold seed=3"),
    ],
)  # fmt: skip
def test_impossible_settings_fail_before_any_work(override: str, message: str, tmp_path: Path) -> None:
    with (
        composed("precision", "device=cpu", f"store={tmp_path}/s", override) as cfg,
        pytest.raises(SpecError, match=message),
    ):
        study(cfg)
    assert not list(tmp_path.iterdir())
