"""Label smoothing: 1 - epsilon for the class, epsilon / (K - 1) for each other one (Deep Learning, section 7.5.1). Its place is
the targets.

Axes: A replicas, B samples, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def smoothed(labels_AB: Tensor, epsilon_A: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """(A, B, K), each sample's sums to 1. (torch's own `label_smoothing` gives the class 1 - epsilon + epsilon / K.)"""
    epsilon_A11 = epsilon_A.to(dtype)[:, None, None]
    targets = (epsilon_A11 / (classes - 1)).expand(*labels_AB.shape, classes).contiguous()
    return targets.scatter_(2, labels_AB[:, :, None], (1 - epsilon_A11).expand(*labels_AB.shape, 1))
