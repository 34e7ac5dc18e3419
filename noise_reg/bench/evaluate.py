"""Evaluations against the bare products that they are made of: Eq. 8, and PGD on images that none of its steps breaks.

Axes: B images of a chunk, N images, D pixels, I inputs, O outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from noise_reg.bench.work import Workload, synchronize
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import AttackSpec, CorruptionSpec
from noise_reg.evaluations.adversarial import CHUNK, attacked_accuracy
from noise_reg.evaluations.corruption import corruption_accuracy
from noise_reg.nn import CLEAN
from noise_reg.nn.export import stacked_model
from noise_reg.precision import arithmetic

GRID = (0.0, 0.3, 0.6, 0.9)
STEPS = 20
DELTA = 1e-7  # of an attack that no image notices: all stay until its last step


def evaluation_times(work: Workload, images: int, repeats: int) -> pd.DataFrame:
    """One row an evaluation and repeat: its seconds, those of its products, their ratio. One replica of a dense network."""
    spec, data = work.specs[0], work.data("fp32")
    if spec.arch.convolutions:
        raise UserError(
            f"evaluate.job: its products are known for dense networks, not for arch.name = {spec.arch.name}"
        )
    if len(data.test_x) < images:
        raise UserError(f"evaluate.images = {images}: must be at most {len(data.test_x)}, the test images there are")
    _, weights = next(work.initial("fp32"))
    model = stacked_model([spec.replace(precision="fp32")], [weights], data.image, data.classes).to(work.device)
    pixels, shapes = data.test_pixels[:images], [layer.get_parameter("weight").shape[1:] for layer in model.layers]
    with torch.no_grad(), arithmetic("fp32", work.device):
        own = torch.cat(
            [model(x[None], CLEAN)[0].argmax(1) for x in data.test_x[:images].split(CHUNK)]
        )  # all are right
    noisy = CorruptionSpec(GRID, 1, "standardized", 0)
    attack = AttackSpec((DELTA,), "pixel", True, "exact", STEPS, 2.5 / STEPS, True, False, images, 0)

    def survived() -> None:
        accuracy, _, _ = attacked_accuracy(model, pixels, own, data.standardizer, attack)
        assert float(accuracy) == 1, "an image left the attack: its products would be fewer"

    forward, backward = products(shapes, min(images, CHUNK), work.device)
    chunks = -(-images // CHUNK)
    timed: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "corruption": (
            lambda: corruption_accuracy(model, pixels, own, data.standardizer, noisy),
            lambda: [forward() for _ in range(chunks * len(GRID))],
        ),
        "pgd": (  # a gradient before the first step and one at each, then a last look
            survived,
            lambda: (
                [each() for _ in range(chunks * (STEPS + 1)) for each in (forward, backward)]
                + [forward() for _ in range(chunks)]
            ),
        ),
    }
    rows = []
    for repeat in range(-1, repeats):  # the first warms up
        for name, pair in timed.items():
            with arithmetic("fp32", work.device):
                seconds, bare = (clock(each, work.device) for each in pair)
            if repeat >= 0:
                rows.append(
                    {
                        "evaluation": name,
                        "repeat": repeat,
                        "seconds": seconds,
                        "product_seconds": bare,
                        "ratio": seconds / bare,
                    }
                )
    return pd.DataFrame(rows)


def clock(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def products(
    shapes: list[torch.Size], batch: int, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The products of a pass forward and of one back to the images, into kept buffers; shapes are (outputs, inputs)."""
    made: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []
    for outputs, inputs in shapes:
        sizes = ((batch, inputs), (outputs, inputs), (batch, outputs))
        x, weight, grad = (torch.randn(size, device=device) for size in sizes)
        made.append((x, weight, grad, torch.empty_like(grad), torch.empty_like(x)))

    def forward() -> None:
        for x, weight, _, z, _ in made:
            torch.mm(x, weight.T, out=z)

    def backward() -> None:
        for _, weight, grad, _, grad_x in reversed(made):
            torch.mm(grad, weight, out=grad_x)

    return forward, backward


def evaluation_lines(times: pd.DataFrame) -> list[str]:
    """What the report says: median and range of each ratio."""
    found = []
    for name in dict.fromkeys(times["evaluation"]):
        ratio = times.loc[times["evaluation"] == name, "ratio"]
        found.append(
            f"{name}: {ratio.median():.2f} times its bare products ({ratio.min():.2f} to {ratio.max():.2f}, {len(ratio)} repeats)"
        )
    return found
