"""Penalties whose gradients join those of the data loss: on the Jacobian by the inputs (J, and N+J with noise in its input
alone), and on the outputs' gradients by the weights. Their place is the penalty.

Axes: R replicas, A those with the penalty, B samples, D pixels, V directions, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from noise_reg.nn import StackedModel
from noise_reg.regularizers.active import Active
from noise_reg.regularizers.derivatives import jacobian_norm, weight_gradient_norm
from noise_reg.spec import DistributionSpec, ReadingSpec, Strengths
from noise_reg.streams import Purpose, drawn, normal

JACOBIAN_LANE = (
    1 << 16
)  # under which the noise in the Jacobian's input is drawn; nodes draw under their layers' numbers
Norm = Callable[[list[Tensor], list[Tensor]], Tensor]  # of weights and biases: (A, B)


class Penalties:
    """Of one stack; `gradients` are of the mean over the batch, times each replica's strength."""

    def __init__(
        self,
        model: StackedModel,
        strengths: Sequence[Strengths],
        seeds_R: Tensor,
        reading: ReadingSpec,
        distribution: DistributionSpec,
    ) -> None:
        def vector(name: str) -> Tensor:
            return torch.tensor([getattr(s, name) for s in strengths], dtype=torch.float64, device=seeds_R.device)

        self.model, self.reading, self.distribution = model, reading, distribution
        self.jacobian = Active(vector("jacobian"), seeds_R)
        self.sigma_A = vector("jacobian_noise")[self.jacobian.rows]
        self.weights = Active(vector("weight_penalty"), seeds_R)
        self.changes: list[tuple[Active, nn.Parameter, Tensor]] = []
        self.value_R = torch.zeros(len(strengths), dtype=torch.float64, device=seeds_R.device)

    def __bool__(self) -> bool:
        return bool(self.jacobian or self.weights)

    def measure(self, x_RBD: Tensor, step: int, epoch: int) -> None:
        """Finds the penalties and their gradients at these inputs, before noise of the training touches them."""
        self.changes, activation = [], self.model.arch.activation
        self.value_R.zero_()
        if self.jacobian:
            x_ABD = x_RBD[self.jacobian.rows]
            if bool((self.sigma_A > 0).any()):
                address = {"lane": JACOBIAN_LANE, "step": step, "epoch": epoch}
                delta = drawn(self.distribution, self.jacobian.seeds_A, x_ABD[0].numel(), **address).view(x_ABD.shape)
                x_ABD = x_ABD + (self.sigma_A[:, None, None] * delta).to(x_ABD.dtype)
            directions = self.directions(x_ABD, step, epoch)
            layer = self.reading.jacobian_layer

            def norm(weights: list[Tensor], biases: list[Tensor]) -> Tensor:
                return jacobian_norm(weights, biases, activation, x_ABD, layer=layer, directions_ABVK=directions)

            self.add(self.jacobian, norm)
        if self.weights:
            x = x_RBD[self.weights.rows]
            self.add(self.weights, lambda weights, biases: weight_gradient_norm(weights, biases, activation, x))

    def directions(self, x_ABD: Tensor, step: int, epoch: int) -> Tensor | None:
        if self.reading.jacobian_estimator == "exact":
            return None
        end = self.model.layers[self.reading.jacobian_layer - 1]  # 0: the last one
        shape = (x_ABD.shape[1], self.reading.jacobian_directions, end.get_parameter("weight").shape[1])
        count = torch.Size(shape).numel()
        found = normal(self.jacobian.seeds_A, Purpose.DIRECTION, count, lane=0, step=step, epoch=epoch)
        return nn.functional.normalize(found.view(-1, *shape).to(x_ABD.dtype), dim=3)

    @torch.enable_grad()
    def add(self, active: Active, norm: Norm) -> None:
        layers = self.model.layers
        parameters = [layer.get_parameter(part) for part in ("weight", "bias") for layer in layers]
        leaves = [parameter.detach()[active.rows].requires_grad_() for parameter in parameters]
        value_AB = norm(leaves[: len(layers)], leaves[len(layers) :])
        value_A = value_AB.mean(1) * active.strength_A.to(value_AB.dtype)
        found = torch.autograd.grad(value_A.sum(), leaves, allow_unused=True)
        active.add(self.value_R, value_A.detach().double())
        for parameter, change in zip(parameters, found, strict=True):
            if change is not None:
                self.changes.append((active, parameter, change))

    @torch.no_grad()
    def join(self) -> None:
        """Adds the gradients to those that wait for the optimiser."""
        for active, parameter, change in self.changes:
            assert parameter.grad is not None
            active.add(parameter.grad, change)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """What plain SGD does with the gradients, which simply add up: `rate` times them off the parameters."""
        for active, parameter, change in self.changes:
            active.add(parameter, change, alpha=-rate)
