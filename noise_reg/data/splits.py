"""The split of a training set into training and validation images."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from noise_reg.data.dataset import DataError


def split(count: int, train_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation images: int64, ascending, disjoint, together 0..count-1.

    The training part has round(count * train_fraction) images, drawn by numpy's PCG64 from `seed` alone; a fraction
    of 1 leaves the validation part empty. DataError if the fraction is outside (0, 1] or leaves no training image.
    """
    if not 0 < train_fraction <= 1:
        raise DataError(f"train_fraction = {train_fraction}: must be in (0, 1]")
    train_count = round(count * train_fraction)
    if train_count == 0:
        raise DataError(f"train_fraction = {train_fraction} of {count} images leaves none for training")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    train, validation = (np.sort(part).astype(np.int64) for part in np.split(order, [train_count]))
    return torch.from_numpy(train), torch.from_numpy(validation)


def split_digest(indices: Tensor) -> str:
    """16 hexadecimal digits that name a part: of the SHA-256 of its indices (N,) as little-endian int64."""
    return hashlib.sha256(indices.cpu().numpy().astype("<i8").tobytes()).hexdigest()[:16]
