"""Eq. 8 of the NINR paper: its moments and ends, in training (CDT) and in evaluation, against slow loops.

Axes: R replicas, B samples, D pixels, N test images, S strengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noise_reg.evaluation_spec import CorruptionSpec
from noise_reg.evaluations import corruption
from noise_reg.evaluations.corruption import corruption_accuracy
from noise_reg.nn import CLEAN
from noise_reg.prepare import TrainingData
from noise_reg.regularizers import TrainingPlaces, corrupt
from noise_reg.streams import Purpose, normal
from tests.plain import BATCH, IMAGE, TEST_IMAGES, made_spec
from tests.trained import exported, trained

GRID = (0.0, 0.3, 0.7, 1.0)
Predict = Callable[[Tensor], Tensor]


def settings(
    *, space: str = "standardized", draws: int = 3, grid: tuple[float, ...] = GRID, seed: int = 5
) -> CorruptionSpec:
    return CorruptionSpec(grid=grid, draws=draws, space=space, seed=seed)


def started(sigmas: list[float], seeds: list[int], *, epoch: int = 0, step: int = 0) -> TrainingPlaces:
    """The places of CDT in a stack at a step of an epoch."""
    specs = [made_spec("fc", strengths={"cdt": sigma}) for sigma in sigmas]
    places = TrainingPlaces(
        [s.strengths for s in specs],
        torch.tensor(seeds),
        specs[0].reading,
        [],
        BATCH,
        specs[0].distribution,
        torch.float64,
    )
    places.start_epoch(epoch, torch.zeros(len(seeds), BATCH, dtype=torch.int64), BATCH)
    places.start_step(step, epoch)
    return places


def slow_accuracy(model: nn.Module, data: TrainingData, chosen: CorruptionSpec, chunk: int) -> list[float]:
    """One image, one draw, one strength at a time; a draw's noise comes in chunks of images."""
    accuracies = []
    for sigma in chosen.grid:
        hits = 0
        for draw in range(chosen.draws):
            for n, pixels in enumerate(data.test_pixels):
                size = min(chunk, TEST_IMAGES - n // chunk * chunk)
                noise = normal(
                    torch.tensor([chosen.seed]),
                    Purpose.CORRUPTION,
                    size * len(pixels),
                    lane=draw,
                    step=n // chunk,
                    epoch=0,
                )
                delta = noise.view(size, *IMAGE)[n % chunk].double()
                if chosen.space == "pixel":
                    x = math.sqrt(1 - sigma**2) * pixels.view(*IMAGE) + sigma * delta
                else:  # the exported model standardises, so what it is given is taken back to pixels
                    scale, mean = data.standardizer.scale, data.standardizer.mean
                    standardized = (pixels.view(*IMAGE) - mean) / scale
                    x = (math.sqrt(1 - sigma**2) * standardized + sigma * delta) * scale + mean
                with torch.no_grad():
                    hits += int(model(x[None]).argmax() == data.test_y[n])
        accuracies.append(hits / (chosen.draws * TEST_IMAGES))
    return accuracies


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.9])
def test_corruption_has_the_mean_and_the_variance_of_eq_8(sigma: float) -> None:
    x = torch.tensor([-3.0, 0.0, 0.5, 4.0]).double()
    delta = normal(torch.arange(4), Purpose.CDT, 100_000, lane=0, step=0, epoch=0).double()
    corrupted = corrupt(x[:, None], sigma, delta)
    np.testing.assert_allclose(corrupted.mean(1), math.sqrt(1 - sigma**2) * x, atol=0.01 * sigma)
    np.testing.assert_allclose(corrupted.var(1), np.full(4, sigma**2), rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_corruption_of_strength_0_is_clean_and_of_strength_1_pure_noise_exactly(dtype: torch.dtype) -> None:
    x, delta = torch.linspace(-3, 9, 100, dtype=dtype), torch.linspace(-4, 4, 100, dtype=dtype).flip(0)
    for zero, one in ((0.0, 1.0), (torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype))):
        assert torch.equal(corrupt(x, zero, delta), x)
        assert torch.equal(corrupt(x, one, delta), delta)


