"""ELU, batch norm and pooling at once are the three one after the other.

Axes: R replicas, B samples, H and W height and width, C channels.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import noise_reg.nn.block
from noise_reg.nn.convolution import StackedBatchNorm, max_pool
from noise_reg.train import new_stack, run_epoch
from tests.plain import made_data, made_spec


@pytest.mark.parametrize("size", [(6, 6), (7, 5)], ids=["even", "odd"])
@pytest.mark.parametrize("piece", [1, 500, 1 << 18], ids=["a sample each", "some", "whole"])
def test_a_block_at_once_equals_its_three_operations(
    size: tuple[int, int], piece: int, monkeypatch: pytest.MonkeyPatch
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
            norm.weight.copy_(torch.linspace(0.5, 2, 12, dtype=torch.float64).view(3, 4))
            norm.bias.copy_(torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4))
        start = z.clone().requires_grad_()
        used = start * 1
        out = norm.pooled(used) if at_once else max_pool(norm(F.elu(used), True))
        out.backward(grad.mT.contiguous().mT)  # in a layout that pooling does not like
        found.append((out, start.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    for slow, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


def test_a_block_with_a_negative_scale_is_trained_step_by_step_and_one_without_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    at_once = StackedBatchNorm.pooled

    def counted(norm: StackedBatchNorm, z: torch.Tensor) -> torch.Tensor:
        calls.append(norm)
        return at_once(norm, z)

    monkeypatch.setattr(StackedBatchNorm, "pooled", counted)
    spec = made_spec("cnn", seed=1, strengths={})
    data = made_data(spec)
    stack = new_stack([spec], data)
    with torch.no_grad():
        stack.model.norms[0].get_parameter("weight")[0, 1] = -0.5
    run_epoch(stack, data)
    assert calls
    assert set(calls) == set(stack.model.norms[1:])
