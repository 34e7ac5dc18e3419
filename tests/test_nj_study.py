"""The N+J study: its search never looks at test data, its verdicts follow their rules, it is redrawn from its tables."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from noise_reg.artefacts import EVERY, redraw
from noise_reg.artefacts.nj_histogram import regimes
from noise_reg.nj_study import Candidate, best, histogram, study
from noise_reg.spec import SpecError
from noise_reg.train import new_stack
from tests.composed import composed
from tests.forked import run_script
from tests.plain import made_data, made_spec

CONTEXT = {
    "preset": "test", "dataset": "usps", "below_paper_scale": "", "settings": {
        "seeds": 5, "search_seeds": [1000], "overrides": ["max_epochs=2"], "panels": {"one": ["dataset=usps"]},
    },
}  # fmt: skip
CELLS = [("usps", 1), ("mnist", 2)]
ERRORS = {"none": 5.0, "l2": 4.9, "input_noise": 4.6, "jacobian": 4.5, "nj": 4.0}
SPREAD = np.array([-0.05, 0.02, 0.0, 0.03, 0.01])
SMALL = [
    "panels={narrow: ['dataset=digits', 'arch.widths=[12]'], deep: ['dataset=digits', 'arch.widths=[12,8]']}",
    "rates=[0.1,0.3]", "search={l2: {weight_decay: [0.001]}, nj: {jacobian: [0.001,0.01]}}", "seeds=3", "search_seeds=[7,8]", "bins=20",
    ("overrides=['arch=tanh_mlp','reading=exact_loss','reading.standardize=none','optimizer.batch_size=32','max_epochs=2',"
    "'reading.train_fraction=0.8','stop_accuracy=1.0']"), "wandb=disabled",
]  # fmt: skip


def small(*overrides: str) -> list[str]:
    """The study on digits, its groups replaced and not merged."""
    return ["~panels", "~search", *(f"+{o}" if o.startswith(("panels", "search=")) else o for o in SMALL), *overrides]


def tables(**changes: float) -> dict[str, pd.DataFrame]:
    """Runs of every method at the errors (%) of ERRORS, changed."""
    runs = [
        {"dataset": dataset, "depth": depth, "method": method, "rate": 0.1, "strength": 0.1, "key": f"{method}{seed}", "seed": seed,
         "status": "completed", "epochs": 2, "train_accuracy": 1.0, "test_accuracy": 1 - (error + scale * SPREAD[seed]) / 100,
         "seconds": 1.0, "validation_accuracy": 0.9}
        for dataset, depth in CELLS
        for scale, (method, error) in enumerate({**ERRORS, **changes}.items())
        for seed in range(5)
    ]  # fmt: skip
    search = [
        {k: v for k, v in run.items() if k != "test_accuracy"} | {"chosen": True, "seed": 1000}
        for run in runs
        if run["seed"] == 0
    ]
    return {"search": pd.DataFrame(search), "runs": pd.DataFrame(runs)}


def activations(saturated: int) -> dict[str, pd.DataFrame]:
    """N+J has so many of 1000 activations in the last bin, all others 100."""
    rows = []
    for (dataset, depth), method, seed in itertools.product(CELLS, ERRORS, range(5)):
        last = saturated + seed if method == "nj" else 100
        counts = [0] * 14 + [1000 - last] + [0] * 4 + [last]
        cell = {"dataset": dataset, "depth": depth, "method": method, "seed": seed, "layer": 1}
        rows.append({**cell, "counts": json.dumps(counts)})
    return {"activations": pd.DataFrame(rows)}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"R1": "reproduced", "R2": "reproduced"}),
        ({"jacobian": 5.5}, {"R1": "contradicted", "R2": "reproduced"}),
        ({"l2": 3.5}, {"R1": "reproduced", "R2": "contradicted"}),
        ({"input_noise": 5.0}, {"R1": "inconclusive", "R2": "reproduced"}),
    ],
)
def test_verdicts_follow_their_rules(changes: dict[str, float], expected: dict[str, str], tmp_path: Path) -> None:
    verdicts = EVERY["nj_table"].build(tables(**changes), CONTEXT, tmp_path)
    assert {v.claim: v.verdict for v in verdicts} == expected
    assert redraw(tmp_path) == verdicts and {v.note for v in verdicts} == {"without MNIST-Binary"}
    text = (tmp_path / "nj_table.md").read_text()
    assert "5.74" in text  # the paper's USPS
    assert "Every run: `max_epochs=2`; by network: `dataset=usps`." in text
    assert "10 candidates, 10 runs for 2 networks" in text and "0.1: 10.00*†" in text


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("saturated", "expected"), [(300, "reproduced"), (20, "contradicted"), (98, "inconclusive")])
def test_the_histograms_verdict_follows_its_rule(saturated: int, expected: str, tmp_path: Path) -> None:
    (verdict,) = EVERY["nj_histogram"].build(activations(saturated), CONTEXT, tmp_path)
    assert (verdict.claim, verdict.verdict) == ("R4", expected)
    assert redraw(tmp_path) == [verdict]


def test_regimes_are_shares_of_saturated_and_linear_activations() -> None:
    counts = np.zeros(20)
    counts[[0, 10, 14]] = 10, 30, 60  # around -0.95, 0.05 and 0.45
    assert regimes(counts) == (10.0, 30.0)


def test_the_histogram_counts_every_activation_of_the_real_network() -> None:
    spec = made_spec("tanh_mlp")
    data = made_data(spec)
    model = new_stack([spec], data).model
    counts = histogram(model, data.test_x, 8)
    hidden = torch.tanh(data.test_x @ model.layers[0].weight[0].T + model.layers[0].bias[0])  # type: ignore[index]
    assert [int(layer.sum()) for layer in counts] == [24 * 7, 24 * 5]
    assert torch.equal(counts[0], torch.histc(hidden.detach().float(), 8, -1, 1))


def test_the_best_candidate_has_the_highest_validation_accuracy_and_no_diverged_one_is_chosen() -> None:
    a, b, c = (Candidate("usps_1", ("usps", 1), "l2", 0.1, s, ()) for s in (1.0, 2.0, 3.0))
    one_lost = {1: 0.99, 2: float("nan")}
    assert best({a: {1: 0.97, 2: 0.9}, b: {1: 0.95, 2: 0.95}, c: one_lost}, "usps_1", "l2") == b
    with pytest.raises(SpecError, match=r"panels\.usps_1: every run of l2 in the search diverged"):
        best({c: one_lost}, "usps_1", "l2")


def test_it_is_made_from_its_configuration(tmp_path: Path) -> None:
    with composed("nj", *small(f"store={tmp_path}/store", f"results={tmp_path}", "name=small")) as cfg:
        study(cfg)
    search, runs = (pd.read_csv(tmp_path / "nj_table-small" / f"{name}.csv") for name in ("search", "runs"))
    assert len(search) == 2 * 2 * (2 + 1 + 2) and search["chosen"].sum() == 2 * 2 * 3 and set(search["seed"]) == {7, 8}
    tried = ["depth", "method", "rate", "strength", "chosen"]
    means = search.groupby(tried)["validation_accuracy"].mean().reset_index()
    for (_, method), group in means.groupby(["depth", "method"]):
        assert group.loc[group["chosen"], "validation_accuracy"].item() == group["validation_accuracy"].max(), method
    assert "test_accuracy" not in search and len(runs) == 2 * 3 * 3 and set(runs["seed"]) == {0, 1, 2}
    plain = means[(means["method"] == "none") & means["chosen"]]
    rate = dict(zip(plain["depth"], plain["rate"], strict=True))
    assert [rate[depth] for depth in runs["depth"]] == runs["rate"].tolist()
    assert str(tmp_path) not in (tmp_path / "nj_table-small" / "provenance.json").read_text()
    layers = pd.read_csv(tmp_path / "nj_histogram-small" / "activations.csv")
    assert len(layers) == 3 * 3 * (1 + 2)
    assert {sum(json.loads(c)) for c in layers["counts"]} == {360 * 12, 360 * 8}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=0", "seeds = 0: must be a whole number of at least 1"),
        (
            "search_seeds=[2]",
            r"search_seeds = \[2\]: must be a list of whole numbers, each once, of at least seeds = 3",
        ),
        ("rates=[]", r"rates = \[\]: must be a list of numbers above 0"),
        ("search.l2.weight_decay=[-1]", r"search\.l2\.weight_decay = \[-1\]: must be a list of numbers above 0"),
        ("+search.l2.sigma=[1]", r"search\.l2 = .*: must name one strength"),
    ],
)
def test_impossible_settings_are_named(override: str, message: str, tmp_path: Path) -> None:
    with composed("nj", *small(f"store={tmp_path}/store", override)) as cfg, pytest.raises(SpecError, match=message):
        study(cfg)


def test_a_run_that_trains_on_everything_has_no_validation(tmp_path: Path) -> None:
    changed: list[Any] = [
        o.replace("train_fraction=0.8", "train_fraction=1.0") for o in small(f"store={tmp_path}/store")
    ]
    with composed("nj", *changed) as cfg, pytest.raises(SpecError, match=r"train_fraction = 1\.0: must be below 1"):
        study(cfg)


def test_two_panels_of_one_data_set_and_depth_are_refused_before_any_work(tmp_path: Path) -> None:
    panels = "+panels={one: ['dataset=digits','arch.widths=[8]'], other: ['dataset=digits','arch.widths=[9]']}"
    chosen = [o for o in small() if not o.startswith("+panels")]
    message = r"panels\.other: is of digits with 1 hidden layers, and so is panels\.one"
    with (
        composed("nj", *chosen, panels, f"store={tmp_path}/store", f"results={tmp_path}") as cfg,
        pytest.raises(SpecError, match=message),
    ):
        study(cfg)
    assert not (tmp_path / "store").exists()


def test_a_key_added_to_a_study_that_it_does_not_have_is_refused_before_any_work(tmp_path: Path) -> None:
    found = run_script("nj.py", "+max_epochs=2", f"store={tmp_path}/store")
    assert found.returncode == 2 and "+max_epochs: unknown key; known are bins, " in found.stderr
    assert not (tmp_path / "store").exists()