def test_cdt_corrupts_each_replica_s_batch_by_its_own_strength_and_stream() -> None:
    sigmas, seeds = [0.4, 0.0, 0.8], [3, 4, 9]
    x_RBD = torch.linspace(-2, 2, 3 * BATCH * 50, dtype=torch.float64).view(3, BATCH, 50)
    out = started(sigmas, seeds, epoch=2, step=4).input(x_RBD.clone())
    for r, (sigma, seed) in enumerate(zip(sigmas, seeds, strict=True)):
        delta = normal(torch.tensor([seed]), Purpose.CDT, BATCH * 50, lane=0, step=4, epoch=2).view(BATCH, 50).double()
        expected = math.sqrt(1 - sigma**2) * x_RBD[r] + sigma * delta
        torch.testing.assert_close(out[r], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(out[1], x_RBD[1])


def test_cdt_corrupts_afresh_at_every_step_and_epoch() -> None:
    x_RBD = torch.zeros(1, BATCH, 50, dtype=torch.float64)
    noise = torch.cat(
        [started([0.5], [3], epoch=epoch, step=step).input(x_RBD.clone()) for epoch in (0, 1) for step in (0, 1)]
    ).flatten(1)
    np.testing.assert_allclose(np.corrcoef(noise.numpy()), np.eye(4), atol=0.2)


@pytest.mark.parametrize("space", ["standardized", "pixel"])
@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_a_stack_s_accuracy_is_that_of_each_exported_model_in_a_slow_loop(
    arch: str, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, outcomes = trained(arch)
    monkeypatch.setattr(corruption, "CHUNK", 10)  # the last chunk is shorter
    chosen = settings(space=space, draws=2)
    found = corruption_accuracy(model, data.test_pixels, data.test_y, data.standardizer, chosen)
    assert found.shape == (3, len(GRID)) and found.dtype == torch.float64
    expected = [slow_accuracy(exported(outcome, data), data, chosen, chunk=10) for outcome in outcomes]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert len(np.unique(found)) > 5  # the comparison is not of constants


def test_at_strength_0_the_accuracy_is_the_clean_one_whatever_the_draws() -> None:
    model, data, _ = trained("fc")
    with torch.no_grad():
        logits = model(data.test_x.expand(3, -1, -1), CLEAN)
    clean = (logits.argmax(-1) == data.test_y).double().mean(1)
    assert clean.min() > 0.5
    for space in ("standardized", "pixel"):
        for draws in (1, 4):
            chosen = settings(space=space, draws=draws, grid=(0.7, 0.0))
            found = corruption_accuracy(model, data.test_pixels, data.test_y, data.standardizer, chosen)
            np.testing.assert_allclose(found[:, 1], clean, rtol=0, atol=1e-12)


def test_draws_are_averaged_and_differ() -> None:
    model, data, _ = trained("fc")
    counts = (1, 2, 3)
    one, two, three = (
        corruption_accuracy(model, data.test_pixels, data.test_y, data.standardizer, settings(draws=count)) * count
        for count in counts
    )
    for total in (one, two - one, three - two):  # hits of the first, second, third draw, over N
        np.testing.assert_allclose((total * TEST_IMAGES).numpy(), (total * TEST_IMAGES).round(), atol=1e-9)
        assert total.min() > -1e-9 and total.max() < 1 + 1e-9
    assert not torch.equal(two - one, one) and not torch.equal(three - two, two - one)


def test_every_replica_meets_the_same_noise_and_another_seed_gives_other_noise() -> None:
    model, data, _ = trained("fc", seeds=(1, 1, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter[:1].clone().expand_as(parameter))
    accuracies = {
        seed: corruption_accuracy(
            model,
            data.test_pixels,
            data.test_y,
            data.standardizer,
            settings(draws=1, grid=(0.5, 0.7, 0.8, 0.9), seed=seed),
        )
        for seed in (5, 6)
    }
    assert torch.equal(accuracies[5][0], accuracies[5][1]) and torch.equal(accuracies[5][0], accuracies[5][2])
    assert not torch.equal(accuracies[5], accuracies[6])
