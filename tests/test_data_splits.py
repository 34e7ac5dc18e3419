"""The split into training and validation images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noise_reg.data import DataError, load, split, split_digest
from noise_reg.prepare import held_out, prepare
from tests.composed import SMALL, job


@given(count=st.integers(1, 300), fraction=st.floats(0.01, 1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_a_split_is_disjoint_and_covers(count: int, fraction: float, seed: int) -> None:
    if round(count * fraction) == 0:
        with pytest.raises(DataError, match="leaves none for training"):
            split(count, fraction, seed)
        return
    train, validation = split(count, fraction, seed)
    assert train.dtype == validation.dtype == torch.int64
    assert len(train) == round(count * fraction)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(count))


def test_a_split_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    train, validation = split(1000, 0.6, seed=7)
    torch.manual_seed(2)
    np.random.seed(3)
    again, _ = split(1000, 0.6, seed=7)
    other, _ = split(1000, 0.6, seed=8)
    assert torch.equal(train, again) and not torch.equal(train, other)
    assert len(train) == 600 and train.tolist() != list(range(600))
    assert split_digest(train) == "f4ba9964591f2f46", "stored runs were trained on the split that this digest names"
    assert split_digest(train) != split_digest(validation)


def test_a_fraction_of_one_leaves_the_validation_part_empty() -> None:
    train, validation = split(5, 1, seed=0)
    assert train.tolist() == [0, 1, 2, 3, 4] and validation.shape == (0,) and validation.dtype == torch.int64


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match=r"train_fraction = .*must be in \(0, 1\]"):
        split(10, fraction, seed=0)


def test_a_run_is_tested_on_as_many_images_as_it_says() -> None:
    """Test and validation images; the images trained on, and a spec that says nothing, stay as they were."""
    spec, cpu = job(*SMALL).spec, torch.device("cpu")
    few = job(*SMALL, "dataset.test_images=7").spec
    digits = load("digits", None, False)
    whole, data = prepare(digits, spec, cpu), prepare(digits, few, cpu)
    assert len(data.test_x) == len(data.test_pixels) == len(data.test_y) == 7 and len(whole.test_x) == 360
    assert torch.equal(data.test_x, whole.test_x[:7]) and torch.equal(data.x, whole.x)
    validation = held_out(data, digits, few)
    assert len(validation.test_x) == len(validation.test_y) == 7
    assert torch.equal(validation.test_x, held_out(whole, digits, spec).test_x[:7])
