"""ELU, batch norm and pooling at once are the three one after the other.

Axes: R replicas, B samples, H and W height and width, C channels.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import noise_reg.nn.architectures
import noise_reg.nn.block
from noise_reg.nn import CLEAN
from noise_reg.nn.block import elu
from noise_reg.nn.convolution import StackedBatchNorm, max_pool
from tests.trained import exported, trained


@pytest.mark.parametrize("least", [0.5, -1.0], ids=["rising", "some falling"])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)], ids=["even", "odd"])
@pytest.mark.parametrize("piece", [1, 500, 1 << 18], ids=["a sample each", "some", "whole"])
def test_a_block_at_once_equals_its_three_operations(
    size: tuple[int, int], piece: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_reg.nn.block, "PIECE", piece)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 7, *size, 4, dtype=torch.float64, generator=generator)
    z[:, :, 2:4] = 0.25  # equal neighbours: the first of them is the maximum
    grad = torch.randn(3, 7, size[0] // 2, size[1] // 2, 4, dtype=torch.float64, generator=generator)
    found = []
    for at_once in (False, True):
        norm = StackedBatchNorm(3, 4, "pytorch", dtype=torch.float64, device=z.device)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(least, 2, 12, dtype=torch.float64).view(3, 4))
            norm.bias.copy_(torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4))
        start = z.clone().requires_grad_()
        used = start * 1
        out = norm.pooled(used) if at_once else max_pool(norm(F.elu(used), True))
        out.backward(grad.mT.contiguous().mT)  # in a layout that pooling does not like
        found.append((out, start.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    for slow, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1.2e-7), (torch.float64, 2.3e-16)])
def test_elu_is_that_of_torch(dtype: torch.dtype, tolerance: float) -> None:
    sizes = torch.logspace(-12, 2, 2001, dtype=dtype)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan], dtype=dtype)
    slow_z = torch.cat([-sizes, sizes, special]).requires_grad_()
    fast_z = slow_z.detach().clone().requires_grad_()
    slow, fast = F.elu(slow_z), elu(fast_z)
    torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance, equal_nan=True)
    slow_first, fast_first = (
        torch.autograd.grad((out * 3).sum(), z, create_graph=True)[0] for out, z in ((slow, slow_z), (fast, fast_z))
    )
    torch.testing.assert_close(fast_first, slow_first, rtol=0, atol=3 * tolerance, equal_nan=True)
    slow_second, fast_second = (
        torch.autograd.grad(first.sum(), z)[0] for first, z in ((slow_first, slow_z), (fast_first, fast_z))
    )
    clear = slow_z.detach().abs() > tolerance  # of 0, where the second derivative jumps from 1 to 0
    torch.testing.assert_close(fast_second[clear], slow_second[clear], rtol=0, atol=3 * tolerance)


@pytest.mark.parametrize("least", [0.5, -1.0], ids=["rising", "some falling"])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)], ids=["even", "odd"])
def test_a_clean_block_in_few_passes_equals_its_three_operations(size: tuple[int, int], least: float) -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(3, 7, *size, 4, dtype=torch.float64, generator=generator)
    grad = torch.randn(3, 7, size[0] // 2, size[1] // 2, 4, dtype=torch.float64, generator=generator)
    norm = StackedBatchNorm(3, 4, "keras", dtype=torch.float64, device=z.device).requires_grad_(False)
    for numbers, low, high in ((norm.weight, least, 2), (norm.bias, -1, 1), (norm.running_mean, -1, 1)):
        numbers.copy_(torch.linspace(low, high, 12, dtype=torch.float64).view(3, 4))
    norm.running_var.copy_(torch.linspace(0.3, 3, 12, dtype=torch.float64).view(3, 4))
    found = []
    for slow in (True, False):
        start = z.clone().requires_grad_()
        out = max_pool(norm(F.elu(start), False)) if slow else norm.pooled_clean(start)
        out.backward(grad)
        assert start.grad is not None
        found.append((out, start.grad))
    for expected, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("negative", [False, True])
def test_clean_passes_in_few_images_at_a_time_equal_the_exported_networks(
    negative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_reg.nn.architectures, "IN_CACHE", 5)
    model, data, outcomes = trained("cnn")
    images = data.test_pixels[:13].view(-1, *data.image)
    x = data.standardizer(images).flatten(1).expand(len(outcomes), -1, -1)
    if negative:  # the maximum does not commute with it
        with torch.no_grad():
            model.norms[0].get_parameter("weight")[:, 1] = -0.5
        for outcome in outcomes:
            outcome.weights["norms.0.weight"][1] = -0.5
    found = model(x, CLEAN)
    for outcome, logits in zip(outcomes, found, strict=True):
        torch.testing.assert_close(logits, exported(outcome, data)(images), rtol=1e-10, atol=1e-10)
