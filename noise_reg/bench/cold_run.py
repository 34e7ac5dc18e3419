"""The plain loop as a script of its own: `python -m noise_reg.bench.cold_run <recipe.json> <folder>`.

It loads what it needs, trains one run after another with a test pass an epoch, and writes each run's rows when it is done.

Axes: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from noise_reg.bench.loops import PlainLoop
from noise_reg.bench.work import Recipe, Workload
from noise_reg.spec import RunSpec, parse

CHUNK = 1000  # test images at once


def read_recipe(path: Path) -> Recipe:
    tree = json.loads(path.read_text())
    return Recipe(**{**tree, "specs": tuple(parse(RunSpec, spec) for spec in tree["specs"]), "single": ()})


def train_runs(recipe: Recipe, places: Sequence[int], out: Path) -> None:
    """The runs at `places` of the recipe, into <out>/<place>.csv."""
    work = Workload(recipe)
    data = work.data("fp32")
    test_NCHW = data.test_x.view(-1, *data.image)
    for place in places:
        work.recipe = dataclasses.replace(recipe, single=(place,))
        loop = PlainLoop(work, "fp32", False)
        rows = []
        for epoch in range(recipe.epochs):
            loop.ready(epoch)
            loop.run()
            rows.append((epoch + 1, accuracy(loop.networks[0], test_NCHW, data.test_y)))
        write_rows(out / f"{place}.csv", rows)


@torch.no_grad()
def accuracy(network: nn.Module, x_NCHW: Tensor, y_N: Tensor) -> float:
    """Fraction of the samples that are classified right, in evaluation mode."""
    network.eval()
    right = sum(
        int((network(x).argmax(1) == y).sum()) for x, y in zip(x_NCHW.split(CHUNK), y_N.split(CHUNK), strict=True)
    )
    network.train()
    return right / len(y_N)


def write_rows(path: Path, rows: Sequence[tuple[int, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("epoch", "test_accuracy"))
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    found = read_recipe(Path(sys.argv[1]))
    train_runs(found, range(len(found.specs)), Path(sys.argv[2]))
