"""The phase detector on histories made for each phase, and on trainings that show them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from noise_reg.errors import UserError
from noise_reg.pipeline import Pipeline
from noise_reg.theory.phases import phase_of
from noise_reg.train import new_stack, train
from tests.composed import SMALL, job


def made(losses: Sequence[float], norms: Sequence[float] | None, peaks: Sequence[float] | None = None) -> pd.DataFrame:
    history = pd.DataFrame({"epoch": range(len(losses)), "train_loss": losses})
    if norms is not None:
        history["nin_norm_0"] = norms
        history["nin_peak_0"] = [math.nan, *(norms[:-1] if peaks is None else peaks)]
    return history


LEARNS = [2.4, 1.0, 0.6, 0.5]
HISTORIES = {
    "no node": ("decoupled", made(LEARNS, None)),
    "a random walk": ("decoupled", made(LEARNS, [1.0, 1.01, 0.99, 0.98])),
    "falls": ("decay", made([5.9, 2.0, 0.8, 0.5], [1.16, 0.97, 0.93, 0.75])),
    "rises and falls": ("catapult", made([12.6, 40.0, 2.0, 0.9], [1.16, 1.3, 0.5, 0.3])),
    "rises and falls within an epoch": (
        "catapult",
        made([12.6, 40.0, 2.0, 0.9], [1.16, 0.48, 0.4, 0.3], peaks=[1.37, 0.48, 0.4]),
    ),
    "never recovers": ("divergent", made([12.0, 14.0, 14.2, 14.1], [1.16, 1.3, 1.3, 1.3])),
    "overflows": ("divergent", made([16.2, math.inf], [1.16, math.nan], peaks=[1e9])),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_made_history_has_its_phase_in_any_order_of_its_rows(name: str) -> None:
    expected, history = HISTORIES[name]
    assert phase_of(history).name == expected
    assert phase_of(history[::-1]).name == expected


def test_a_run_that_diverged_is_divergent_whatever_its_last_whole_epoch_says() -> None:
    assert phase_of(made(LEARNS, [1.0, 0.9, 0.8, 0.7]), diverged=True).name == "divergent"


def test_numbers_are_in_units_of_the_start() -> None:
    phase = phase_of(HISTORIES["rises and falls within an epoch"][1])
    assert phase.peak == pytest.approx(1.37 / 1.16)
    assert (phase.last, phase.loss) == pytest.approx((0.3 / 1.16, 0.9 / 12.6))


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (made(LEARNS, [1, 1, 1, 1])[1:], "has no row of epoch 0"),
        (made(LEARNS, None).drop(columns="train_loss"), "column 'train_loss' is missing"),
        (made(LEARNS, [1, 1, 1, 1]).drop(columns="nin_peak_0"), "column 'nin_peak_0' is missing"),
    ],
)
def test_a_history_that_does_not_tell_is_an_error(history: pd.DataFrame, message: str) -> None:
    with pytest.raises(UserError, match=message):
        phase_of(history)


def test_trainings_pass_through_the_phases_as_their_noise_grows(tmp_path: Path) -> None:
    """With the exact loss: the clamped one has a ceiling."""
    first = job(*SMALL, f"store={tmp_path}", "arch.widths=[128]", "optimizer.batch_size=400", "reading=exact_loss",
                "regularizer=in_ninr", "regularizer.sigma=1", "max_epochs=40", "stop_accuracy=1.0")  # fmt: skip
    sigmas = {"decoupled": 0.5, "decay": 20.0, "catapult": 60.0, "divergent": 100.0}
    strengths = dataclasses.asdict(first.spec.strengths)
    specs = [first.spec.replace(strengths={**strengths, "nin_input": sigma}) for sigma in sigmas.values()]
    data = Pipeline(first.runtime).data(first.spec)
    outcomes = {outcome.spec.key: outcome for ended in train(new_stack(specs, data), data) for outcome in ended}
    assert [phase_of(pd.DataFrame(outcomes[spec.key].history)).name for spec in specs] == list(sigmas)
