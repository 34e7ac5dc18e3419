"""The univariate linear network of the NINR paper's appendix B: y = M x is fitted by w1 (w0 x + w_NI epsilon).

Weights are arrays of any one shape, so that a whole phase diagram is one call; every symbol is the paper's. `eta` is the
learning rate, `sigma_x` and `sigma_epsilon` are standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PHASES = ("decoupled", "decay", "catapult", "divergent")
DECOUPLED_SHARE = 0.05  # w_NI that loses less than this share of itself is not pulled by the noise
GROWTH = 1e-9  # relative: what counts as growing, beyond rounding
OVERFLOW = 1e8  # a weight beyond this does not come back: each step multiplies it by about its square


@dataclass(frozen=True)
class Toy:
    """The task, the noise and the step; each an array or a number, broadcast against the weights."""

    eta: Array | float
    sigma_epsilon: Array | float
    sigma_x: Array | float = 1.0
    m: Array | float = 1.0  # the paper's M


@dataclass(frozen=True)
class Weights:
    w0: Array
    w1: Array
    w_ni: Array

    def __iter__(self) -> Iterator[Array]:
        return iter((self.w0, self.w1, self.w_ni))


def weights(w0: Array | float, w1: Array | float, w_ni: Array | float) -> Weights:
    return Weights(*(np.asarray(w, dtype=np.float64) for w in (w0, w1, w_ni)))


def sample_loss(w: Weights, x: Array, epsilon: Array, m: float) -> Array:
    """Eq. 9 on samples x, epsilon (..., |B|), with y = M x."""
    residual = w.w1[..., None] * (w.w0[..., None] * x + w.w_ni[..., None] * epsilon) - m * x
    return np.mean(residual**2, axis=-1) / 2


def terms(w: Weights, toy: Toy) -> tuple[Array, Array, Array]:
    """Eq. 12: the loss without noise; R_1's factor before Phi / sqrt(|B|); R_2. Their sum is Eq. 10."""
    error = w.w1 * w.w0 - toy.m
    clean = error**2 * np.square(toy.sigma_x) / 2
    first = w.w_ni * w.w1 * error * toy.sigma_x * toy.sigma_epsilon
    second = np.square(w.w1 * w.w_ni * toy.sigma_epsilon) / 2
    return clean, np.asarray(first), second


def sample_step(w: Weights, x: Array, epsilon: Array, toy: Toy) -> Weights:
    """One step of full-batch gradient descent on Eq. 9, all three weights."""
    hidden = w.w0[..., None] * x + w.w_ni[..., None] * epsilon
    residual = w.w1[..., None] * hidden - np.asarray(toy.m)[..., None] * x
    grad_1 = np.mean(residual * hidden, axis=-1)
    grad_0, grad_ni = (w.w1 * np.mean(residual * inputs, axis=-1) for inputs in (x, epsilon))
    return Weights(w.w0 - toy.eta * grad_0, w.w1 - toy.eta * grad_1, w.w_ni - toy.eta * grad_ni)


def mean_step(w: Weights, toy: Toy) -> Weights:
    """Eq. 13, the limit of infinitely many samples, with the step of w0 that the paper leaves out."""
    error = (w.w1 * w.w0 - toy.m) * np.square(toy.sigma_x)
    bare = noise_step(w, toy)
    return Weights(w.w0 - toy.eta * error * w.w1, bare.w1 - toy.eta * error * w.w0, bare.w_ni)


def noise_step(w: Weights, toy: Toy) -> Weights:
    """Eq. 15: only the noise acts."""
    pull = toy.eta * np.square(toy.sigma_epsilon)
    return Weights(w.w0, w.w1 * (1 - pull * w.w_ni**2), w.w_ni * (1 - pull * w.w1**2))


def continuous_noise(w: Weights, toy: Toy, steps: Array | float) -> Weights:
    """Eq. 16 solved: the weights after the continuous time `steps` x eta. w1^2 - w_NI^2 =: c stays as it is, so that
    u = w_NI^2 follows u' = -2 sigma^2 u (u + c), a logistic equation. Both weights shrink, whatever sigma_epsilon is."""
    c, u = w.w1**2 - w.w_ni**2, w.w_ni**2
    tau = 2 * np.square(toy.sigma_epsilon) * toy.eta * steps
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # expm1 keeps the limit c -> 0, which is u / (1 + tau u)
        stretch = np.where(c == 0, tau, np.expm1(c * tau) / np.where(c == 0, 1, c))
        later = np.where(np.isfinite(stretch), u / (np.exp(c * tau) + u * stretch), 0.0)
    w1_squared = np.maximum(later + c, 0)
    return Weights(w.w0, np.sign(w.w1) * np.sqrt(w1_squared), np.sign(w.w_ni) * np.sqrt(np.maximum(later, 0)))


def decays(w1: Array | float, toy: Toy) -> Array:
    """Whether one step of Eq. 13 shrinks |w_NI|: 0 < w1^2 < 2 / (eta sigma_epsilon^2). The paper prints
    w1^2 > eta sigma_epsilon^2 / 2 instead, which Eq. 13 does not give."""
    square = np.square(w1)
    return np.asarray((square > 0) & (square * toy.eta * np.square(toy.sigma_epsilon) < 2))


def decays_as_printed(w1: Array | float, toy: Toy) -> Array:
    """The paper's condition below Eq. 13, taken as it stands."""
    return np.asarray(np.square(w1) > toy.eta * np.square(toy.sigma_epsilon) / 2)


def trajectory(w: Weights, toy: Toy, steps: int, step: Callable[[Weights, Toy], Weights] = mean_step) -> Weights:
    """The weights at 0 to `steps`, (steps + 1, ...). A weight beyond `OVERFLOW` stays infinite."""
    shape = np.broadcast_shapes(*(np.shape(part) for part in (*w, toy.eta, toy.sigma_epsilon, toy.sigma_x, toy.m)))
    now = Weights(*(np.broadcast_to(part, shape).astype(np.float64) for part in w))
    course = [now]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            then = step(now, toy)
            gone = ~np.all([np.abs(part) < OVERFLOW for part in then], axis=0)  # NaN and infinity too
            now = Weights(*(np.where(gone, np.inf, part) for part in then))
            course.append(now)
    return Weights(*(np.stack(parts) for parts in zip(*course, strict=True)))


def phase(course: Weights) -> NDArray[np.str_]:
    """The phase of each trajectory (steps + 1, ...), by what |w_NI| does: 'divergent' if a weight runs away; else
    'catapult' if |w_NI| ever grows and ends below its start; 'decoupled' if it keeps 95 % of itself; else 'decay'. One
    that grew and ends above its start has not finished its catapult and counts as one."""
    size = np.abs(course.w_ni)
    with np.errstate(invalid="ignore"):
        finite = np.all([np.isfinite(part[-1]) for part in course], axis=0)
        grew = np.any(size[1:] > size[:-1] * (1 + GROWTH), axis=0)
        kept = size[-1] >= (1 - DECOUPLED_SHARE) * size[0]
    return np.select([~finite, grew, kept], ["divergent", "catapult", "decoupled"], "decay")


def rescaled(w: Weights, toy: Toy) -> tuple[Weights, Toy]:
    """The paper's footnote 10 undone: the M = 1 problem that it says is this one. It is, as long as w0 stands still; the
    step of w0 is larger by M^2 here."""
    return Weights(w.w0, w.w1 / toy.m, w.w_ni / toy.m), replace(toy, m=1.0, sigma_epsilon=toy.sigma_epsilon * toy.m)
