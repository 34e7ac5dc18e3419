"""Squared norms of derivatives of a dense network, from explicit products: no second derivative is taken by autograd.

The network is y = W_m a(... a(W_1 x + b_1) ...) + b_m, its representations h_0 = x, h_1, ..., h_{m-1}. With D_l the slopes a' at
layer l, the Jacobian of y by x is W_m D_{m-1} ... D_1 W_1, and the gradient of output k by W_l is g_lk h_{l-1}^T, where
g_lk = D_l W_{l+1}^T g_{l+1,k}. Every function takes the weights (A, outputs, inputs) and `h`, the representations (A, B, units).

Axes: A replicas, B samples, K outputs, I inputs, H units of a layer, V directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from noise_reg.nn import ACTIVATIONS
from noise_reg.nn.products import batched
from noise_reg.sums import total


def representations(
    weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str, x_ABI: Tensor
) -> list[Tensor]:
    """h_0 = x, h_1, ..., h_{m-1}."""
    h = [x_ABI]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h.append(ACTIVATIONS[activation](batched(h[-1], weight.mT) + bias[:, None]))
    return h


def slopes(activation: str, h: Sequence[Tensor]) -> list[Tensor]:
    """D_1, ..., D_{m-1}: the activation's derivatives, from its values."""
    if activation == "tanh":
        return [1 - one.square() for one in h[1:]]
    return [(one > 0).to(one.dtype) if activation == "relu" else torch.ones_like(one) for one in h[1:]]


def jacobian_norm(weights: Sequence[Tensor], h: Sequence[Tensor], activation: str, layer: int = 0) -> Tensor:
    """|J|^2 (A, B), J by the input of the outputs (layer 0) or of hidden layer 1, 2, ... (Rifai et al.)."""
    D = slopes(activation, h)
    chain, top = list(weights[: layer or len(weights)]), D[layer - 1] if layer else None
    if len(chain) == 1:
        squares_AH = chain[0].square().sum(2)
        return of_one_layer(squares_AH, top, h[0])
    rows = chain[-1][:, None] if top is None else chain[-1][:, None] * top[..., None]
    return chain_norm(rows.expand(-1, h[0].shape[1], -1, -1), chain[:-1], D)


def mean_jacobian_norm(weights: Sequence[Tensor], h: Sequence[Tensor], activation: str, layer: int = 0) -> Tensor:
    """The mean (A,) over the batch of `jacobian_norm`, with less work: the sum over rows r of |r W|^2 is <sum r^T r, W W^T>, and
    for one hidden layer no sum over outputs is left."""
    last = layer or len(weights)
    if last == 1 or layer:
        return total(jacobian_norm(weights, h, activation, layer)) / h[0].shape[1]
    D, samples, first = slopes(activation, h), h[0].shape[1], gram(weights[0], left=True)
    if last == 2:
        return total(gram(weights[1], left=False) * first * gram(D[0], left=False), 2) / samples
    rows = weights[-1][:, None] * D[-1][:, :, None]
    for n in range(last - 2, 0, -1):
        rows = flat_product(rows, weights[n]) * D[n - 1][:, :, None]
    return total(gram(rows.flatten(1, 2), left=False) * first, 2) / samples


def projected_norm(
    weights: Sequence[Tensor], h: Sequence[Tensor], activation: str, directions_ABVK: Tensor, layer: int = 0
) -> Tensor:
    """An unbiased estimate of |J|^2 (A, B): K times the mean of |v^T J|^2 over unit vectors v of the outputs' space (Hoffman et al.
    2019, 'Robust learning with Jacobian regularization', Eq. 10)."""
    D = slopes(activation, h)
    chain = list(weights[: layer or len(weights)])
    ends = directions_ABVK * D[layer - 1][:, :, None] if layer else directions_ABVK
    found = chain_norm(flat_product(ends, chain[-1]), chain[:-1], D)
    return found * (chain[-1].shape[1] / directions_ABVK.shape[2])


