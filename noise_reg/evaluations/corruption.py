"""Accuracy under input corruption, Eq. 8 of the NINR paper.

Axes: R replicas, B samples of a chunk, D pixels, S strengths.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from noise_reg.data import Standardizer
from noise_reg.evaluation_spec import CorruptionSpec
from noise_reg.losses import correct
from noise_reg.nn import CLEAN, Network
from noise_reg.regularizers import corrupt
from noise_reg.streams import Purpose, normal

CHUNK = 1000  # samples a forward pass


@lru_cache(maxsize=64)  # of 28 x 28 images some 200 MB; stack after stack is tested on the same noise
def noise(seed: int, draw: int, chunk: int, count: int, device: torch.device) -> Tensor:
    """The standard normal numbers (count,) of one draw for one chunk of test images."""
    return normal(torch.tensor([seed], device=device), Purpose.CORRUPTION, count, lane=draw, step=chunk, epoch=0)[0]


@torch.no_grad()
def corruption_accuracy(
    model: Network, pixels_ND: Tensor, y_N: Tensor, standardizer: Standardizer, settings: CorruptionSpec
) -> Tensor:
    """Accuracy (R, S) float64 at each sigma_noise of `settings.grid`, averaged over its noise draws.

    pixels_ND: test images in [0, 1]. The noise of a draw is the same for every strength and every replica, so strengths
    and methods are compared on the same corrupted images. Noise is added to the standardised image or to its pixels
    (reading 6).
    """
    replicas, device = model.replicas, pixels_ND.device
    hits_SR = torch.zeros(len(settings.grid), replicas, dtype=torch.float64, device=device)

    def standardized(pixels_BD: Tensor) -> Tensor:
        return standardizer(pixels_BD.view(-1, *model.image)).flatten(1)

    for chunk, first in enumerate(range(0, len(pixels_ND), CHUNK)):
        pixels_BD, y_B = pixels_ND[first : first + CHUNK], y_N[first : first + CHUNK]
        base = standardized(pixels_BD) if settings.space == "standardized" else pixels_BD
        for draw in range(settings.draws):
            delta_BD = noise(settings.seed, draw, chunk, base.numel(), device).view_as(base).to(base.dtype)
            for s, sigma in enumerate(settings.grid):
                if sigma == 0 and draw:
                    continue  # every draw gives the clean image
                x_BD = corrupt(base, sigma, delta_BD)
                x_BD = x_BD if settings.space == "standardized" else standardized(x_BD)
                logits = model(x_BD.expand(replicas, -1, -1), CLEAN)
                hits_SR[s] += correct(logits, y_B.expand(replicas, -1)) * (settings.draws if sigma == 0 else 1)
    return (hits_SR / (settings.draws * len(pixels_ND))).T
