"""Fig. 3 from made histories: phases counted, verdicts by the stated rule, and everything labelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from noise_reg.artefacts import REGISTRY, fig3, redraw
from noise_reg.artefacts.methods import training
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.scale import below_paper_scale
from noise_reg.cli.reproduce import reproduce, with_facts
from noise_reg.errors import UserError
from tests.composed import composed

CONTEXT = {"preset": "cpu", "dataset": "fmnist", "below_paper_scale": ""}
SIGMAS = {0.0: "", 0.1: "88.6002", 1.0: "280.1785", 1.8: "375.8989"}
COURSES = {  # |W_NI| from epoch 0 on, its peaks from epoch 1 on, training losses from epoch 0 on
    "decoupled": (None, None, [2.4, 0.6, 0.5]),
    "decay": ([1.15, 0.9, 0.7], [1.15, 0.9], [5.9, 1.5, 0.7]),
    "catapult": ([1.15, 0.5, 0.3], [1.4, 0.5], [12.6, 40.0, 1.0]),
    "divergent": ([1.15, 1.3, 1.3], [1.3, 1.3], [12.0, 14.0, 14.0]),
}


def made(phases: dict[float, list[str]], reading: str = "") -> Rows:
    """Rows of runs in the given phases, by strength."""
    runs, histories = [], []
    for strength, names in phases.items():
        for seed, name in enumerate(names):
            key = f"{reading}{strength}-{seed}"
            diverged = name == "divergent" and reading != ""
            runs.append(
                {"key": key, "dataset": "fmnist", "arch": "fc", "method": f"in_ninr_{strength}", "reading": reading, "seed": seed,
                 "status": "diverged" if diverged else "completed", "stopped_by": "diverged" if diverged else "epochs",
                 "epochs": 2, "train_accuracy": float("nan") if diverged else 0.8,
                 "test_accuracy": float("nan") if diverged else 0.8, "seconds": 1.0, "precision": "fp32", "max_epochs": 2,
                 "sigma_epsilon": SIGMAS[strength]}
            )  # fmt: skip
            norms, peaks, losses = COURSES[name]
            history = pd.DataFrame({"key": key, "epoch": range(3), "train_loss": losses, "test_loss": 1.0})
            history["train_accuracy"], history["test_accuracy"] = [float("nan"), 0.7, 0.8], 0.8
            history["weight_norm_1"] = 3.1
            if norms and peaks:
                history["nin_norm_0"], history["nin_peak_0"] = norms, [float("nan"), *peaks]
            histories.append(history)
    evaluations = pd.DataFrame(columns=["key", "evaluation", "strength", "accuracy"])
    return Rows(pd.DataFrame(runs), evaluations, pd.concat(histories, ignore_index=True))


PAPERS = {strength: [name] * 2 for strength, name in fig3.PAPER.items()}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "reproduced"),
        ({1.8: ["divergent", "catapult"]}, "inconclusive"),
        ({1.8: ["catapult", "catapult"]}, "contradicted"),
        ({1.8: []}, "not judged"),
    ],
)
def test_the_verdict_follows_the_rule(changed: dict[float, list[str]], verdict: str, tmp_path: Path) -> None:
    (found,) = REGISTRY["fig3"].build(made({**PAPERS, **changed}), CONTEXT, tmp_path)
    assert (found.claim, found.verdict) == ("N6, clamped loss", verdict)
    assert redraw(tmp_path) == [found]


def test_figure_and_table_name_losses_phases_and_numbers(tmp_path: Path) -> None:
    rows, exact = made(PAPERS), made(PAPERS, "exact loss")
    assert rows.history is not None and exact.history is not None
    both = Rows(
        pd.concat([rows.runs, exact.runs]),
        rows.evaluations,
        pd.concat([rows.history, exact.history], ignore_index=True),
    )
    verdicts = REGISTRY["fig3"].build(both, CONTEXT, tmp_path)
    assert [v.verdict for v in verdicts] == ["reproduced", "reproduced"]
    figure = fig3.figure(fig3.courses(both), CONTEXT, "FC")
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert all(f"paper: {name}" in title for name, title in zip(fig3.PAPER.values(), titles, strict=True))
    assert "clamped loss: catapult 2\nexact loss: catapult 2" in titles[2]
    text = " ".join((tmp_path / "fig3.md").read_text().split())
    assert "| exact loss | 1 | 280.2 | catapult | catapult 2 | 2 | 1.217 | 0.261 | 12.6 | 1.00 | 80.0 |" in text


def test_rows_without_a_history_are_named() -> None:
    rows = made(PAPERS)
    with pytest.raises(UserError, match="fig3: the rows hold no history"):
        fig3.courses(Rows(rows.runs, rows.evaluations))


def test_it_is_made_from_its_configuration(tmp_path: Path) -> None:
    overrides = [
        "artefact=fig3", "preset=smoke", f"store={tmp_path}/store", f"results={tmp_path}", "name=smoke", "wandb=disabled",
        "artefact.overrides=['dataset=digits','arch=fc','arch.widths=[16]','optimizer.learning_rate=0.01']",
        "preset.panels.phases.overrides=['max_epochs=2','optimizer.batch_size=100']", "corruption.grid=[0.5]",
    ]  # fmt: skip
    with composed("reproduce", *overrides) as cfg:
        reproduce(cfg)
    written = {path.name for path in (tmp_path / "fig3-smoke").iterdir()}
    assert {"fig3.png", "fig3.svg", "fig3.md", "history.csv", "verdicts.json"} <= written
    text = (tmp_path / "fig3-smoke" / "fig3.md").read_text()
    assert "exact loss" in text
    assert "FC 64-16-10, η = 0.01, B = 100, d_in = 65, at most 2 epochs" in text  # what was run, not the paper's
    below = next(line for line in text.split("\n") if "Below paper scale" in line)
    assert all(words in below for words in ("2 runs a method", "at most 2 epochs", "16 units", "B = 100", "1000"))
    verdicts = json.loads((tmp_path / "fig3-smoke" / "verdicts.json").read_text())
    assert all("B = 100" in verdict["note"] and "16 units" in verdict["note"] for verdict in verdicts)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("network", "16", "FC 16"),
        ("batch_size", "16", "B = 16"),
        ("learning_rate", "0.5", "η = 0.5"),
        ("max_epochs", 7, "at most 7 epochs"),
    ],
)
def test_the_caption_says_what_the_rows_say_and_no_more(column: str, value: Any, words: str) -> None:
    runs = made(PAPERS).runs
    assert training(runs) == "FC, at most 2 epochs"  # rows of an older version
    assert words in training(runs.assign(**{column: value}))
    told = below_paper_scale(Rows(runs.assign(**{column: value}), made(PAPERS).evaluations), CONTEXT, "fig3")
    assert (words.removeprefix("FC ") in told) and "(the paper: " in told


def test_kept_rows_of_an_older_version_learn_what_their_key_says() -> None:
    old = pd.DataFrame({"key": ["a", "b"], "network": ["", "8"]})
    facts = {key: {"network": "16", "batch_size": 1000} for key in old["key"]}
    assert with_facts(old, facts).to_dict("list") == {
        "key": ["a", "b"],
        "network": ["16", "8"],
        "batch_size": [1000, 1000],
    }


def test_the_unit_of_the_noise_is_that_of_the_network_that_was_run() -> None:
    rows = made({1.0: ["catapult"]})
    (found,) = fig3.courses(Rows(rows.runs.assign(inputs="64", learning_rate="0.01"), rows.evaluations, rows.history))
    assert found.strength == pytest.approx(785 / 65, rel=1e-5) and found.sigma == 280.1785
