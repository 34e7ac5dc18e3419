"""Squared norms of derivatives of a dense network, from explicit products: no second derivative is taken by autograd.

The network is y = W_m a(... a(W_1 x + b_1) ...) + b_m. With D_l the slopes a' at layer l, its Jacobian by the input is
W_m D_{m-1} ... D_1 W_1, and the gradient of output k by W_l is g_lk h_{l-1}^T, where g_lk = D_l W_{l+1}^T g_{l+1,k} and h_0 = x.
Noise of the training (dropout, nodes) takes no part: what is penalised is the network as it is evaluated.

Axes: A replicas, B samples, K outputs, I inputs, H units of a layer, V directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from noise_reg.nn import ACTIVATIONS


def hidden_layers(weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str, x_ABI: Tensor) -> list[Tensor]:
    """The hidden representations (A, B, H), first to last."""
    found: list[Tensor] = []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        z = torch.baddbmm(bias[:, None], found[-1] if found else x_ABI, weight.mT)
        found.append(ACTIVATIONS[activation](z))
    return found


def slopes(activation: str, h: Tensor) -> Tensor:
    """The activation's derivative, from its value."""
    if activation == "tanh":
        return 1 - h.square()
    return (h > 0).to(h.dtype) if activation == "relu" else torch.ones_like(h)


def jacobian_norm(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    x_ABI: Tensor,
    *,
    layer: int = 0,
    directions_ABVK: Tensor | None = None,
) -> Tensor:
    """|J|^2 (A, B), J by the input of the outputs (layer 0) or of hidden layer 1, 2, ... (Rifai et al.).

    directions: unit vectors v of the outputs' space; then it is estimated without bias as K times the mean of |v^T J|^2 (Hoffman
    et al. 2019, 'Robust learning with Jacobian regularization', Eq. 10).
    """
    D = [slopes(activation, h) for h in hidden_layers(weights, biases, activation, x_ABI)]
    last = layer or len(weights)  # the chain's last layer; a hidden one ends in its slopes
    chain, top = list(weights[:last]), D[last - 1] if layer else None
    if directions_ABVK is not None:
        ends = directions_ABVK if top is None else directions_ABVK * top[:, :, None]
        found = chain_norm(flat_product(ends, chain[-1]), chain[:-1], D)
        return found * (chain[-1].shape[1] / directions_ABVK.shape[2])
    gram = chain[0] @ chain[0].mT if len(chain) > 1 else None
    if gram is None:  # D_1 W_1, or W_1
        squares_AH = chain[0].square().sum(2)
        if top is None:
            return squares_AH.sum(1)[:, None].expand(x_ABI.shape[:2])
        return (top.square() * squares_AH[:, None]).sum(2)
    if len(chain) == 2 and top is None:  # a quadratic form of the slopes: as dear as one more layer, whatever K
        form = (chain[1].mT @ chain[1]) * gram
        return ((D[0] @ form) * D[0]).sum(2)
    rows = chain[-1][:, None] if top is None else chain[-1][:, None] * top[..., None]
    return chain_norm(rows.expand(-1, x_ABI.shape[1], -1, -1), chain[:-1], D)


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
        return (flat_product(rows_ABVH, weights[0] @ weights[0].mT) * rows_ABVH).sum((2, 3))
    return flat_product(rows_ABVH, weights[0]).square().sum((2, 3))


def flat_product(rows_ABVH: Tensor, weight_AHI: Tensor) -> Tensor:
    return (rows_ABVH.flatten(1, 2) @ weight_AHI).unflatten(1, rows_ABVH.shape[1:3])


def weight_gradient_norm(weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str, x_ABI: Tensor) -> Tensor:
    """The sum over k of |grad_W y_k|^2 (A, B), W all weights and biases (Deep Learning, section 7.5)."""
    h = [x_ABI, *hidden_layers(weights, biases, activation, x_ABI)]
    D = [slopes(activation, one) for one in h[1:]]
    enters = [one.square().sum(2) + 1 for one in h]  # |h|^2, and 1 for the bias
    total = weights[-1].shape[1] * enters[-1]
    if len(weights) == 1:
        return total
    total = total + (D[-1].square() * weights[-1].square().sum(1)[:, None]).sum(2) * enters[-2]
    if len(weights) > 2:
        rows = weights[-1][:, None] * D[-1][:, :, None]
        for n in range(len(weights) - 2, 0, -1):
            rows = flat_product(rows, weights[n]) * D[n - 1][:, :, None]
            total = total + rows.square().sum((2, 3)) * enters[n - 1]
    return total
