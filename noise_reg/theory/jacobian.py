"""What noise in the input of a Jacobian penalty adds (N+J, claim R3): E|J(x + eps)|^2 = |J|^2 + sigma^2 (|H|^2 + C) + O(sigma^4) for
eps ~ N(0, sigma^2 I), with |H|^2 = sum_k |H_k|^2, H_k the Hessian of output k, and C = sum_k grad F_k . grad Laplacian F_k, half the
Laplacian of |J|^2 less |H|^2.

Axes: B samples, D inputs, K outputs, V random vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]  # (B, D) -> (B, K), each sample by itself


def gradients(function: Function, x_BD: Tensor) -> list[Tensor]:
    """grad F_k (B, D) of each output, which can be differentiated again."""
    outputs = function(x_BD)
    return [torch.autograd.grad(outputs[:, k].sum(), x_BD, create_graph=True)[0] for k in range(outputs.shape[1])]


def squared_jacobian(function: Function, x_BD: Tensor) -> Tensor:
    """|J|^2 (B,)."""
    x_BD = x_BD.detach().requires_grad_()
    return sum((g.square().sum(1) for g in gradients(function, x_BD)), torch.zeros(len(x_BD), dtype=x_BD.dtype))


def noisy_norm(function: Function, x_BD: Tensor, sigma: float, epsilon_BD: Tensor) -> Tensor:
    """(|J(x + sigma eps)|^2 + |J(x - sigma eps)|^2) / 2 (B,): the pair has no odd orders of sigma."""
    ends = (squared_jacobian(function, x_BD + sign * sigma * epsilon_BD).detach() for sign in (1, -1))
    return sum(ends, torch.zeros(len(x_BD), dtype=x_BD.dtype)) / 2


def second_order(function: Function, x_BD: Tensor, signs_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates (B,) of |H|^2 and of half the Laplacian of |J|^2, from one vector of signs a sample (Hutchinson)."""
    x_BD = x_BD.detach().requires_grad_()
    rows = gradients(function, x_BD)
    hessian = torch.zeros(len(x_BD), dtype=x_BD.dtype)
    for row in rows:
        (product,) = torch.autograd.grad((row * signs_BD).sum(), x_BD, retain_graph=True)
        hessian = hessian + product.square().sum(1)
    total = sum((row.square().sum() for row in rows), torch.zeros((), dtype=x_BD.dtype))
    (slope,) = torch.autograd.grad(total, x_BD, create_graph=True)
    (bend,) = torch.autograd.grad((slope * signs_BD).sum(), x_BD)
    return hessian, (bend * signs_BD).sum(1) / 2


def second_order_whole(function: Function, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """The same two exactly, from every entry of every Hessian: sums over the unit vectors."""
    count = x_BD.shape[1]
    found = [second_order(function, x_BD, torch.eye(count, dtype=x_BD.dtype)[n].expand_as(x_BD)) for n in range(count)]
    hessian, half_laplacian = (torch.stack(values).sum(0) for values in zip(*found, strict=True))
    return hessian, half_laplacian
