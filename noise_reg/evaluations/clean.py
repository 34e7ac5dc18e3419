"""Loss and accuracy with every noise off (epsilon = 0).

Axes: R replicas, N samples, D pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noise_reg.losses import correct, mean_loss
from noise_reg.nn import CLEAN, Network

CHUNK = 1000  # samples a forward pass


@torch.no_grad()
def clean_scores(model: Network, x_ND: Tensor, y_N: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of each replica on standardised pixels, both (R,) float64."""
    replicas = model.replicas
    loss_sum, correct_sum = torch.zeros(2, replicas, dtype=torch.float64, device=x_ND.device)
    for first in range(0, len(x_ND), CHUNK):
        x, y = x_ND[first : first + CHUNK], y_N[first : first + CHUNK]
        labels_RN = y.expand(replicas, -1)
        logits = model(x.expand(replicas, -1, -1), CLEAN)
        loss_sum += mean_loss(loss, logits, labels_RN) * len(x)
        correct_sum += correct(logits, labels_RN)
    return loss_sum / len(x_ND), correct_sum / len(x_ND)
