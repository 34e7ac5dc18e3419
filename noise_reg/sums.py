"""Sums in which every replica has the bits that it has alone, on any number of threads.

torch chooses the order of a sum's additions by the whole tensor's shape, and cuts a sum among threads where it is the only one. Two
kinds of sum are free of both. The sums of one replica's columns, taken for it alone: threads share out the columns then, never one
column's terms. And sums along memory of at most `LONGEST` terms: each is taken by one thread, in an order that its length decides; a
longer one is a sum of sums. Many columns are summed in the first way, for all replicas at once where that was tried to give the
same bits; few in the second.

Axes: R replicas, T terms, C columns.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

LONGEST = 8192  # terms; torch cuts a sum among threads from 32 768 on
MANY = 32  # columns
# by kind of tensor: whether one call for all replicas gives the bits of one call for each
at_once: dict[Hashable, bool] = {}


def along_memory(x: Tensor) -> Tensor:
    """The sums over the last dimension of a contiguous tensor."""
    terms = x.shape[-1]
    if terms <= LONGEST:
        return x.sum(-1)
    whole = terms - terms % LONGEST
    parts = [x[..., :whole].unflatten(-1, (-1, LONGEST)).sum(-1), x[..., whole:].sum(-1, keepdim=True)]
    return along_memory(torch.cat(parts, dim=-1))


def of_columns(x_RTC: Tensor) -> Tensor:
    """The sums over T of a contiguous tensor, (R, C)."""
    kind = (x_RTC.shape, x_RTC.dtype, x_RTC.device, torch.get_num_threads())
    if kind not in at_once:
        own_TC = torch.randn(x_RTC.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        own_TC = own_TC.to(x_RTC)
        every = own_TC.expand_as(x_RTC).contiguous()
        at_once[kind] = bool((every.sum(1) == own_TC.sum(0)).all())
    return x_RTC.sum(1) if at_once[kind] else torch.stack([one.sum(0) for one in x_RTC])


class Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: int) -> Tensor:
        ctx.shape = x.shape
        x = x.flatten(1, dims)
        if x.shape[2:].numel() >= MANY:
            return of_columns(x.flatten(2).contiguous()).view(x.shape[:1] + x.shape[2:])
        return along_memory(x.movedim(1, -1).contiguous())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        summed = len(ctx.shape) - grad.dim()
        return grad.view(grad.shape[0], *[1] * summed, *grad.shape[1:]).expand(ctx.shape), None


def total(x: Tensor, dims: int = 1) -> Tensor:
    """The sum of x (R, ...) over the `dims` dimensions behind the first, differentiable twice."""
    out: Tensor = Total.apply(x, dims)
    return out
