"""What Gaussian noise N(0, eta I) on all weights and biases adds to the squared error of a dense network (Deep Learning, section
7.5, Eqs 7.31 and 7.32): along random directions xi of weight space, and in closed form.

With W + t xi, t = sqrt(eta), and the error a = y - target, a direction's even part in t is
    |a + y(W + t xi) - y|^2 - |a|^2 = t^2 (|xi grad y|^2 + a xi^T H xi) + O(t^4),
whose mean over xi is eta (P + L): P = sum_k |grad_W y_k|^2, the penalty, and L = sum_k a_k Laplacian_W y_k, which the expansion
to first order drops. The two in the brackets are the direction's own `spread` and `shift`; subtracting them, whose means are known,
leaves the rest without the noise of the draw.

Axes: V directions, B samples, I inputs, O outputs, H units of a layer, K outputs of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Curve = Callable[[Tensor], Tensor]

CURVES: dict[str, tuple[Curve, Curve, Curve]] = {  # an activation a(z) and its first two derivatives
    "identity": (lambda z: z, torch.ones_like, torch.zeros_like),
    "relu": (torch.relu, lambda z: (z > 0).to(z.dtype), torch.zeros_like),  # almost everywhere
    "tanh": (torch.tanh, lambda z: 1 - z.tanh().square(), lambda z: -2 * z.tanh() * (1 - z.tanh().square())),
}


@dataclass(frozen=True)
class Network:
    """A dense network and a batch: weights (O, I) and biases (O,) of each layer, x (B, I), targets (B, K)."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activation: str
    x_BI: Tensor
    targets_BK: Tensor

    def pre_activations(self) -> list[Tensor]:
        """z_1, ..., z_m (B, O); the last are the outputs y."""
        act, h, found = CURVES[self.activation][0], self.x_BI, []
        for n, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            found.append((act(h) if n else h) @ weight.mT + bias)
            h = found[-1]
        return found

    def errors(self) -> Tensor:
        """a (B, K)."""
        return self.pre_activations()[-1] - self.targets_BK

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in (*self.weights, *self.biases))

    def gradient_norm(self) -> float:
        """|grad_W J|, J the batch's mean squared error."""
        leaves = [one.clone().requires_grad_() for one in (*self.weights, *self.biases)]
        count = len(self.weights)
        moved = replace(self, weights=tuple(leaves[:count]), biases=tuple(leaves[count:]))
        found = torch.autograd.grad(moved.errors().square().sum(1).mean(), leaves)
        return math.sqrt(sum(float(one.square().sum()) for one in found))

    def directions(self, count: int, generator: torch.Generator) -> Directions:
        """Of independent N(0, 1) entries."""

        def draw(like: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return tuple(torch.randn(count, *one.shape, generator=generator, dtype=torch.float64) for one in like)

        return Directions(self, draw(self.weights), draw(self.biases))

    def laplacian(self) -> Tensor:
        """Laplacian_W y_k (B, K), exactly: with G_l (B, H, H) the products of the gradients by W of a layer's z, layer by layer
        G_l = (|h|^2 + 1) I + W D G_{l-1} D W^T, and Laplacian z_l = W (a'' diag G_{l-1} + a' Laplacian z_{l-1}); W enters z_l
        linearly itself. For a ReLU this is the almost-everywhere value 0, without what sits at its kinks."""
        act, slope, bend = CURVES[self.activation]
        z = self.pre_activations()
        gram = (self.x_BI.square().sum(1) + 1)[:, None, None] * torch.eye(z[0].shape[1], dtype=z[0].dtype)
        found = torch.zeros_like(z[0])
        for n, weight in enumerate(self.weights[1:]):
            D_BH = slope(z[n])
            found = (bend(z[n]) * gram.diagonal(dim1=1, dim2=2) + D_BH * found) @ weight.mT
            own = (act(z[n]).square().sum(1) + 1)[:, None, None] * torch.eye(len(weight), dtype=weight.dtype)
            gram = own + weight @ (D_BH[:, :, None] * gram * D_BH[:, None]) @ weight.mT
        return found

    def kinks(self, eta: float) -> Tensor:
        """Of a network with one hidden ReLU layer, the mean (B,) of 2 a (y(W + t xi) - y): z_1 has noise of variance
        s^2 = eta (|x|^2 + 1), under which a unit's mean moves by s phi(z/s) - |z| Phi(-|z|/s); the noise of the output's weights is
        independent of it. Where s is small beside a density of z over the batch, this goes with s^2, not faster."""
        z_BH = self.pre_activations()[0]
        s_B1 = (eta * (self.x_BI.square().sum(1, keepdim=True) + 1)).sqrt()
        u = z_BH.abs() / s_B1
        moved = s_B1 * torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi) - z_BH.abs() * torch.special.ndtr(-u)
        return 2 * (self.errors() * (moved @ self.weights[1].mT)).sum(1)


@dataclass(frozen=True)
class Directions:
    """V directions xi of a network's weight space: weights (V, O, I) and biases (V, O)."""

    network: Network
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def jet(self) -> tuple[Tensor, Tensor]:
        """xi grad y and xi^T H xi, (V, B, K) both: the first two derivatives of y(W + t xi) by t."""
        of, (act, slope, bend) = self.network, CURVES[self.network.activation]
        z, z1 = of.pre_activations(), self.first()
        z2 = torch.zeros_like(z1)
        for n, weight in enumerate(of.weights[1:]):
            D, moved = slope(z[n]), self.weights[n + 1].mT
            h1, h2 = D * z1, bend(z[n]) * z1.square() + D * z2
            z1, z2 = (
                h1 @ weight.mT + act(z[n]) @ moved + self.biases[n + 1][:, None],
                h2 @ weight.mT + 2 * h1 @ moved,
            )
        return z1, z2

    def first(self) -> Tensor:
        """By how much t moves z_1 (V, B, H); the rest of a pass is cheap beside it, so it is taken once for all t."""
        return self.network.x_BI @ self.weights[0].mT + self.biases[0][:, None]

    def moved(self, first_VBH: Tensor, t: float) -> Tensor:
        """y(W + t xi) - y (V, B, K)."""
        of, act = self.network, CURVES[self.network.activation][0]
        clean = of.pre_activations()
        z = clean[0] + t * first_VBH
        for n, (weight, bias) in enumerate(zip(of.weights[1:], of.biases[1:], strict=True), start=1):
            z = act(z) @ (weight + t * self.weights[n]).mT + (bias + t * self.biases[n])[:, None]
        return z - clean[-1]

    def added(self, t_N: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Of the pair W + t xi, W - t xi the mean of 2 a (y(W +- t xi) - y), the shift, and of |y(W +- t xi) - y|^2, the spread: both
        (N, V), means over the batch; their sum is what the pair adds to the squared error."""
        first, a_BK = self.first(), self.network.errors()
        shift, spread = [], []
        for t in t_N:
            up, down = self.moved(first, t), self.moved(first, -t)
            shift.append((a_BK * (up + down)).sum(2).mean(1))
            spread.append((up.square() + down.square()).sum(2).mean(1) / 2)
        return torch.stack(shift), torch.stack(spread)

    def losses(self, t_N: Sequence[float]) -> Tensor:
        """The mean squared error at W + t xi, (N, V)."""
        first, a_BK = self.first(), self.network.errors()
        return torch.stack([(a_BK + self.moved(first, t)).square().sum(2).mean(1) for t in t_N])
