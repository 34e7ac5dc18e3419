"""The losses, their gradients, smoothed targets, and the count of right answers.

Axes: R replicas, B samples, K classes.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from noise_reg.losses import LOSSES, clamped, correct, exact, mean_loss, mean_loss_and_gradient
from noise_reg.regularizers.label_smoothing import smoothed

R, B, K = 3, 50, 10
LOG_OF_CLAMP = -math.log(1e-7)


def logits_and_labels(scale: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(R, B, K, dtype=torch.float64, generator=generator)
    return logits.requires_grad_(), torch.randint(K, (R, B), generator=generator)


def clamped_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """As Keras writes it: -ln of the softmax clipped to [1e-7, 1 - 1e-7]."""
    p = logits.softmax(-1).gather(-1, labels[..., None])[..., 0]
    return -p.clamp(1e-7, 1 - 1e-7).log()


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_exact_loss_is_torch_s_cross_entropy_with_its_gradient(scale: float) -> None:
    logits, labels = logits_and_labels(scale)
    losses = exact(logits, labels)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(R, B)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(values.sum(), logits)[0] for values in (losses, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_clamped_loss_is_that_of_clamped_probabilities_with_its_gradient(scale: float) -> None:
    logits, labels = logits_and_labels(scale)
    losses, expected = clamped(logits, labels), clamped_probabilities(logits, labels)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(values.sum(), logits)[0] for values in (losses, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_the_clamped_loss_has_no_gradient_beyond_either_end_and_the_exact_one_within() -> None:
    logits, labels = logits_and_labels(30.0)
    p = logits.detach().softmax(-1).gather(-1, labels[..., None])[..., 0]
    beyond = (p < 1e-7) | (p > 1 - 1e-7)
    assert (p < 1e-7).any() and (p > 1 - 1e-7).any() and (~beyond).any()
    of_clamped, of_exact = (torch.autograd.grad(f(logits, labels).sum(), logits)[0] for f in (clamped, exact))
    assert (of_clamped[beyond] == 0).all()
    assert torch.equal(of_clamped[~beyond], of_exact[~beyond])
    assert (of_exact[p < 1e-7].abs().sum(-1) > 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_clamped_loss_stays_between_its_ends_however_wrong_or_right(dtype: torch.dtype) -> None:
    logits = torch.tensor([[[1e30, 0.0], [0.0, 1e30], [0.0, 0.0]]], dtype=dtype)
    losses = clamped(logits, torch.zeros(1, 3, dtype=torch.int64))[0]
    torch.testing.assert_close(losses, torch.tensor([1e-7, LOG_OF_CLAMP, math.log(2)], dtype=dtype), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_mean_loss_is_one_number_a_replica_over_its_own_batch(loss: str) -> None:
    logits, labels = logits_and_labels(3.0)
    found = mean_loss(loss, logits, labels)
    assert found.shape == (R,)
    for r in range(R):
        one = {
            "exact": F.cross_entropy,
            "clamped": lambda x, y: clamped_probabilities(x, y).mean(),
            "squared": lambda x, y: (
                F.mse_loss(x, torch.eye(K, dtype=x.dtype)[y]) * K
            ),  # torch's is a mean over classes too
        }[loss]
        torch.testing.assert_close(found[r], one(logits[r], labels[r]), rtol=1e-9, atol=1e-12)


def test_smoothed_targets_share_epsilon_among_the_other_classes() -> None:
    """The example of the text: three classes, epsilon = 0.1; torch's own form would give the class 0.933."""
    found = smoothed(torch.tensor([[1], [0]]), torch.tensor([0.1, 0.3]), 3, torch.float64)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.05, 0.9, 0.05], dtype=torch.float64))
    torch.testing.assert_close(found[1, 0], torch.tensor([0.7, 0.15, 0.15], dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_smoothed_targets_and_its_gradient_are_autograds(loss: str, scale: float) -> None:
    logits, labels = logits_and_labels(scale)
    targets = smoothed(labels[1:], torch.tensor([0.1, 0.3]), K, torch.float64)
    found, gradient = mean_loss_and_gradient(loss, logits.detach(), labels, (slice(1, 3), targets))
    hard, hard_gradient = mean_loss_and_gradient(loss, logits.detach(), labels)
    assert torch.equal(found[0], hard[0]) and torch.equal(gradient[0], hard_gradient[0])
    if loss == "squared":
        expected = (logits[1:] - targets).square().sum(2).mean(1)
    else:
        p = logits[1:].softmax(2)
        p = p.clamp(1e-7, 1 - 1e-7) if loss == "clamped" else p
        expected = -(targets * p.log()).sum(2).mean(1)
    torch.testing.assert_close(found[1:], expected.detach(), rtol=1e-9, atol=1e-12)
    (of_autograd,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient[1:], of_autograd[1:], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_that_is_not_a_number_is_shown_in_its_replica_alone(loss: str) -> None:
    logits, labels = logits_and_labels(1.0)
    bad = logits.detach().clone()
    bad[1, 7, 3] = math.nan
    found = mean_loss(loss, bad, labels)
    assert torch.isnan(found).tolist() == [False, True, False]


def test_right_answers_are_counted_for_each_replica() -> None:
    logits, labels = logits_and_labels(1.0)
    labels[0] = logits[0].argmax(-1)
    labels[1] = (logits[1].argmax(-1) + 1) % K
    labels[2] = logits[2].argmax(-1)
    labels[2, :13] = (labels[2, :13] + 1) % K
    counts = correct(logits, labels)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [B, 0, B - 13]
