"""The linear toy model of the NINR paper's appendix B: its equations against each other, autograd and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noise_reg.theory import toy as toy_model
from noise_reg.theory.toy import (
    Toy,
    Weights,
    continuous_noise,
    decays,
    decays_as_printed,
    mean_step,
    noise_step,
    phase,
    rescaled,
    sample_loss,
    sample_step,
    terms,
    trajectory,
    weights,
)

START = weights(0.6, 0.8, 0.5)
TASK = Toy(eta=0.05, sigma_epsilon=1.5, sigma_x=0.7, m=1.3)
NONZERO = st.floats(0.1, 2.0) | st.floats(-2.0, -0.1)


def drawn(samples: int, toy: Toy = TASK, repeats: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return toy.sigma_x * rng.standard_normal((repeats, samples)), toy.sigma_epsilon * rng.standard_normal(
        (repeats, samples)
    )


def test_a_step_follows_the_gradient_of_eq_9() -> None:
    x, epsilon = drawn(50)
    parts = [torch.tensor(float(part), dtype=torch.float64, requires_grad=True) for part in START]
    w0, w1, w_ni = parts
    tx, te = torch.tensor(x[0]), torch.tensor(epsilon[0])
    loss = ((w1 * (w0 * tx + w_ni * te) - TASK.m * tx) ** 2).mean() / 2
    loss.backward()
    assert sample_loss(START, x[0], epsilon[0], 1.3) == pytest.approx(loss.item(), rel=1e-12)
    after = sample_step(START, x[0], epsilon[0], TASK)
    for found, part in zip(after, parts, strict=True):
        assert part.grad is not None
        assert found == pytest.approx((part - 0.05 * part.grad).item(), rel=1e-12)


def test_the_loss_of_many_samples_is_the_sum_of_eq_12_and_the_step_that_of_eq_13() -> None:
    x, epsilon = drawn(4_000_000)
    clean, _, second = terms(START, TASK)
    assert sample_loss(START, x[0], epsilon[0], 1.3) == pytest.approx(clean + second, rel=5e-3)
    for found, limit, start in zip(
        sample_step(START, x[0], epsilon[0], TASK), mean_step(START, TASK), START, strict=True
    ):
        assert found - start == pytest.approx(limit - start, rel=1e-2)


def test_r_1_has_the_spread_of_eq_12_and_falls_as_the_root_of_the_batch() -> None:
    spreads = []
    for batch in (16, 64, 256, 1024):
        x, epsilon = drawn(batch, repeats=4000)
        # epsilon and -epsilon: the half difference is what is odd in epsilon, R_1
        odd = (sample_loss(START, x, epsilon, 1.3) - sample_loss(START, x, -epsilon, 1.3)) / 2
        spreads.append(odd.std())
        assert abs(odd.mean()) < 4 * odd.std() / np.sqrt(4000)
    _, factor, _ = terms(START, TASK)
    np.testing.assert_allclose(spreads, abs(factor) / np.sqrt([16, 64, 256, 1024]), rtol=0.05)


@given(w1=NONZERO, w_ni=NONZERO, eta=st.floats(0.001, 1.0), sigma=st.floats(0.1, 5.0))
@settings(deadline=None, max_examples=200)
def test_w_ni_shrinks_where_the_corrected_bound_says(w1: float, w_ni: float, eta: float, sigma: float) -> None:
    toy = Toy(eta, sigma)
    if abs(w1**2 * eta * sigma**2 - 2) < 1e-9:
        return
    after = mean_step(weights(0.3, w1, w_ni), toy)
    assert bool(abs(after.w_ni) < abs(w_ni)) == bool(decays(w1, toy))


def test_the_bound_as_printed_is_wrong_in_both_directions() -> None:
    small, large = Toy(0.1, 3.0), Toy(1.0, 1.0)
    assert bool(decays(0.5, small)) and not bool(decays_as_printed(0.5, small))
    assert not bool(decays(2.0, large)) and bool(decays_as_printed(2.0, large))


@given(w1=NONZERO, w_ni=NONZERO, sigma=st.floats(0.1, 3.0), time=st.floats(0.0, 3.0))
@settings(deadline=None, max_examples=100)
def test_the_continuous_solution_is_the_limit_of_small_steps(w1: float, w_ni: float, sigma: float, time: float) -> None:
    steps = 4000
    toy = Toy(time / steps, sigma)
    found = trajectory(weights(1.0, w1, w_ni), toy, steps, noise_step)
    solved = continuous_noise(weights(1.0, w1, w_ni), toy, steps)
    scale = max(1.0, sigma**2 * time) * max(abs(w1), abs(w_ni)) ** 3
    for discrete, continuous, start in zip(found, solved, weights(1.0, w1, w_ni), strict=True):
        assert discrete[-1] == pytest.approx(continuous, abs=0.02 * scale)
        assert abs(continuous) <= abs(start) * (1 + 1e-12)


def test_the_continuous_solution_keeps_the_difference_of_squares_and_its_limits() -> None:
    w = weights(1.0, np.array([0.5, 2.0, 1.0, 1.0]), np.array([2.0, 0.5, 1.0, 1.0 + 1e-12]))
    later = continuous_noise(w, Toy(0.1, 1.0), np.array(7.0))
    np.testing.assert_allclose(later.w1**2 - later.w_ni**2, w.w1**2 - w.w_ni**2, atol=1e-10)
    assert later.w_ni[2] == pytest.approx(later.w_ni[3], rel=1e-6)
    forever = continuous_noise(w, Toy(0.1, 1.0), np.array(1e6))
    np.testing.assert_allclose(forever.w_ni**2, [3.75, 0, 5e-6, 5e-6], atol=1e-5)


@pytest.mark.parametrize(
    ("sigma", "expected"), [(0.01, "decoupled"), (1.0, "decay"), (9.0, "catapult"), (20.0, "divergent")]
)
def test_each_phase_is_met_as_the_noise_grows(sigma: float, expected: str) -> None:
    course = trajectory(weights(0.5, 1.0, 0.2), Toy(0.03, sigma), 200)
    assert phase(course) == expected
    assert course.w_ni.shape == (201,)
    if expected == "catapult":  # it ends in the data's minimum, without noise
        assert abs(course.w0[-1] * course.w1[-1] - 1) < 0.2 and abs(course.w_ni[-1]) < 0.2


def test_a_phase_diagram_is_one_call_and_a_runaway_weight_harms_no_neighbour() -> None:
    sigma = np.array([0.01, 1.0, 9.0, 20.0, 1e30])
    found = phase(trajectory(weights(0.5, 1.0, 0.2), Toy(0.03, sigma), 200))
    assert found.tolist() == ["decoupled", "decay", "catapult", "divergent", "divergent"]
    assert set(found) <= set(toy_model.PHASES)


def test_the_footnote_s_rescaling_holds_for_the_printed_equations_but_not_for_w0() -> None:
    toy = Toy(eta=0.05, sigma_epsilon=0.5, m=3.0)
    small, task = rescaled(START, toy)
    ours, theirs = mean_step(START, toy), mean_step(small, task)
    assert ours.w1 == pytest.approx(3 * theirs.w1) and ours.w_ni == pytest.approx(3 * theirs.w_ni)
    assert ours.w0 - START.w0 == pytest.approx(9 * (theirs.w0 - START.w0))


def test_weights_are_a_triple() -> None:
    assert [float(part) for part in Weights(*START)] == [0.6, 0.8, 0.5]
