"""Standardisation against numpy's formulas.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noise_reg.data import Standardizer
from noise_reg.data import standardizer as module
from noise_reg.errors import UserError

BY = ("variance", "std")
PER = ("global", "pixel")


def random_images(channels: int, count: int = 50) -> Tensor:
    """uint8 (N, C, 4, 6), the channels of different brightness; pixel (0, 0) never varies."""
    rng = np.random.default_rng(channels)
    images = rng.integers(0, 200, (count, channels, 4, 6), dtype=np.uint8)
    images += (20 * np.arange(channels, dtype=np.uint8))[:, None, None]
    images[:, :, 0, 0] = 77
    return torch.from_numpy(images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("by", BY)
def test_it_is_numpy_s_mean_and_variance(by: str, per: str, channels: int) -> None:
    images = random_images(channels)
    standardizer = Standardizer.fit(images, by=by, per=per)
    axes = (0, 2, 3) if per == "global" else (0,)
    pixels = images.numpy() / 255
    mean = pixels.mean(axes, keepdims=True)[0]
    spread = (pixels.var if by == "variance" else pixels.std)(axes, keepdims=True)[0]
    if per == "pixel":
        spread[:, 0, 0] = 1
    shape = (channels, 1, 1) if per == "global" else (channels, 4, 6)
    assert tuple(standardizer.mean.shape) == tuple(standardizer.scale.shape) == shape
    assert standardizer.mean.dtype == standardizer.scale.dtype == torch.float64
    np.testing.assert_allclose(standardizer.mean.numpy(), mean, rtol=1e-13)
    np.testing.assert_allclose(standardizer.scale.numpy(), spread, rtol=1e-12)
    standardized = standardizer(torch.from_numpy(pixels))
    np.testing.assert_allclose(standardized.numpy(), (pixels - mean) / spread, rtol=1e-11, atol=1e-12)


def test_a_fit_in_chunks_is_the_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(3)
    whole = Standardizer.fit(images, by="std", per="pixel")
    monkeypatch.setattr(module, "CHUNK", 7)
    chunked = Standardizer.fit(images, by="std", per="pixel")
    assert torch.equal(whole.mean, chunked.mean) and torch.equal(whole.scale, chunked.scale)


def test_a_chunk_of_white_images_does_not_overflow() -> None:
    images = torch.full((2 * module.CHUNK, 1, 2, 2), 255, dtype=torch.uint8)
    images[: module.CHUNK] = 254
    standardizer = Standardizer.fit(images, by="variance", per="global")
    assert standardizer.mean.item() == pytest.approx(254.5 / 255, rel=1e-14)
    assert standardizer.scale.item() == pytest.approx(0.25 / 255**2, rel=1e-14)


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("by", BY)
def test_what_never_varies_has_scale_one(by: str, per: str) -> None:
    images = torch.full((49, 1, 2, 2), 77, dtype=torch.uint8)  # 77/255 has no exact square in floating point
    standardizer = Standardizer.fit(images, by=by, per=per)
    assert bool((standardizer.scale == 1).all())
    assert standardizer.from_bytes(images, torch.float64).abs().max() < 1e-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_and_pixels_give_the_same_numbers(dtype: torch.dtype) -> None:
    images = random_images(3)
    standardizer = Standardizer.fit(images, by="variance", per="pixel")
    from_levels, from_pixels = standardizer.from_bytes(images, dtype), standardizer(images.to(dtype) / 255)
    assert from_levels.dtype == from_pixels.dtype == dtype
    assert torch.equal(from_levels, from_pixels)


def test_a_short_dtype_is_rounded_only_at_the_end() -> None:
    images = random_images(1)
    standardizer = Standardizer.fit(images, by="variance", per="global")
    exact = standardizer.from_bytes(images, torch.float32).to(torch.bfloat16)
    assert torch.equal(standardizer.from_bytes(images, torch.bfloat16), exact)
    assert standardizer(torch.rand(2, 1, 4, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_leading_axes_are_free_and_gradients_are_in_pixels() -> None:
    standardizer = Standardizer.fit(random_images(3), by="variance", per="global")
    pixels = torch.rand(2, 5, 3, 4, 6, dtype=torch.float64, requires_grad=True)  # (R, N, C, H, W)
    standardized = standardizer(pixels)
    assert torch.equal(standardized[1, 2], standardizer(pixels[1, 2]))
    standardized.sum().backward()
    assert pixels.grad is not None
    torch.testing.assert_close(pixels.grad, (1 / standardizer.scale).expand_as(pixels))


def test_it_travels_in_the_state_of_a_model() -> None:
    fitted = Standardizer.fit(random_images(3), by="std", per="pixel")
    model = nn.Sequential(Standardizer(torch.zeros(3, 4, 6), torch.ones(3, 4, 6)), nn.Flatten())
    model[0].load_state_dict(fitted.state_dict())
    pixels = torch.rand(2, 3, 4, 6)
    assert torch.equal(model(pixels), fitted(pixels).flatten(1))
    assert not list(fitted.parameters())


def test_wrong_use_is_refused() -> None:
    images = random_images(1)
    with pytest.raises(UserError, match=r"standardize = 'var': must be one of variance, std"):
        Standardizer.fit(images, by="var", per="global")
    with pytest.raises(UserError, match=r"standardize_per = 'channel': must be one of global, pixel"):
        Standardizer.fit(images, by="std", per="channel")
    for wrong in (images.float(), images[0], images[:0]):
        with pytest.raises(ValueError, match=r"images must be uint8 \(N, C, H, W\), found"):
            Standardizer.fit(wrong, by="std", per="global")
    with pytest.raises(TypeError, match="levels go to from_bytes"):
        Standardizer.fit(images, by="std", per="global")(images)
