"""Confidences, reliability bins and the expected calibration error: by hand, and beside torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from noise_reg.evaluations import calibration
from noise_reg.evaluations.calibration import binned, judged, predictions
from noise_reg.evaluations.clean import clean_scores
from tests.trained import trained

R, N, K = 3, 500, 10


def test_the_error_of_a_case_reckoned_by_hand() -> None:
    """Five bins: .55 right and .6 wrong in (.4, .6], an edge belonging below; .9 right, 1 wrong, .85 right in (.8, 1]."""
    confidence = torch.tensor([[0.55, 0.6, 0.9, 1.0, 0.85]], dtype=torch.float64)
    right = torch.tensor([[True, False, True, False, True]])
    bins = binned(confidence, right, 5)
    assert bins.count_RM.tolist() == [[0, 0, 2, 0, 3]]
    assert bins.confidence_RM[0, 2].item() == pytest.approx(0.575) and bins.accuracy_RM[0, 2].item() == 0.5
    assert bins.accuracy_RM[0, 4].item() == pytest.approx(2 / 3)
    assert bins.accuracy_RM[0, 0].isnan() and bins.confidence_RM[0, 3].isnan()
    assert bins.error().item() == pytest.approx((abs(1 - 1.15) + abs(2 - 2.75)) / 5)


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 12.0])
@pytest.mark.parametrize("bins", [15, 7])
def test_the_error_is_that_of_torchmetrics_for_every_replica(sharpness: float, bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(K, (N,), generator=generator)
    logits = sharpness * torch.randn(R, N, K, generator=generator, dtype=torch.float64)
    logits[1, torch.arange(N), y] += sharpness  # the replicas must differ
    logits[2] *= 0.2
    confidence, right, _ = judged(logits, y)
    found = binned(confidence, right, bins).error()
    for r in range(R):
        oracle = MulticlassCalibrationError(num_classes=K, n_bins=bins, norm="l1")
        assert found[r].item() == pytest.approx(float(oracle(logits[r].softmax(1), y)), abs=1e-6)
    assert len({round(value, 3) for value in found.tolist()}) == R


def test_confidence_and_likelihood_of_logits_are_those_of_their_softmax() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0)], [1000.0, 0.0]]])
    confidence, right, nll = judged(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(confidence, torch.tensor([[0.75, 1.0]], dtype=torch.float64), rtol=0, atol=1e-7)
    assert right.tolist() == [[False, True]]
    torch.testing.assert_close(nll, torch.tensor([[math.log(4.0), 0.0]], dtype=torch.float64), rtol=0, atol=1e-7)


def test_a_stacks_predictions_are_its_clean_loss_and_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "CHUNK", 7)
    model, data, _ = trained("fc", precision="fp64")
    found = predictions(model, data.test_x, data.test_y)
    loss, accuracy = clean_scores(model, data.test_x, data.test_y, "exact")
    torch.testing.assert_close(found.nll_RN.mean(1), loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.right_RN.double().mean(1), accuracy)
    assert found.confidence_RN.shape == (len(accuracy), len(data.test_y))
