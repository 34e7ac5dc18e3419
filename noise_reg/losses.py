"""Losses of a stack, one number a replica; the sum over replicas is taken once, at backward.

Axes: R replicas, B samples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

KERAS_EPSILON = 1e-7


def exact(logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """Cross-entropy of each sample, (R, B)."""
    return -F.log_softmax(logits_RBK, dim=-1).gather(-1, labels_RB[:, :, None]).squeeze(-1)


def clamped(logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """Cross-entropy of probabilities clamped to [1e-7, 1 - 1e-7] as Keras computes it, (R, B): a sample beyond the clamp
    gives no gradient (reading 2)."""
    return exact(logits_RBK, labels_RB).clamp(-math.log1p(-KERAS_EPSILON), -math.log(KERAS_EPSILON))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"clamped": clamped, "exact": exact}


def correct(logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """How many of each replica's samples are classified right, (R,) int64."""
    return (logits_RBK.argmax(-1) == labels_RB).sum(1)


def mean_loss(loss: str, logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """(R,), the mean over the batch."""
    return LOSSES[loss](logits_RBK, labels_RB).mean(1)
