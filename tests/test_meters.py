"""The meters of section 2.1 against explicit derivatives of plain networks, and the paper's statements about them.

Axes: R replicas, B samples, O numbers of the layer's pre-activation.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian as hessian_of
from torch.autograd.functional import jacobian

from noise_reg.nn import CLEAN, StackedModel
from noise_reg.theory.meters import Meter
from tests.plain import CLASSES, made_data, made_spec

SEEDS = (3, 4)


def meter(arch: str, layer: int, *, loss: str = "exact", batch: int = 12, **geometry: Any) -> Meter:
    spec = made_spec(arch, geometry=geometry)
    data = made_data(spec)
    model = StackedModel(spec.arch, spec.reading, data.image, CLASSES, torch.tensor(SEEDS), [layer], torch.float64)
    x_RBD = data.x[:batch].expand(len(SEEDS), -1, -1)
    return Meter(model, x_RBD, data.y[:batch].expand(len(SEEDS), -1), layer, loss)


def by_hand(of: Meter, replica: int, shift_O: Tensor, epsilon_B: Tensor) -> Tensor:
    """Mean loss of one replica of a fully connected network, in plain products, z of its layer moved by epsilon shift."""
    h = of.x_RBD[replica]
    last = len(of.model.layers) - 1
    for n, layer in enumerate(of.model.layers):
        h = h @ layer.weight[replica].T + layer.bias[replica]  # type: ignore[index]
        if n == of.layer:
            h = h + epsilon_B[:, None] * shift_O
        h = h if n == last else h.relu()
    labels = of.y_RB[replica]
    if of.loss == "squared":
        return (h - torch.nn.functional.one_hot(labels, CLASSES)).square().sum(1).mean()
    return torch.nn.functional.cross_entropy(h, labels)


def noise(of: Meter, sigma: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(of.y_RB.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("loss", ["exact", "squared"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gradient_hessian_and_r_equal_explicit_derivatives(layer: int, loss: str) -> None:
    of = meter("fc", layer, loss=loss)
    direction = of.model.nodes[str(layer)].get_parameter("weight").detach()
    epsilon = noise(of, 0.3)
    first, second = of.terms(epsilon, direction)
    ones = torch.ones(of.y_RB.shape[1], dtype=torch.float64)
    for r in range(len(SEEDS)):
        zero = torch.zeros(of.shape, dtype=torch.float64)
        gradient = jacobian(lambda s, r=r: by_hand(of, r, s, ones), zero)
        hessian = hessian_of(lambda s, r=r: by_hand(of, r, s, ones), zero)
        torch.testing.assert_close(of.mean_gradient()[r], gradient)
        torch.testing.assert_close(of.hessian()[r], hessian)
        noisy = hessian_of(lambda s, r=r: by_hand(of, r, s, epsilon[r]), zero)
        slope = jacobian(lambda s, r=r: by_hand(of, r, s, epsilon[r]), zero)
        torch.testing.assert_close(first[r], slope @ direction[r])
        torch.testing.assert_close(second[r], direction[r] @ noisy @ direction[r] / 2)


@pytest.mark.parametrize(("arch", "layer"), [("fc", 0), ("fc", 2), ("cnn", 0), ("cnn", 1), ("cnn", 2)])
def test_r1_and_r2_are_what_finite_noise_shows(arch: str, layer: int) -> None:
    of = meter(arch, layer)
    direction = of.model.nodes[str(layer)].get_parameter("weight").detach()
    if arch == "cnn" and layer < of.model.blocks:
        direction = direction.permute(0, 2, 3, 1)  # images lead with rows here
    epsilon = noise(of, 1.0)
    first, second = of.terms(epsilon, direction)
    finite = of.finite_r(epsilon, direction, 1e-4)
    torch.testing.assert_close(finite[0], first, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(finite[1], second, rtol=1e-3, atol=1e-5)
    small = 1e-3
    with torch.no_grad():
        added = of.along(epsilon, direction)(small) - of.losses(None).mean(1)
    torch.testing.assert_close(added, small * first + small**2 * second, rtol=1e-3, atol=1e-9)


def test_a_linear_network_with_squared_error_has_no_r_beyond_the_second() -> None:
    of = meter("fc", 0, loss="squared", widths=[])
    direction = of.model.nodes["0"].get_parameter("weight").detach()
    epsilon = noise(of, 1.0)
    finite, exact = of.finite_r(epsilon, direction, 0.1), of.terms(epsilon, direction, orders=4)
    assert (finite[1] > 0).all() and finite[2:].abs().max() < 1e-8 and not exact[2:].any()


def test_r3_and_r4_are_what_finite_differences_show() -> None:
    of = meter("fc", 0, widths=[])  # without ReLU: a kink within the step would be all that they see
    direction = of.model.nodes["0"].get_parameter("weight").detach()
    epsilon = noise(of, 1.0)
    torch.testing.assert_close(
        of.terms(epsilon, direction, orders=4), of.finite_r(epsilon, direction, 0.05), rtol=0.02, atol=1e-6
    )


@pytest.mark.parametrize(("arch", "layer"), [("fc", 0), ("fc", 1), ("cnn", 2)])
def test_the_hessian_of_squared_error_over_relu_layers_is_positive(arch: str, layer: int) -> None:
    eigenvalues = torch.linalg.eigvalsh(meter(arch, layer, loss="squared").hessian())
    assert eigenvalues.min() > -1e-10 and eigenvalues.max() > 0


def test_hutchinsons_trace_is_within_its_error() -> None:
    of = meter("fc", 0)
    exact = of.hessian().diagonal(dim1=1, dim2=2).sum(1)
    mean, error = of.trace(400, torch.Generator().manual_seed(1))
    assert ((mean - exact).abs() < 4 * error).all() and (error < 0.2 * exact.abs()).all()


def test_eq_7_is_the_loss_that_corrupted_inputs_add() -> None:
    of = meter("fc", 0, widths=[])  # without ReLU, whose kinks add to the loss what no Hessian holds
    predicted, error = of.corrupted_r2(0.01, 400, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(3)
    added = []
    with torch.no_grad():
        for _ in range(200):
            delta = 0.01 * torch.randn(of.x_RBD.shape, generator=generator, dtype=torch.float64)
            both = [
                Meter(of.model, of.x_RBD + sign * delta, of.y_RB, 0).losses(None).mean(1) for sign in (1, -1)
            ]  # R_1 is odd
            added.append((both[0] + both[1]) / 2 - of.losses(None).mean(1))
    found = torch.stack(added)
    spread = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - predicted).abs() < 4 * (spread + error)).all() and (predicted > 4 * error).all()


def test_r1_falls_with_the_batch_and_r2_does_not() -> None:
    sizes, size = {}, {}
    for batch in (4, 40):
        of = meter("fc", 0, batch=batch)
        direction = of.model.nodes["0"].get_parameter("weight").detach()
        draws = [of.terms(noise(of, 1.0, seed), direction) for seed in range(200)]
        sizes[batch] = torch.stack([first for first, _ in draws]).square().mean(0).sqrt()
        size[batch] = torch.stack([second for _, second in draws]).mean(0)
        expected = of.local_gradients().mul(direction[:, None]).sum(2).square().sum(1).sqrt() / batch
        torch.testing.assert_close(sizes[batch], expected, rtol=0.15, atol=0)  # sigma <g^2>^(1/2) / B^(1/2)
    assert ((sizes[4] / sizes[40] > 2) & (sizes[4] / sizes[40] < 5)).all()
    assert ((size[4] / size[40] > 0.4) & (size[4] / size[40] < 2.5)).all()


def test_measuring_leaves_the_network_as_it_was() -> None:
    of = meter("fc", 1)
    with torch.no_grad():
        before = of.model(of.x_RBD, CLEAN)
    of.hessian_times(of.mean_gradient())
    with torch.no_grad():
        assert torch.equal(of.model(of.x_RBD, CLEAN), before)
    assert all(parameter.grad is None for parameter in of.model.parameters())
