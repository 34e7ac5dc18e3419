"""Sums in which every replica has the bits that it has alone, on any number of threads.

torch chooses the order of a sum's additions by the whole tensor's shape, and cuts a sum among threads where it is the only one. Two
kinds of sum are free of both. Those of a large replica are taken for it alone: threads share out the columns then, never one
column's terms. Those of a small replica are laid along memory: one sum of at most `LONGEST` terms is taken by one thread, in an
order that its length decides; a longer one is a sum of sums.

Axes: R replicas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LONGEST = 8192  # terms; torch cuts a sum among threads from 32 768 on
LARGE = 1 << 15  # numbers of a replica that are worth a call of their own


def along_memory(x: Tensor) -> Tensor:
    """The sums over the last dimension of a contiguous tensor."""
    terms = x.shape[-1]
    if terms <= LONGEST:
        return x.sum(-1)
    whole = terms - terms % LONGEST
    parts = [x[..., :whole].unflatten(-1, (-1, LONGEST)).sum(-1), x[..., whole:].sum(-1, keepdim=True)]
    return along_memory(torch.cat(parts, dim=-1))


class Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: int) -> Tensor:
        ctx.shape = x.shape
        x = x.flatten(1, dims)
        if x[0].numel() >= LARGE and x.shape[2:].numel() > 1:
            return torch.stack([one.contiguous().sum(0) for one in x])
        return along_memory(x.movedim(1, -1).contiguous())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        summed = len(ctx.shape) - grad.dim()
        return grad.view(grad.shape[0], *[1] * summed, *grad.shape[1:]).expand(ctx.shape), None


def total(x: Tensor, dims: int = 1) -> Tensor:
    """The sum of x (R, ...) over the `dims` dimensions behind the first, differentiable twice."""
    out: Tensor = Total.apply(x, dims)
    return out
