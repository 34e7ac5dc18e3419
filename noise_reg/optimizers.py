"""Optimisers of a stack. Plain SGD is folded into the products of dense layers and passes over the other parameters.

Axes: R replicas.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noise_reg.nn import FoldedSGD, StackedLinear, StackedModel
from noise_reg.regularizers import gradient_factor, is_decayed
from noise_reg.spec import OptimizerSpec, ReadingSpec


class SGD:
    """theta <- (1 - rate lambda) theta - rate dL/dtheta, no momentum (NINR paper, App. A); lambda (R,) is L2's strength.

    `folded` puts the dense layers' updates into their backward products; without it the same numbers come from stored
    gradients (the slow path that proves the fast one).
    """

    def __init__(
        self, model: StackedModel, spec: OptimizerSpec, weight_decay_R: Tensor, reading: ReadingSpec, *, folded: bool
    ) -> None:
        self.rate = spec.learning_rate
        factor_R = gradient_factor(weight_decay_R, reading)
        no_decay_R = torch.zeros_like(factor_R)
        self.decays = bool((factor_R > 0).any())
        self.updates: list[tuple[nn.Parameter, Tensor | None]] = []
        for owner, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                decayed_R = factor_R if is_decayed(f"{owner}.{name}", reading) else no_decay_R
                keep_R = (1 - self.rate * decayed_R).to(
                    parameter.dtype
                )  # a wider type would widen the weights each step
                if isinstance(module, StackedLinear) and name == "weight":
                    module.fold = FoldedSGD(self.rate, keep_R) if folded else None
                    if folded:
                        continue
                self.updates.append((parameter, keep_R if bool((decayed_R > 0).any()) else None))

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that is not folded, from its gradient; a parameter without one stays as it is."""
        for parameter, keep_R in self.updates:
            if keep_R is not None:
                parameter.mul_(keep_R.view(-1, *[1] * (parameter.dim() - 1)))
        moved = [parameter for parameter, _ in self.updates if parameter.grad is not None]
        if moved:
            gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
            torch._foreach_add_(list[Tensor](moved), gradients, alpha=-self.rate)
        for parameter in moved:
            parameter.grad = None