def hutchinson_norm(
    weights: Sequence[Tensor], h: Sequence[Tensor], activation: str, signs_AVI: Tensor, layer: int = 0
) -> Tensor:
    """An unbiased estimate of |J|^2 = Tr J^T J (A, B): the mean of |J u|^2 over random signs u of the inputs' space, which all samples
    share (Hutchinson 1990): u passes the first and dearest layer once, not once a sample."""
    D = slopes(activation, h)
    chain = list(weights[: layer or len(weights)])
    t = batched(signs_AVI, chain[0].mT)[:, None]  # (A, 1, V, H)
    for n, weight in enumerate(chain[1:]):
        t = flat_product(t * D[n][:, :, None], weight.mT)
    t = t * D[layer - 1][:, :, None] if layer else t
    return t.square().sum((2, 3)).expand(h[0].shape[:2]) / signs_AVI.shape[1]


def weight_gradient_norm(weights: Sequence[Tensor], h: Sequence[Tensor], activation: str) -> Tensor:
    """The sum over k of |grad_W y_k|^2 (A, B), W all weights and biases (Deep Learning, section 7.5)."""
    D = slopes(activation, h)
    enters = [one.square().sum(2) + 1 for one in h]  # |h|^2, and 1 for the bias
    found = weights[-1].shape[1] * enters[-1]
    if len(weights) == 1:
        return found
    found = found + (D[-1].square() * total(weights[-1].square())[:, None]).sum(2) * enters[-2]
    if len(weights) > 2:
        rows = weights[-1][:, None] * D[-1][:, :, None]
        for n in range(len(weights) - 2, 0, -1):
            rows = flat_product(rows, weights[n]) * D[n - 1][:, :, None]
            found = found + rows.square().sum((2, 3)) * enters[n - 1]
    return found


def of_one_layer(squares_AH: Tensor, top: Tensor | None, x_ABI: Tensor) -> Tensor:
    if top is None:
        return total(squares_AH)[:, None].expand(x_ABI.shape[:2])
    return (top.square() * squares_AH[:, None]).sum(2)


def chain_norm(rows_ABVH: Tensor, weights: Sequence[Tensor], D: Sequence[Tensor]) -> Tensor:
    """The sum over V of |r D_l W_l ... D_1 W_1|^2 (A, B) for rows r that meet the last of `weights`; none: |r|^2."""
    for n in range(len(weights) - 1, 0, -1):
        rows_ABVH = flat_product(rows_ABVH * D[n][:, :, None], weights[n])
    if not weights:
        return rows_ABVH.square().sum((2, 3))
    rows_ABVH = rows_ABVH * D[0][:, :, None]
    outputs, inputs = weights[0].shape[1:]
    count = rows_ABVH.shape[1] * rows_ABVH.shape[2]
    if outputs * inputs + count * outputs < count * inputs:  # |r W|^2 = r (W W^T) r^T
        return (flat_product(rows_ABVH, gram(weights[0], left=True)) * rows_ABVH).sum((2, 3))
    return flat_product(rows_ABVH, weights[0]).square().sum((2, 3))


def flat_product(rows_ABVH: Tensor, weight_AHI: Tensor) -> Tensor:
    return batched(rows_ABVH.flatten(1, 2), weight_AHI).unflatten(1, rows_ABVH.shape[1:3])


class Gram(torch.autograd.Function):
    """rows^T rows (A, H, H) of rows (A, N, H), or with `left` their products rows rows^T; the backward pass takes one product
    where autograd takes two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, left: bool) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.left = left
        return batched(rows, rows.mT) if left else batched(rows.mT, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        both = grad + grad.mT
        return (batched(both, rows) if ctx.left else batched(rows, both)), None


def gram(rows: Tensor, *, left: bool) -> Tensor:
    out: Tensor = Gram.apply(rows, left)
    return out
