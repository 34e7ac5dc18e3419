"""Noise injection nodes: their gradients, their initial weights, the noise that reaches them, and that evaluation has none.

Axes: R replicas, B samples, D pixels, N samples of an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from noise_reg.evaluations.clean import clean_scores
from noise_reg.losses import mean_loss
from noise_reg.nn import CLEAN, StackedModel, depth
from noise_reg.nn.noise_node import DenseNode, NoiseNode, PixelNode
from noise_reg.regularizers import TrainingPlaces, node_layers
from noise_reg.spec import RunSpec
from noise_reg.streams import Purpose, drawn, normal, permutation
from tests.plain import BATCH, CLASSES, IMAGE, TRAIN_IMAGES, made_data, made_spec

FULL = {"nin_input": 2.0, "nin_hidden": 0.5}
NODES: dict[str, tuple[NoiseNode, tuple[int, ...]]] = {  # a node of three replicas, and what enters it
    "dense": (DenseNode(torch.arange(3), (5,), fan_in=4, lane=0, dtype=torch.float64), (3, 2, 5)),
    "pixel": (
        PixelNode(torch.arange(3), (2, 3, 3), fan_in=18, lane=0, dtype=torch.float64),
        (3, 2, 3, 3, 2),
    ),  # (R, B, H, W, C)
}


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def stack(specs: Sequence[RunSpec], layers: Sequence[int] | None = None) -> StackedModel:
    spec, seeds_R = specs[0], torch.tensor([s.seed for s in specs])
    if layers is None:
        layers = node_layers(spec.arch, spec.reading, [s.strengths for s in specs], depth(spec.arch))
    return StackedModel(spec.arch, spec.reading, IMAGE, CLASSES, seeds_R, layers, torch.float64)


def started(specs: Sequence[RunSpec], epoch: int, step: int) -> tuple[TrainingPlaces, Tensor]:
    """The places of a stack at a step of an epoch, and the epoch's order (R, N)."""
    spec, seeds_R = specs[0], torch.tensor([s.seed for s in specs])
    strengths = [s.strengths for s in specs]
    layers = node_layers(spec.arch, spec.reading, strengths, depth(spec.arch))
    places = TrainingPlaces(strengths, seeds_R, spec.reading, layers, BATCH, spec.distribution, torch.float64)
    order_RN = permutation(seeds_R, TRAIN_IMAGES, epoch=epoch)[:, : TRAIN_IMAGES // BATCH * BATCH]
    places.start_epoch(epoch, order_RN, TRAIN_IMAGES)
    places.start_step(step, epoch)
    return places, order_RN


@pytest.mark.parametrize("kind", NODES)
def test_a_node_s_gradients_are_those_of_finite_differences(kind: str) -> None:
    node, shape = NODES[kind]

    def run(x: Tensor, weight: Tensor, epsilon: Tensor) -> Tensor:
        out: Tensor = functional_call(node, {"weight": weight}, (x, epsilon))
        return out

    assert torch.autograd.gradcheck(run, (random(*shape), random(*node.weight.shape), random(3, 2)))


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_the_loss_s_gradient_in_every_noise_weight_is_that_of_finite_differences(arch: str) -> None:
    specs = [made_spec(arch, seed=seed, strengths=FULL, reading={"loss": "exact"}) for seed in (1, 2)]
    data, model = made_data(specs[0]), stack(specs)
    places, order_RN = started(specs, epoch=0, step=1)
    index_RB = order_RN[:, BATCH : 2 * BATCH]

    def loss() -> Tensor:
        return mean_loss("exact", model(data.x[index_RB], places), data.y[index_RB]).sum()

    weights = {name: weight for name, weight in model.named_parameters() if name.startswith("nodes")}
    assert len(weights) == depth(specs[0].arch)
    gradients = torch.autograd.grad(loss(), list(weights.values()))
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        numeric = torch.empty_like(gradient)
        with torch.no_grad():
            for entry, value in np.ndenumerate(weight.numpy().copy()):
                ends = []
                for shift in (1e-6, -1e-6):
                    weight[entry] = float(value) + shift
                    ends.append(loss())
                weight[entry] = float(value)
                numeric[entry] = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-6)
        assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("kind", NODES)
def test_a_node_adds_its_weights_times_the_noise_of_replica_and_sample(kind: str) -> None:
    node, shape = NODES[kind]
    x, epsilon_RB = random(*shape), random(3, 2)
    out = node(x, epsilon_RB)
    assert out.shape == x.shape
    for r in range(3):
        for b in range(2):
            one, before = (t[r, b] if kind == "dense" else t[r, b].permute(2, 0, 1) for t in (out, x))
            torch.testing.assert_close(one, before + node.weight[r] * epsilon_RB[r, b], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("arch", "shapes", "fan_ins"),
    [
        ("fc", {0: (7,), 1: (5,), 2: (4,)}, {0: 129, 1: 8, 2: 6}),  # dense: the node is one input more
        ("cnn", {0: (2, 8, 8), 1: (2, 4, 4), 2: (6,), 3: (4,)}, {0: 128, 1: 32, 2: 13, 3: 7}),
    ],
)
def test_noise_weights_have_the_layer_s_shape_and_variance_one_over_d(
    arch: str, shapes: dict[int, tuple[int, ...]], fan_ins: dict[int, int]
) -> None:
    specs = [made_spec(arch, seed=seed, strengths=FULL) for seed in range(400)]
    nodes = stack(specs).nodes
    assert [int(layer) for layer in nodes] == list(shapes)
    for layer, shape in shapes.items():
        weight = nodes[str(layer)].get_parameter("weight").detach()
        assert tuple(weight.shape) == (400, *shape)
        assert weight.var().item() * fan_ins[layer] == pytest.approx(1, abs=0.1)
        assert weight.mean().abs().item() * fan_ins[layer] ** 0.5 < 0.1
        stream = normal(torch.tensor([0]), Purpose.NOISE_WEIGHTS, weight[0].numel(), lane=layer, step=0, epoch=0)
        torch.testing.assert_close(weight[0].flatten(), stream[0].double() / fan_ins[layer] ** 0.5)


