"""Penalties whose gradients join those of the data loss: on the Jacobian by the inputs (J, and N+J with noise in its input
alone), and on the outputs' gradients by the weights. Their place is the penalty; noise of the training (dropout, nodes) takes no
part in them: what is penalised is the network as it is evaluated.

Axes: R replicas, A those with the penalty, B samples, D pixels, V directions, K outputs, H units of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noise_reg.nn import StackedModel
from noise_reg.regularizers.active import Active
from noise_reg.regularizers.ahead import Ahead, Number
from noise_reg.regularizers.derivatives import (
    hutchinson_norm,
    mean_jacobian_norm,
    projected_norm,
    representations,
    weight_gradient_norm,
)
from noise_reg.spec import DistributionSpec, ReadingSpec, Strengths
from noise_reg.streams import Purpose, drawn, normal
from noise_reg.sums import total

JACOBIAN_LANE = (
    1 << 16
)  # under which the noise in the Jacobian's input is drawn; nodes draw under their layers' numbers
NOISES = (
    "dropout",
    "cdt",
    "nin_input",
    "nin_hidden",
    "input_noise",
    "weight_noise",
)  # what changes a pass of the training
Norm = Callable[
    [list[Tensor], list[Tensor], Active, Number, Number], Tensor
]  # weights, h, which, step, epoch: the mean (A,)


@dataclass(frozen=True)
class Term:
    """A penalty of some replicas; `sigma_A` is the noise of its input. One that `shares` takes the representations that the data
    pass makes anyway, and its gradients by them go back with the data's."""

    active: Active
    norm: Norm
    sigma_A: Tensor
    noisy: bool
    shares: bool


class Penalties:
    """Of one stack: the gradients of each penalty's mean over the batch, times each replica's strength."""

    def __init__(
        self,
        model: StackedModel,
        strengths: Sequence[Strengths],
        seeds_R: Tensor,
        reading: ReadingSpec,
        distribution: DistributionSpec,
    ) -> None:
        def vector(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=seeds_R.device)

        self.model, self.reading, self.distribution, self.ahead = model, reading, distribution, Ahead()
        self.changes: list[tuple[Active, nn.Parameter, Tensor]] = []
        self.value_R = torch.zeros(len(strengths), dtype=torch.float64, device=seeds_R.device)
        quiet = [not any(getattr(s, name) > 0 for name in NOISES) for s in strengths]
        self.terms = []
        for name, norm, noise in (("jacobian", self.jacobian, "jacobian_noise"), ("weight_penalty", self.weights, "")):
            sigma = [getattr(s, noise) if noise else 0.0 for s in strengths]
            for shares in (True, False):
                alike = [(q and not s) == shares for q, s in zip(quiet, sigma, strict=True)]
                active = Active(
                    vector([getattr(s, name) * own for s, own in zip(strengths, alike, strict=True)]), seeds_R
                )
                if active:
                    sigma_A = vector(sigma)[active.rows]
                    self.terms.append(Term(active, norm, sigma_A, bool((sigma_A > 0).any()), shares))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def jacobian(self, weights: list[Tensor], h: list[Tensor], active: Active, step: Number, epoch: Number) -> Tensor:
        activation, layer, kind = (
            self.model.arch.activation,
            self.reading.jacobian_layer,
            self.reading.jacobian_estimator,
        )
        if kind == "exact":
            return mean_jacobian_norm(weights, h, activation, layer)
        count = self.reading.jacobian_directions
        ends = weights[layer - 1].shape[1] if kind == "projection" else h[0].shape[2]
        shape = (h[0].shape[1], count, ends) if kind == "projection" else (count, ends)

        def directions(seeds: Tensor, steps: Tensor, count: int) -> Tensor:
            return normal(seeds, Purpose.DIRECTION, count, lane=0, step=steps, epoch=epoch)

        draw = self.ahead.numbers(active, active, torch.Size(shape).numel(), directions, step)
        draw = draw.view(-1, *shape).to(h[0].dtype)
        if kind == "projection":
            found = projected_norm(weights, h, activation, nn.functional.normalize(draw, dim=3), layer)
        else:
            found = hutchinson_norm(weights, h, activation, draw.sign(), layer)
        return total(found) / found.shape[1]

    def weights(self, weights: list[Tensor], h: list[Tensor], active: Active, step: Number, epoch: Number) -> Tensor:
        return total(weight_gradient_norm(weights, h, self.model.arch.activation)) / h[0].shape[1]

    def start_epoch(self, steps: int) -> None:
        self.ahead.start_epoch(steps)

    def start_step(self, x_RBD: Tensor, step: Number, epoch: Number) -> None:
        """Takes the penalties that need a pass of their own, at these inputs, before noise of the training touches them."""
        self.changes, self.step, self.epoch = [], step, epoch
        self.value_R.zero_()
        for term in self.terms:
            if not term.shares:
                x_ABD = x_RBD[term.active.rows]
                if term.noisy:
                    address: dict[str, Any] = {"lane": JACOBIAN_LANE, "step": step, "epoch": epoch}
                    delta = drawn(self.distribution, term.active.seeds_A, x_ABD[0].numel(), **address)
                    x_ABD = x_ABD + (term.sigma_A[:, None] * delta).to(x_ABD.dtype).view(x_ABD.shape)
                self.take(term, x_ABD, {})

    def share(self, x_RBD: Tensor, hidden: Mapping[int, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Takes the others: hidden representations (R, B, H) of the data pass, and the penalties' gradients by them."""
        found: dict[int, Tensor] = {}
        for term in self.terms:
            if term.shares:
                own = {layer: h.detach()[term.active.rows] for layer, h in hidden.items()}
                for layer, gradient in self.take(term, x_RBD[term.active.rows], own).items():
                    whole = found.setdefault(layer, torch.zeros_like(hidden[layer]))
                    term.active.add(whole, gradient)
        return [hidden[layer] for layer in found], list(found.values())

    @torch.enable_grad()
    def take(self, term: Term, x_ABD: Tensor, hidden: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Keeps value and gradients of one penalty, those by given hidden representations returned."""
        active, layers = term.active, self.model.layers
        parameters = [layer.get_parameter(part) for part in ("weight", "bias") for layer in layers]
        leaves = [parameter.detach()[active.rows].requires_grad_() for parameter in parameters]
        weights, biases, given = leaves[: len(layers)], leaves[len(layers) :], list(hidden.values())
        if term.shares:
            h = [x_ABD, *(one.requires_grad_() for one in given)]
        else:
            h = representations(weights, biases, self.model.arch.activation, x_ABD)
        norm_A = term.norm(weights, h, active, self.step, self.epoch)
        value_A = norm_A * active.strength_A.to(norm_A.dtype)
        found = torch.autograd.grad(value_A.sum(), [*leaves, *given], allow_unused=True)
        active.add(self.value_R, value_A.detach().double())
        for parameter, change in zip(parameters, found, strict=False):
            if change is not None:
                self.changes.append((active, parameter, change))
        return {n: g for n, g in zip(hidden, found[len(leaves) :], strict=True) if g is not None}

    @torch.no_grad()
    def join(self) -> None:
        """Adds the gradients to those that wait for the optimiser."""
        for active, parameter, change in self.changes:
            assert parameter.grad is not None
            active.add(parameter.grad, change)

    @torch.no_grad()
    def descend(self, rate: float) -> None:
        """What plain SGD does with the gradients, which simply add up: `rate` times them off the parameters."""
        for active, parameter, change in self.changes:
            active.add(parameter, change, alpha=-rate)
