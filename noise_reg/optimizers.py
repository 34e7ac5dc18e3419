"""Optimisers of a stack. Plain SGD is folded into the products of dense layers and passes over the other parameters; RMSprop
and Adam are torch's own: they work element by element, so every replica of a stacked parameter has a state of its own.

Axes: R replicas.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noise_reg.nn import FoldedSGD, StackedLinear, StackedModel
from noise_reg.regularizers import Penalties, gradient_factor, is_decayed
from noise_reg.spec import OptimizerSpec, ReadingSpec

CACHE_LINE = 64  # bytes
State = dict[str, Tensor]  # of an optimiser, by '<parameter>:<quantity>'; what has a replica axis leads with it


def optimizer_of(
    model: StackedModel,
    spec: OptimizerSpec,
    weight_decay_R: Tensor,
    reading: ReadingSpec,
    *,
    folded: bool,
    state: State | None = None,
) -> SGD | Adaptive:
    """The optimiser that `spec` names, `state` taken up where an earlier one left it."""
    if spec.name == "sgd":
        return SGD(model, spec, weight_decay_R, reading, folded=folded)
    return Adaptive(model, spec, weight_decay_R, reading, state or {})


def kept(state: State, index: Tensor) -> State:
    """The state of the replicas at `index` alone."""
    return {name: value[index].clone() if value.dim() else value for name, value in state.items()}


def is_convolution(name: str) -> bool:
    """Whether a parameter is one that an architecture's own L2 acts on."""
    return name.startswith("convolutions.") and name.endswith("weight")


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
        own_R = gradient_factor(torch.full_like(factor_R, model.arch.conv_decay), reading)
        self.may_rest = not bool((factor_R + own_R > 0).any())  # a step without any gradient changes nothing
        self.updates: list[tuple[nn.Parameter, Tensor | None]] = []
        for owner, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                full_name = f"{owner}.{name}"
                decayed_R = factor_R if is_decayed(full_name, reading) else no_decay_R
                decayed_R = decayed_R + own_R if is_convolution(full_name) else decayed_R
                keep_R = (1 - self.rate * decayed_R).to(
                    parameter.dtype
                )  # a wider type would widen the weights each step
                if isinstance(module, StackedLinear) and name == "weight":
                    module.fold = FoldedSGD(self.rate, keep_R) if folded else None
                    if folded:
                        continue
                self.updates.append((parameter, keep_R if bool((decayed_R > 0).any()) else None))

    @torch.no_grad()
    def step(self, penalties: Penalties | None = None) -> None:
        """Updates every parameter that is not folded, from its gradient; a parameter without one stays as it is. Gradients of
        penalties come on top for all."""
        for parameter, keep_R in self.updates:
            if keep_R is not None:
                parameter.mul_(keep_R.view(-1, *[1] * (parameter.dim() - 1)))
        moved = [parameter for parameter, _ in self.updates if parameter.grad is not None]
        if moved:
            gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
            torch._foreach_add_(list[Tensor](moved), gradients, alpha=-self.rate)
        for parameter in moved:
            parameter.grad = None
        if penalties:
            penalties.descend(self.rate)

    def state(self) -> State:
        return {}


class Adaptive:
    """RMSprop or Adam (NINR paper, App. C.3) as torch has them; L2 adds lambda theta to the gradient, as a penalty does."""

    may_rest = False  # they move on what they remember

    def __init__(
        self, model: StackedModel, spec: OptimizerSpec, weight_decay_R: Tensor, reading: ReadingSpec, state: State
    ) -> None:
        factor_R = gradient_factor(weight_decay_R, reading)
        own_R = gradient_factor(torch.full_like(factor_R, model.arch.conv_decay), reading)
        self.parameters = dict(model.named_parameters())
        self.decayed = {}
        for name, parameter in self.parameters.items():
            decayed_R = factor_R * is_decayed(name, reading) + own_R * is_convolution(name)
            if bool((decayed_R > 0).any()):
                self.decayed[name] = decayed_R.to(parameter.dtype).view(-1, *[1] * (parameter.dim() - 1))
        self.inner = inner_optimizers(spec, list(self.parameters.values()))
        for name, value in state.items():
            owner, _, quantity = name.rpartition(":")
            parameter = self.parameters[owner]
            self.inner[parameter].state[parameter][quantity] = value.to(parameter.device)

    @torch.no_grad()
    def step(self, penalties: Penalties | None = None) -> None:
        if penalties:
            penalties.join()
        for name, factor in self.decayed.items():
            parameter = self.parameters[name]
            if parameter.grad is not None:
                parameter.grad.addcmul_(parameter, factor)
        for inner in dict.fromkeys(self.inner.values()):
            inner.step()
            inner.zero_grad()

    def state(self) -> State:
        return {
            f"{name}:{quantity}": value
            for name, parameter in self.parameters.items()
            for quantity, value in self.inner[parameter].state.get(parameter, {}).items()
        }


def inner_optimizers(spec: OptimizerSpec, parameters: list[nn.Parameter]) -> dict[nn.Parameter, torch.optim.Optimizer]:
    """torch's optimiser of each parameter (R, ...).

    Its fused Adam rounds the numbers that do not fill a cache line at a tensor's end otherwise than all others. A replica keeps
    its bits in any company only if its own numbers fill whole lines; parameters that do not go through the plain Adam.
    """
    rate, capturable = spec.learning_rate, parameters[0].is_cuda  # a CUDA graph wants the number of steps on the device
    if spec.name == "rmsprop":
        rmsprop = torch.optim.RMSprop(parameters, lr=rate, alpha=spec.rho, eps=spec.epsilon, capturable=capturable)
        return dict.fromkeys(parameters, rmsprop)
    found: dict[nn.Parameter, torch.optim.Optimizer] = {}
    for fused in (True, False):
        group = [p for p in parameters if (p.is_cuda or p[0].numel() % (CACHE_LINE // p.element_size()) == 0) == fused]
        if group:
            betas = (spec.beta_1, spec.beta_2)
            adam = torch.optim.Adam(
                group, lr=rate, betas=betas, eps=spec.epsilon, fused=fused, foreach=not fused, capturable=capturable
            )
            found |= dict.fromkeys(group, adam)
    return found
