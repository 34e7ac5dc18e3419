"""Accuracy on occluded and on rotated test images.

Axes: R replicas, N images, B images of a chunk, D = C H W pixels, S strengths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noise_reg.data import Standardizer
from noise_reg.evaluation_spec import PerturbationSpec
from noise_reg.losses import correct
from noise_reg.nn import CLEAN, Network
from noise_reg.streams import Purpose, uniform

CHUNK = 1000  # images a forward pass


def occluded(images: Tensor, side: int, corner_B2: Tensor) -> Tensor:
    """(B, C, H, W) with a black square of `side` pixels; corner_B2 in [0, 1) is its place among those within the image."""
    height, width = images.shape[2:]
    side_HW = torch.tensor([min(side, height), min(side, width)], device=images.device)
    top_B2 = (corner_B2 * (torch.tensor([height, width], device=images.device) - side_HW + 1)).floor()
    rows, columns = (torch.arange(n, device=images.device) for n in (height, width))
    within = [
        (line >= top_B2[:, n, None]) & (line < top_B2[:, n, None] + side_HW[n])
        for n, line in enumerate((rows, columns))
    ]
    return images.masked_fill((within[0][:, :, None] & within[1][:, None, :])[:, None], 0)


def perturbed(images: Tensor, strength: float, kind: str, corner_B2: Tensor) -> list[Tensor]:
    """The images (B, C, H, W) at this strength, once for each direction that there is."""
    if not strength:
        return [images]
    if kind == "occlusion":
        return [occluded(images, int(strength), corner_B2)]
    from torchvision.transforms.v2 import InterpolationMode  # type: ignore[import-untyped]
    from torchvision.transforms.v2.functional import rotate  # type: ignore[import-untyped] # here, for torchvision's import takes long

    return [rotate(images, sign * strength, interpolation=InterpolationMode.BILINEAR) for sign in (1, -1)]


@torch.no_grad()
def perturbed_accuracy(
    model: Network, pixels_ND: Tensor, y_N: Tensor, standardizer: Standardizer, settings: PerturbationSpec
) -> Tensor:
    """Accuracy (R, S) float64 at each strength of `settings.grid`; all replicas and strengths have the same places."""
    replicas = model.replicas
    hits_RS = torch.zeros(replicas, len(settings.grid), dtype=torch.float64, device=pixels_ND.device)
    seed = torch.tensor([settings.seed], device=pixels_ND.device)
    for chunk, first in enumerate(range(0, len(pixels_ND), CHUNK)):
        images = pixels_ND[first : first + CHUNK].view(-1, *model.image)
        corner_B2 = 1 - uniform(seed, Purpose.OCCLUSION, 2 * len(images), lane=0, step=chunk, epoch=0)[0].view(-1, 2)
        labels_RB = y_N[first : first + CHUNK].expand(replicas, -1)
        for s, strength in enumerate(settings.grid):
            found = perturbed(images, strength, settings.kind, corner_B2)
            for one in found:
                x_BD = standardizer(one).flatten(1)
                hits_RS[:, s] += correct(model(x_BD.expand(replicas, -1, -1), CLEAN), labels_RB) / len(found)
    return hits_RS / len(pixels_ND)
