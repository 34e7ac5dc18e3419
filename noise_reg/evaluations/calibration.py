"""Whether a network's confidence is the share of its right answers: reliability bins and the expected calibration error (ECE; Guo
et al. 2017, Eq. 3), of all replicas at once.

The confidence of a sample is the greatest of its class probabilities, softmax of the logits in float64.

Axes: R replicas, N samples, D pixels, K classes, M bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noise_reg.nn import CLEAN, Network

CHUNK = 1000  # samples a forward pass


@dataclass(frozen=True)
class Predictions:
    """confidence_RN float64 in (0, 1]; right_RN bool; nll_RN float64, in nats."""

    confidence_RN: Tensor
    right_RN: Tensor
    nll_RN: Tensor


@dataclass(frozen=True)
class Bins:
    """Bin m of M, m = 0 ..., holds the samples with confidence in (m / M, (m + 1) / M]: their number (R, M) int64, and the sums of
    their confidences and of their right answers, (R, M) float64."""

    count_RM: Tensor
    confidence_sum_RM: Tensor
    right_sum_RM: Tensor

    @property
    def confidence_RM(self) -> Tensor:
        """Mean confidence; NaN in an empty bin."""
        return self.confidence_sum_RM / self.count_RM

    @property
    def accuracy_RM(self) -> Tensor:
        """Share of right answers; NaN in an empty bin."""
        return self.right_sum_RM / self.count_RM

    def error(self) -> Tensor:
        """ECE (R,): the mean over samples of |accuracy - mean confidence| of their bin."""
        return (self.right_sum_RM - self.confidence_sum_RM).abs().sum(1) / self.count_RM.sum(1)


@torch.no_grad()
def predictions(model: Network, x_ND: Tensor, y_N: Tensor) -> Predictions:
    """Of each replica on standardised pixels, every noise off."""
    replicas = model.replicas
    chunks = []
    for first in range(0, len(x_ND), CHUNK):
        x, y = x_ND[first : first + CHUNK], y_N[first : first + CHUNK]
        chunks.append(judged(model(x.expand(replicas, -1, -1), CLEAN), y))
    return Predictions(*(torch.cat(parts, dim=1) for parts in zip(*chunks, strict=True)))


def judged(logits_RNK: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence, right or not, and negative log-likelihood of each sample, all (R, N)."""
    log_p_RNK = logits_RNK.double().log_softmax(2)
    greatest = log_p_RNK.max(2)
    nll_RN = -log_p_RNK.gather(2, y_N.expand(len(log_p_RNK), -1)[:, :, None])[:, :, 0]
    return greatest.values.exp(), greatest.indices == y_N, nll_RN


def binned(confidence_RN: Tensor, right_RN: Tensor, bins: int) -> Bins:
    """The samples in `bins` bins of equal width."""
    inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence_RN.device)[1:-1]
    place_RN = torch.bucketize(confidence_RN.contiguous(), inner)  # an edge belongs to the bin below it
    empty = torch.zeros(len(confidence_RN), bins, dtype=torch.float64, device=confidence_RN.device)
    return Bins(
        empty.long().scatter_add(1, place_RN, torch.ones_like(place_RN)),
        empty.scatter_add(1, place_RN, confidence_RN.double()),
        empty.scatter_add(1, place_RN, right_RN.double()),
    )
