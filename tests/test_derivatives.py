"""Penalties on derivatives against autograd's own: |J|^2 against jacrev, its estimator's mean and variance, |grad_W y|^2 against
a loop over samples and outputs; and what noise in the Jacobian's input alone may touch.

Axes: A replicas, B samples, I inputs, K outputs, V directions.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from noise_reg.nn import ACTIVATIONS
from noise_reg.regularizers.derivatives import (
    hutchinson_norm,
    jacobian_norm,
    mean_jacobian_norm,
    projected_norm,
    representations,
    weight_gradient_norm,
)
from noise_reg.spec import SpecError
from noise_reg.train import new_stack, run_epoch
from tests.plain import made_data, made_spec

A, B, I, K = 2, 5, 9, 4
PLACES = list(itertools.product(range(A), range(B)))
DEPTHS = {"none": [], "one": [7], "two": [7, 6], "three": [7, 6, 8], "wide": [40, 30]}


def network(widths: list[int], seed: int = 0) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Weights (A, O, I), biases (A, O) and inputs (A, B, I), float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = [I, *widths, K]
    weights = [draw(A, o, i) * i**-0.5 for i, o in itertools.pairwise(sizes)]
    return weights, [0.3 * draw(A, o) for o in sizes[1:]], draw(A, B, I)


def output(weights: list[Tensor], biases: list[Tensor], activation: str, x: Tensor, layer: int = 0) -> Tensor:
    """Of one replica and one sample: the outputs, or hidden layer 1, 2, ..."""
    last = layer or len(weights)
    for n, (weight, bias) in enumerate(zip(weights[:last], biases[:last], strict=True), start=1):
        x = weight @ x + bias
        x = ACTIVATIONS[activation](x) if n < len(weights) else x
    return x


def of(tensors: list[Tensor], replica: int) -> list[Tensor]:
    return [tensor[replica] for tensor in tensors]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_jacobians_norm_is_jacrevs_and_so_is_its_gradient(depth: str, activation: str) -> None:
    weights, biases, x = network(DEPTHS[depth])
    for layer in range(len(weights)):
        leaves, twins = ([w.clone().requires_grad_() for w in weights] for _ in range(2))
        found = jacobian_norm(leaves, representations(leaves, biases, activation, x), activation, layer)
        expected = torch.stack([true_norm(twins, biases, activation, x, layer, a, b) for a, b in PLACES]).view(A, B)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        mean = mean_jacobian_norm(leaves, representations(leaves, biases, activation, x), activation, layer)
        torch.testing.assert_close(mean, expected.mean(1), rtol=1e-10, atol=1e-10)
        (found[:, 0] + mean).sum().backward()
        (expected[:, 0] + expected.mean(1)).sum().backward()
        for leaf, twin in zip(leaves, twins, strict=True):
            if twin.grad is not None:
                torch.testing.assert_close(leaf.grad, twin.grad, rtol=1e-10, atol=1e-10)


def true_norm(
    weights: list[Tensor], biases: list[Tensor], activation: str, x: Tensor, layer: int, a: int, b: int
) -> Tensor:
    jacobian = torch.func.jacrev(lambda z: output(of(weights, a), of(biases, a), activation, z, layer))(x[a, b])
    return jacobian.square().sum()


@pytest.mark.parametrize("estimator", ["projection", "hutchinson"])
@pytest.mark.parametrize("layer", [0, 1])
def test_an_estimator_has_no_bias_and_its_variance_falls_as_one_over_n(layer: int, estimator: str) -> None:
    weights, biases, x = network([7, 6], seed=1)
    h = representations(weights, biases, "tanh", x)
    exact = jacobian_norm(weights, h, "tanh", layer)
    generator, draws, variance = torch.Generator().manual_seed(2), 4000, {}
    for n in (1, 4, 16):
        shape = (A, B, n, 7 if layer else K) if estimator == "projection" else (A, n, I)
        v = torch.randn(draws, *shape, generator=generator, dtype=torch.float64)
        if estimator == "projection":
            found = torch.stack([projected_norm(weights, h, "tanh", w / w.norm(dim=3, keepdim=True), layer) for w in v])
        else:
            found = torch.stack([hutchinson_norm(weights, h, "tanh", w.sign(), layer) for w in v])
        error = found.std(0) / math.sqrt(draws)
        assert ((found.mean(0) - exact).abs() < 5 * error).all()
        variance[n] = (found.var(0) / exact.square()).mean().item()
    assert variance[1] / variance[4] == pytest.approx(4, rel=0.1)
    assert variance[1] / variance[16] == pytest.approx(16, rel=0.1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_weight_gradients_norm_is_that_of_a_loop(depth: str, activation: str) -> None:
    weights, biases, x = network(DEPTHS[depth])
    found = weight_gradient_norm(weights, representations(weights, biases, activation, x), activation)
    for a, b in PLACES:
        leaves = [t.clone().requires_grad_() for t in (*of(weights, a), *of(biases, a))]
        out = output(leaves[: len(weights)], leaves[len(weights) :], activation, x[a, b])
        total = sum(
            gradient.square().sum().item()
            for k in range(K)
            for gradient in torch.autograd.grad(out[k], leaves, retain_graph=True)
        )
        assert found[a, b].item() == pytest.approx(total, rel=1e-10)


def test_noise_in_the_jacobians_input_touches_nothing_but_the_penalty() -> None:
    """The first step's data loss, and with it the samples that it is of, is bitwise that of J; the penalty is another."""
    strengths: list[dict[str, float]] = [{"jacobian": 0.1}, {"jacobian": 0.1, "jacobian_noise": 0.5}]
    first = []
    for one in strengths:
        spec = made_spec("tanh_mlp", strengths=one)
        data = made_data(spec)
        stack = new_stack([spec], data)
        run_epoch(stack, data)
        first.append((stack.first_loss.item(), stack.penalty.item(), stack.weights(0)["layers.0.weight"]))
    assert first[0][0] == first[1][0]
    assert first[0][1] != first[1][1] and not np.array_equal(first[0][2], first[1][2])


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        (
            "cnn",
            {"strengths": {"jacobian": 0.1}},
            "must be 0 for arch.name = cnn, whose batch norm .* fc, tanh_mlp, linear",
        ),
        ("vgg", {"strengths": {"weight_penalty": 0.1}}, "weight_penalty = 0.1: must be 0 for arch.name = vgg"),
        ("fc", {"strengths": {"jacobian": -1.0}}, r"jacobian = -1.0: must be a finite number of at least 0"),
        (
            "fc",
            {"strengths": {"jacobian_noise": 0.1}},
            "jacobian_noise = 0.1: must be 0 where regularizer.jacobian = 0",
        ),
        (
            "fc",
            {"reading": {"jacobian_directions": 0}},
            "jacobian_directions = 0: must be a whole number of at least 1",
        ),
        (
            "tanh_mlp",
            {"strengths": {"jacobian": 0.1}, "reading": {"jacobian_layer": 3}},
            r"jacobian_layer = 3: must be 0 \(the outputs\) or a hidden layer from 1 to 2",
        ),
        (
            "cnn",
            {"strengths": {"weight_noise": 0.1}, "reading": {"weight_noise_draw": "sample"}},
            "weight_noise_draw = sample: must be batch for arch.name = cnn",
        ),
        ("fc", {"strengths": {"label_smoothing": 1.0}}, r"label_smoothing = 1.0: must be a number in \[0, 1\)"),
        ("fc", {"strengths": {"label_smoothing": 0.95}}, r"label_smoothing = 0.95: must be a number in \[0, 0.9\)"),
    ],
)
def test_impossible_penalties_are_named_with_what_is_allowed(arch: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        made_spec(arch, **changes)