@pytest.mark.parametrize(
    ("strengths", "reading", "layers"),
    [
        ({}, {}, []),
        ({"nin_input": 1.0}, {}, [0]),
        ({"nin_hidden": 1.0}, {}, [1, 2, 3]),
        (FULL, {}, [0, 1, 2, 3]),
        (FULL, {"output_nin": False}, [0, 1, 2]),
    ],
)
def test_nodes_stand_where_some_replica_has_noise(
    strengths: dict[str, float], reading: dict[str, Any], layers: list[int]
) -> None:
    specs = [made_spec("cnn", strengths=s, reading=reading) for s in ({}, strengths)]
    assert [int(layer) for layer in stack(specs).nodes] == layers


@pytest.mark.parametrize("shared", [False, True])
def test_each_node_gets_its_replica_s_sigma_times_its_own_stream(shared: bool) -> None:
    strengths = [FULL, {}, {"nin_input": 7.0}]
    reading = {"full_noise": "shared" if shared else "each"}
    specs = [made_spec("cnn", seed=seed, strengths=s, reading=reading) for seed, s in enumerate(strengths)]
    sigmas = {0: [2.0, 0.0, 7.0], 1: [0.5, 0.0, 0.0], 3: [0.5, 0.0, 0.0]}
    places, order_RN = started(specs, epoch=2, step=1)
    for layer, sigma_R in sigmas.items():
        epsilon_RB = places.node(layer)
        assert epsilon_RB is not None and epsilon_RB.shape == (3, BATCH)
        for r, sigma in enumerate(sigma_R):
            lane = 0 if shared else layer
            stream = normal(torch.tensor([r]), Purpose.NODE, order_RN.shape[1], lane=lane, step=0, epoch=2)[0]
            torch.testing.assert_close(epsilon_RB[r], sigma * stream[BATCH : 2 * BATCH].double(), rtol=1e-14, atol=0)
    assert places.node(4) is None


def epsilon_by_sample(redraw: str, epoch: int) -> dict[int, float]:
    """The noise that each training sample gets in an epoch."""
    spec = made_spec("fc", strengths=FULL, reading={"noise_redraw": redraw})
    pairs: dict[int, float] = {}
    for step in range(TRAIN_IMAGES // BATCH):
        places, order_RN = started([spec], epoch, step)
        epsilon_RB = places.node(0)
        assert epsilon_RB is not None
        pairs |= zip(order_RN[0, step * BATCH : (step + 1) * BATCH].tolist(), epsilon_RB[0].tolist(), strict=True)
    return pairs


@pytest.mark.parametrize("redraw", ["epoch", "once"])
def test_a_sample_s_noise_is_drawn_afresh_each_epoch_or_once(redraw: str) -> None:
    first, second = epsilon_by_sample(redraw, 0), epsilon_by_sample(redraw, 1)
    both = first.keys() & second.keys()
    assert len(both) > 30
    assert [first[n] == second[n] for n in both] == [redraw == "once"] * len(both)
    assert len(set(first.values())) == len(first)


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_in_evaluation_every_node_is_off(arch: str) -> None:
    spec = made_spec(arch, strengths=FULL)
    data, model, without = made_data(spec), stack([spec]), stack([spec], layers=[])
    with torch.no_grad():
        for node in model.nodes.values():
            node.get_parameter("weight").fill_(1e6)
    x = data.test_x[None]
    assert torch.equal(model(x, CLEAN), without(x, CLEAN))
    for found, expected in zip(
        *(clean_scores(m, data.test_x, data.test_y, "exact") for m in (model, without)), strict=True
    ):
        assert torch.equal(found, expected)
    places, _ = started([spec], epoch=0, step=0)
    assert not torch.equal(model(x[:, :BATCH], places), without(x[:, :BATCH], CLEAN))


@pytest.mark.parametrize("redraw", ["epoch", "once"])
def test_a_node_s_noise_has_the_distribution_that_the_run_names(redraw: str) -> None:
    reading = {"noise_redraw": redraw}
    base = made_spec("fc", seed=4, strengths={"nin_input": 3.0}, reading=reading)
    distribution = {"name": "uniform", "width": 0.0, "weight": 0.5, "df": 0.0}
    spec = base.replace(distribution=distribution)
    assert spec.key != base.key and spec.stack_key() != base.stack_key()
    places, order_RN = started([spec], epoch=1, step=2)
    found = places.node(0)
    assert found is not None
    if redraw == "epoch":
        whole = drawn(spec.distribution, torch.tensor([4]), order_RN.shape[1], lane=0, step=0, epoch=1)
    else:
        fixed = drawn(spec.distribution, torch.tensor([4]), TRAIN_IMAGES, lane=0, step=1, epoch=0)
        whole = fixed.gather(1, order_RN)
    torch.testing.assert_close(found, 3.0 * whole[:, 2 * BATCH : 3 * BATCH].double())
    assert found.abs().max() <= 3.0
