"""Losses of a stack, one number a replica; the sum over replicas is taken once, at backward.

Axes: R replicas, A some of them, B samples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from noise_reg.sums import total

KERAS_EPSILON = 1e-7
LEAST, MOST = -math.log1p(-KERAS_EPSILON), -math.log(KERAS_EPSILON)  # of the clamped loss
SCALE = 2.0**60  # keeps an attack's gradients above the numbers that count as 0
Soft = tuple[slice | Tensor, Tensor]  # the replicas with targets of their own, and those (A, B, K)


def log_probabilities(logits_RBK: Tensor) -> Tensor:
    """(R, K, B): sums along a middle axis are vectorised, those along a short last one are not."""
    return F.log_softmax(logits_RBK.mT.contiguous(), dim=1)


def exact(logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """Cross-entropy of each sample, (R, B)."""
    return -log_probabilities(logits_RBK).gather(1, labels_RB[:, None])[:, 0]


def clamped(logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """Cross-entropy of probabilities clamped to [1e-7, 1 - 1e-7] as Keras computes it, (R, B): a sample beyond the clamp
    gives no gradient (reading 2)."""
    return exact(logits_RBK, labels_RB).clamp(LEAST, MOST)


def squared(outputs_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """|y - target|^2 against the one-hot target, summed over the classes, (R, B) (Deep Learning, Eq. 7.31)."""
    return (outputs_RBK - F.one_hot(labels_RB, outputs_RBK.shape[2])).square().sum(2)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"clamped": clamped, "exact": exact, "squared": squared}


def correct(logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """How many of each replica's samples are classified right, (R,) int64."""
    return (logits_RBK.mT.contiguous().max(1).indices == labels_RB).sum(1)  # see log_probabilities


def mean_loss(loss: str, logits_RBK: Tensor, labels_RB: Tensor) -> Tensor:
    """(R,), the mean over the batch."""
    return total(LOSSES[loss](logits_RBK, labels_RB)) / labels_RB.shape[1]


def mean_loss_and_gradient(
    loss: str, logits_RBK: Tensor, labels_RB: Tensor, soft: Soft | None = None
) -> tuple[Tensor, Tensor]:
    """(R,), the mean over the batch, and its gradient by the logits (R, B, K): what autograd finds, in one pass. Replicas with
    `soft` targets have those in place of the labels."""
    samples = labels_RB.shape[1]
    if loss == "squared":
        difference = logits_RBK - F.one_hot(labels_RB, logits_RBK.shape[2])
        loss_R, grad_RBK = total(difference.square(), 2).div_(samples), difference.mul_(2 / samples)
    else:
        log_p_RKB, place_R1B = log_probabilities(logits_RBK), labels_RB[:, None]
        loss_RB = -log_p_RKB.gather(1, place_R1B)[:, 0]
        grad_RKB = log_p_RKB.exp_().scatter_add_(
            1, place_R1B, torch.full_like(loss_RB, -1)[:, None]
        )  # softmax - one-hot
        if loss == "clamped":
            exact_RB, loss_RB = loss_RB, loss_RB.clamp(LEAST, MOST)
            grad_RKB.masked_fill_((loss_RB != exact_RB)[:, None], 0)
        loss_R, grad_RBK = total(loss_RB).div_(samples), grad_RKB.div_(samples).mT.contiguous()
    if soft is not None:
        rows, targets_ABK = soft
        loss_R[rows], grad_RBK[rows] = soft_loss_and_gradient(loss, logits_RBK[rows], targets_ABK)
    return loss_R, grad_RBK


def ascent_direction(loss: str, logits_RBK: Tensor, labels_RB: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each sample's loss by its logits (R, B, K), scaled by a number above 0; and whether rounding, or the clamp,
    has made the true class's part of it 0 (R, B).

    'exact' and 'clamped' round as a library's backward pass does: the true class's part, p - 1, is 0 once p rounds to 1 (a margin of
    16.6 in float32), long before the other classes' p are, so that beyond it the direction itself is another. 'stable' is the same
    loss as 'exact' with a direction that no confidence spoils.
    """
    if loss == "squared":
        difference = logits_RBK - F.one_hot(labels_RB, logits_RBK.shape[2])
        return difference, difference.gather(2, labels_RB[:, :, None])[:, :, 0] == 0
    log_p_RKB, place_R1B = log_probabilities(logits_RBK), labels_RB[:, None]
    exact_RB = -log_p_RKB.gather(1, place_R1B)[:, 0]
    others_RKB = log_p_RKB.scatter_(1, place_R1B, -math.inf)
    if loss == "stable":
        direction_RKB = others_RKB.sub_(others_RKB.amax(1, keepdim=True)).exp_()
        direction_RKB.scatter_(1, place_R1B, -direction_RKB.sum(1, keepdim=True))
        return direction_RKB.mT.contiguous(), torch.zeros_like(labels_RB, dtype=torch.bool)
    true_RB = (-exact_RB).exp_() - 1
    direction_RKB = scaled_exp(others_RKB).scatter_(1, place_R1B, (true_RB * SCALE)[:, None])
    rounded_RB = true_RB == 0
    if loss == "clamped":
        beyond_RB = exact_RB.clamp(LEAST, MOST) != exact_RB
        direction_RKB.masked_fill_(beyond_RB[:, None], 0)
        rounded_RB |= beyond_RB
    return direction_RKB.mT.contiguous(), rounded_RB


def scaled_exp(log_p: Tensor) -> Tensor:
    """SCALE exp(log_p), 0 where exp(log_p) would round to 0, though denormal numbers may count as 0."""
    tiny, eps = math.log(torch.finfo(log_p.dtype).tiny), math.log(torch.finfo(log_p.dtype).eps)
    denormal = (log_p + math.log(SCALE)).exp_().masked_fill_(log_p < tiny + eps - math.log(2), 0)
    return torch.where(log_p < tiny, denormal, log_p.exp() * SCALE)


def soft_loss_and_gradient(loss: str, logits_ABK: Tensor, targets_ABK: Tensor) -> tuple[Tensor, Tensor]:
    """The same for any targets: -sum_k t_k log p_k, each log p_k clamped where the loss is, or |y - t|^2."""
    samples = logits_ABK.shape[1]
    if loss == "squared":
        difference = logits_ABK - targets_ABK
        return total(difference.square(), 2) / samples, difference * (2 / samples)
    log_p = F.log_softmax(logits_ABK, dim=2)
    p, weight = log_p.exp(), targets_ABK
    if loss == "clamped":
        within = log_p.clamp(-MOST, -LEAST)
        log_p, weight = within, torch.where(within == log_p, targets_ABK, 0)  # a clamped term gives no gradient
    return -total(targets_ABK * log_p, 2) / samples, (p * weight.sum(2, keepdim=True) - weight) / samples
