"""Accuracy on occluded and rotated images, against a slow count image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2.functional import rotate  # type: ignore[import-untyped]

from noise_reg.config import read_evaluations
from noise_reg.evaluation_spec import PerturbationSpec
from noise_reg.evaluations.perturbation import occluded, perturbed_accuracy
from noise_reg.nn import CLEAN
from noise_reg.spec import SpecError
from noise_reg.train import new_stack
from tests.composed import composed
from tests.plain import made_data, made_spec


@pytest.mark.parametrize(("side", "zeros"), [(0, 0), (3, 9), (6, 36), (9, 6 * 8)])
def test_a_square_of_its_side_is_black_within_the_image(side: int, zeros: int) -> None:
    images = torch.ones(40, 2, 6, 8)
    corner = torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    corner[0], corner[1] = 0.0, 1 - 2**-24
    found = occluded(images, side, corner)
    assert (found == 0).sum((1, 2, 3)).tolist() == [2 * zeros] * 40
    if side == 3:
        assert not found[0, :, :3, :3].any() and not found[1, :, 3:, 5:].any()  # the first place and the last
        assert len({tuple(image.flatten().tolist()) for image in found}) > 10


@pytest.mark.parametrize("kind", ["occlusion", "rotation"])
def test_accuracy_is_that_of_a_count_image_by_image(kind: str) -> None:
    specs = [made_spec("fc", seed=seed) for seed in (1, 2)]
    data = made_data(specs[0])
    model = new_stack(specs, data).model
    settings = PerturbationSpec(kind, (0.0, 3.0, 8.0), 0)
    found = perturbed_accuracy(model, data.test_pixels, data.test_y, data.standardizer, settings)
    images = data.test_pixels.view(-1, *data.image)

    def accuracy(changed: Tensor) -> list[float]:
        right = [
            model(data.standardizer(one).flatten()[None, None].expand(2, 1, -1), CLEAN).argmax(2)[:, 0]
            for one in changed
        ]
        return (torch.stack(right) == data.test_y[:, None]).double().mean(0).tolist()

    assert found[:, 0].tolist() == accuracy(images)
    if kind == "rotation":
        both = [accuracy(rotate(images, angle, interpolation=InterpolationMode.BILINEAR)) for angle in (3.0, -3.0)]
        assert found[:, 1].tolist() == pytest.approx([(a + b) / 2 for a, b in zip(*both, strict=True)])
    else:
        assert found[:, 2].tolist() == accuracy(torch.zeros_like(images))  # all is black


def test_they_are_asked_for_by_name_and_checked() -> None:
    with composed("evaluate") as cfg:
        assert [s.label for s in read_evaluations(cfg, ["occlusion", "rotation"])] == ["occlusion", "rotation"]
    with (
        composed("evaluate", "perturbation.rotation.grid=[200]") as cfg,
        pytest.raises(SpecError, match=r"rotation\.grid"),
    ):
        read_evaluations(cfg, ["rotation"])
    with composed("evaluate") as cfg, pytest.raises(SpecError, match=r"known are .*validation.*occlusion, rotation"):
        read_evaluations(cfg, ["blur"])
