"""Standardisation, the model's first layer, so that noise and attack sizes keep a meaning in pixels.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noise_reg.errors import UserError

MAX_LEVEL = 255
CHUNK = 1000  # images summed at once: bounds the memory of a fit, and a chunk's squares fit into int32

DIVISORS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {"variance": lambda variance: variance, "std": np.sqrt}
SUMMED_AXES: dict[str, tuple[int, ...]] = {"global": (1, 2), "pixel": ()}  # of (C, H, W)


class Standardizer(nn.Module):
    """x -> (x - mean) / scale on pixels x in [0, 1].

    mean, scale: float64 (C, 1, 1) or (C, H, W), in units of full scale (scale: squared, where it is a variance). They
    are buffers, so `.to(device)` and `state_dict` take them along; `.to(dtype)` on a whole model would round them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float64))
        self.register_buffer("scale", scale.to(torch.float64))

    @classmethod
    def fit(cls, images_u8: Tensor, by: str, per: str) -> Standardizer:
        """The standardisation of training images uint8 (N, C, H, W), their levels divided by 255.

        by: divide by the 'variance' (as the NINR paper prints it) or by the 'std'; both of the population, over N; 'none' leaves the pixels
        as they are.
        per: 'global', one mean and scale a channel (so one for grey images), or 'pixel'. What never varies has scale 1.
        UserError names an unknown `by` or `per`; ValueError if the images are not uint8 (N, C, H, W) with N > 0.
        """
        for field, value, known in (
            ("standardize", by, (*DIVISORS, "none")), ("standardize_per", per, tuple(SUMMED_AXES))
        ):  # fmt: skip
            if value not in known:
                raise UserError(f"{field} = {value!r}: must be one of {', '.join(known)}")
        if images_u8.dtype != torch.uint8 or images_u8.ndim != 4 or not len(images_u8):
            raise ValueError(f"images must be uint8 (N, C, H, W), found {images_u8.dtype} {tuple(images_u8.shape)}")
        if by == "none":
            one = torch.ones(images_u8.shape[1], 1, 1)
            return cls(0 * one, one)
        # Python's integers are exact for any count, so a constant pixel has variance 0 and not a rounding error.
        sums = (sums_CHW.numpy().astype(object) for sums_CHW in level_sums(images_u8))
        total, squares = (each.sum(axis=SUMMED_AXES[per], keepdims=True) for each in sums)
        count = images_u8.numel() // total.size
        mean = (total / (count * MAX_LEVEL)).astype(np.float64)
        variance = ((count * squares - total**2) / (count * MAX_LEVEL) ** 2).astype(np.float64)
        scale = np.where(variance == 0, 1.0, DIVISORS[by](variance))
        return cls(torch.from_numpy(mean), torch.from_numpy(scale))

    def forward(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W) in [0, 1] -> the same shape and dtype, standardised; computed in float32 at least."""
        if not pixels.is_floating_point():
            raise TypeError(f"pixels must be floating point in [0, 1], found {pixels.dtype}; levels go to from_bytes")
        dtype = torch.promote_types(pixels.dtype, torch.float32)
        return ((pixels.to(dtype) - self.mean.to(dtype)) / self.scale.to(dtype)).to(pixels.dtype)

    def undo(self, standardized: Tensor) -> Tensor:
        """Pixels of standardised images (..., C, H, W): what `forward` takes there, up to rounding."""
        dtype = torch.promote_types(standardized.dtype, torch.float32)
        return (standardized.to(dtype) * self.scale.to(dtype) + self.mean.to(dtype)).to(standardized.dtype)

    def from_bytes(self, images_u8: Tensor, dtype: torch.dtype) -> Tensor:
        """Levels uint8 (..., C, H, W) -> `dtype`, standardised; rounded to a short `dtype` only at the end."""
        wide = torch.promote_types(dtype, torch.float32)
        standardized: Tensor = self(images_u8.to(wide) / MAX_LEVEL)
        return standardized.to(dtype)


def level_sums(images_u8: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares of the levels over the images: int64 (C, H, W) each, exact, on the CPU."""
    sums = torch.zeros(2, *images_u8.shape[1:], dtype=torch.int64)
    for chunk in torch.split(images_u8, CHUNK):
        levels = chunk.to("cpu", torch.int32)
        sums[0] += levels.sum(0, dtype=torch.int32)
        sums[1] += levels.square().sum(0, dtype=torch.int32)
    return sums[0], sums[1]
