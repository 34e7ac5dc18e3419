"""Contender (a): the plain loop fed in torchvision's way, sample by sample.

Axes: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torchvision.transforms as T  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from noise_reg.bench.loops import PlainLoop
from noise_reg.bench.plain import Batches
from noise_reg.bench.work import Workload
from noise_reg.errors import UserError


class Images(Dataset[tuple[Tensor, int]]):
    """A data set class in torchvision's manner: levels in memory, transformed sample by sample."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[np.ndarray], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class LoaderLoop(PlainLoop):
    """The plain loop fed by torchvision's transforms and a DataLoader in the same process."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        super().__init__(work, precision, gate)
        standardizer = self.data.standardizer
        if standardizer.mean[0].numel() > 1:
            raise UserError("contender a: torchvision's Normalize needs reading.standardize_per = global")
        normalize = T.Normalize(standardizer.mean.flatten().tolist(), standardizer.scale.flatten().tolist())
        self.images = Images(*work.training_bytes(), T.Compose([T.ToTensor(), normalize]))

    def batches_of(self, order: Tensor) -> Batches:
        loader = DataLoader(self.images, self.batch, sampler=order.tolist(), num_workers=0, drop_last=True)
        return ((x.to(self.work.device), y.to(self.work.device)) for x, y in loader)
