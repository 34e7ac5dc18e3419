"""Promises 2 to 4 of the stack: company does not matter, finishing early is free, a diverged replica harms nobody; and
what they rest on: strength 0 is the identity, no gradient crosses replicas, the folded update is the plain one.

Axes: R replicas, B samples, I inputs, O outputs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from noise_reg.losses import mean_loss
from noise_reg.nn import FoldedSGD, StackedLinear
from noise_reg.nn.linear import DenseLayer, product
from noise_reg.nn.products import batched
from noise_reg.precision import arithmetic, low_type, products, rounds_factors
from noise_reg.spec import RunSpec
from noise_reg.streams import permutation
from noise_reg.train import Outcome, Stack, new_stack, train
from tests.plain import BATCH, TRAIN_IMAGES, made_data, made_spec, plain_run

# torch's own padding for even kernels, the plain run's oracle, says that it may copy the image
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

FULL = {"nin_input": 2.0, "nin_hidden": 1.0}
MIXED: list[dict[str, float]] = [{}, {"dropout": 0.5, "weight_decay": 0.3}, {"cdt": 0.4}, {"nin_input": 3.0}, FULL]
STRENGTHS = {
    "weight_decay": 0.3, "dropout": 0.5, "cdt": 0.4, "nin_input": 3.0, "nin_hidden": 1.0, "input_noise": 0.5,
    "jacobian": 0.02, "jacobian_noise": 0.5, "weight_noise": 0.003, "weight_penalty": 0.002, "label_smoothing": 0.2,
}  # fmt: skip
OF_DENSE = ("jacobian", "jacobian_noise", "weight_penalty")
EVERYTHING = {**STRENGTHS, "nin_input": 1.0}
EXACT = {"loss": "exact"}


def mixed(arch: str, **changes: Any) -> list[RunSpec]:
    return [made_spec(arch, seed=seed, strengths=s, **changes) for seed, s in enumerate(MIXED, start=20)]


def outcomes_of(stack: Stack) -> dict[str, Outcome]:
    """By key: what training this stack to its end gives."""
    data = made_data(stack.specs[0])
    return {outcome.spec.key: outcome for ended in train(stack, data) for outcome in ended}


def trained(specs: Sequence[RunSpec], **changes: Any) -> dict[str, Outcome]:
    return outcomes_of(new_stack(specs, made_data(specs[0]), **changes))


def assert_same_run(found: Outcome, expected: Outcome) -> None:
    """Equal to the bit."""

    def facts(record: dict[str, Any]) -> dict[str, Any]:
        return {name: repr(value) for name, value in record.items() if name != "seconds"}

    assert facts(found.record) == facts(expected.record)
    assert [facts(row) for row in found.history] == [facts(row) for row in expected.history]
    assert found.weights.keys() == expected.weights.keys()
    for name, value in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], value, err_msg=name)


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_a_replica_alone_equals_itself_in_a_mixed_stack_at_any_place(arch: str) -> None:
    specs = mixed(arch)
    alone = {spec.key: trained([spec])[spec.key] for spec in specs}
    for order in (specs, specs[::-1], specs[2:] + specs[:2]):
        for key, outcome in trained(order).items():
            assert_same_run(outcome, alone[key])


@pytest.mark.parametrize(("arch", "stop_accuracy"), [("fc", 0.86), ("cnn", 0.35)])
def test_a_replica_does_not_notice_that_its_companions_have_finished(arch: str, stop_accuracy: float) -> None:
    specs = mixed(arch, max_epochs=10, stop_accuracy=stop_accuracy, reading={"stop_measure": "clean"})
    alone = {spec.key: trained([spec])[spec.key] for spec in specs}
    assert {outcome.record["stopped_by"] for outcome in alone.values()} == {"accuracy", "epochs"}
    assert len({outcome.record["epochs"] for outcome in alone.values()}) >= 3
    data = made_data(specs[0])
    stack, found = new_stack(specs, data), []
    for epoch, ended in enumerate(train(stack, data), start=1):
        found += ended
        assert all(outcome.record["epochs"] == epoch for outcome in ended)  # recorded at once
        assert len(stack.specs) == len(specs) - len(found)  # and gone
        assert not stack.specs or {len(p) for p in stack.model.parameters()} == {len(stack.specs)}
    assert len(found) == len(specs)
    for outcome in found:
        assert_same_run(outcome, alone[outcome.spec.key])


def test_a_run_stops_at_the_first_epoch_that_reaches_its_accuracy_exactly() -> None:
    base = made_spec("fc", max_epochs=8)
    accuracies = [row["train_accuracy"] for row in trained([base])[base.key].history[1:]]
    for epoch, accuracy in enumerate(accuracies, start=1):
        assert (accuracy * 40) == round(accuracy * 40)  # 5 mini-batches of 8: a fraction without a rounding of its own
        if accuracy > max([0.0, *accuracies[: epoch - 1]]):
            spec = made_spec("fc", max_epochs=8, stop_accuracy=accuracy)
            assert trained([spec])[spec.key].record["epochs"] == epoch


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_nodes_of_strength_0_are_exactly_the_identity(arch: str) -> None:
    specs = [made_spec(arch, seed=seed) for seed in (1, 2, 3)]
    without, idle = trained(specs), trained(specs, layers=[0, 1, 2])
    for key, outcome in without.items():
        assert idle[key].weights.keys() == outcome.weights.keys()
        assert all(np.array_equal(idle[key].weights[name], value) for name, value in outcome.weights.items())
        assert idle[key].history == outcome.history


@pytest.mark.parametrize(
    ("arch", "strength"),
    [(a, s) for a in ("fc", "cnn", "tanh_mlp") for s in STRENGTHS if a != "cnn" or s not in OF_DENSE],
)
def test_strength_0_beside_an_active_companion_is_exactly_the_identity(arch: str, strength: str) -> None:
    reading = {"l2_on": "all", "dropout_input": True}
    others = {"jacobian": STRENGTHS["jacobian"]} if strength == "jacobian_noise" else {}  # without which it is refused
    plain = [made_spec(arch, seed=seed, strengths=others, reading=reading) for seed in (1, 2, 3)]
    active = made_spec(arch, seed=2, strengths={**others, strength: STRENGTHS[strength]}, reading=reading)
    expected, found = trained(plain), trained([plain[0], active, plain[2]])
    for spec in (plain[0], plain[2]):
        outcome = expected[spec.key]
        assert_same_run(found[spec.key], outcome)
    assert not np.array_equal(
        found[active.key].weights["layers.0.weight"], expected[plain[1].key].weights["layers.0.weight"]
    )


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_a_replica_diverged_by_its_noise_is_recorded_and_harms_nobody(arch: str) -> None:
    healthy = [made_spec(arch, seed=1, reading=EXACT), made_spec(arch, seed=3, strengths=FULL, reading=EXACT)]
    tame = made_spec(arch, seed=2, strengths={"nin_hidden": 1.0}, reading=EXACT)
    strengths = dataclasses.replace(tame.strengths, nin_hidden=1e100)  # more than a user may ask for
    wild = dataclasses.replace(tame, strengths=strengths)
    found = trained([healthy[0], wild, healthy[1]])
    _, _, losses = plain_run(wild, made_data(wild))
    record = found[wild.key].record
    assert record["status"] == record["stopped_by"] == "diverged"
    assert (record["diverged_quantity"], record["epochs"]) == ("training loss", 1)
    assert record["diverged_step"] == [math.isfinite(loss) for loss in losses].index(False) > 0
    assert math.isnan(record["train_accuracy"]) and math.isnan(record["test_accuracy"])
    for spec in healthy:
        assert found[spec.key].record["status"] == "completed"
        assert_same_run(found[spec.key], trained([spec])[spec.key])


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_a_diverged_replica_is_recorded_with_the_step_of_its_first_infinite_loss(arch: str) -> None:
    specs = [made_spec(arch, seed=seed) for seed in range(6)]
    data = made_data(specs[0])
    data.x[3] = math.inf  # each replica meets this sample at a step of its own, or not before the second epoch
    outcomes = [outcome for ended in train(new_stack(specs, data), data) for outcome in ended]
    assert {outcome.record["epochs"] for outcome in outcomes} == {1, 2}
    steps = TRAIN_IMAGES // BATCH
    for outcome in outcomes:
        record, seed = outcome.record, torch.tensor([outcome.spec.seed])
        places = [permutation(seed, TRAIN_IMAGES, epoch=epoch)[0].tolist().index(3) // BATCH for epoch in (0, 1)]
        epoch = 0 if places[0] < steps else 1
        assert (record["epochs"] - 1, record["diverged_step"]) == (epoch, places[epoch])


@pytest.mark.parametrize("loss", ["clamped", "exact"])
@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_a_replica_with_an_infinite_weight_is_recorded_and_harms_nobody(arch: str, loss: str) -> None:
    specs = [
        made_spec(arch, seed=seed, strengths={"nin_hidden": 1.0, "dropout": 0.2}, reading={"loss": loss})
        for seed in (1, 2, 3)
    ]
    stack = new_stack(specs, made_data(specs[0]))
    with torch.no_grad():
        stack.model.get_parameter("layers.0.weight")[1].fill_(math.inf)
    found = outcomes_of(stack)
    bad = found[specs[1].key].record
    assert (bad["status"], bad["diverged_quantity"], bad["diverged_step"], bad["epochs"]) == (
        "diverged", "training loss", 0, 1,
    )  # fmt: skip
    for spec in (specs[0], specs[2]):
        assert_same_run(found[spec.key], trained([spec])[spec.key])


def test_what_is_not_finite_only_after_an_epoch_is_named() -> None:
    spec = made_spec("fc")
    data = made_data(spec)
    data = dataclasses.replace(data, test_x=torch.full_like(data.test_x, math.nan))
    (outcomes,) = train(new_stack([spec], data), data)
    record = outcomes[0].record
    assert (record["status"], record["diverged_quantity"], record["diverged_step"]) == ("diverged", "test_loss", -1)


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_losses_are_one_a_replica_and_no_gradient_crosses_replicas(arch: str) -> None:
    strengths = {name: value for name, value in EVERYTHING.items() if arch != "cnn" or name not in OF_DENSE}
    specs = [made_spec(arch, seed=seed, strengths=strengths, reading=EXACT) for seed in (1, 2, 3)]
    data = made_data(specs[0])
    stack = new_stack(specs, data, folded=False)
    order_RN = permutation(stack.seeds_R, TRAIN_IMAGES, epoch=0)
    stack.places.start_epoch(0, order_RN, TRAIN_IMAGES)
    stack.places.start_step(0, 0)
    index_RB = order_RN[:, :BATCH]
    loss_R = mean_loss("exact", stack.model(data.x[index_RB], stack.places), data.y[index_RB])
    assert loss_R.shape == (3,)
    for r in range(3):
        for gradient in torch.autograd.grad(loss_R[r], list(stack.model.parameters()), retain_graph=True):
            touched = gradient.flatten(1).abs().amax(1) > 0
            assert not touched[[q for q in range(3) if q != r]].any()
    everything = torch.autograd.grad(loss_R.sum(), list(stack.model.parameters()))
    assert all((gradient.flatten(1).abs().amax(1) > 0).all() for gradient in everything)


@pytest.mark.parametrize("decays", [[0.0, 0.0, 0.0], [0.3, 0.3, 0.3], [0.3, 0.0, 0.7]], ids=["none", "one", "several"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_folded_product_steps_by_gradient_and_weight_decay_and_passes_on_the_old_gradients(
    dtype: torch.dtype, decays: list[float]
) -> None:
    generator, rate = torch.Generator().manual_seed(0), 0.1
    x, grad = (torch.randn(*shape, dtype=dtype, generator=generator) for shape in ((3, 8, 5), (3, 8, 4)))
    slow, fast = (StackedLinear(torch.arange(3), 5, 4, lane=0, dtype=dtype) for _ in range(2))
    decay_R = torch.tensor(decays, dtype=torch.float64)
    fast.fold = FoldedSGD(rate, 1 - rate * decay_R)
    slow_x, fast_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    slow(slow_x).backward(grad)
    fast.layer(fast_x, None, None, "identity", None).backward(grad.clone())
    assert slow.weight.grad is not None and fast.weight.grad is None
    stepped = (1 - rate * decay_R.to(dtype))[:, None, None] * slow.weight.detach() - rate * slow.weight.grad
    tolerance = 1e-5 if dtype == torch.float32 else 1e-14
    pairs = ((fast.weight.detach(), stepped), (fast_x.grad, slow_x.grad), (fast.bias.grad, slow.bias.grad))
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_bf16_products_stay_close_to_fp32(arch: str) -> None:
    geometry = {"widths": [64, 32]}
    runs = []
    for precision in ("fp32", "bf16"):
        specs = [made_spec(arch, seed=s, strengths=FULL, geometry=geometry, precision=precision) for s in (1, 2)]
        runs.append(list(trained(specs).values()))
    for fp32, bf16 in zip(*runs, strict=True):
        assert all(value.dtype == np.float32 for value in bf16.weights.values())
        for row, wanted in zip(bf16.history, fp32.history, strict=True):
            for name in ("train_loss", "test_loss", "weight_norm_0"):
                assert row[name] == pytest.approx(wanted[name], rel=0.05), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_arithmetic_leaves_torch_as_it_found_it_even_after_an_error(precision: str) -> None:
    def state() -> tuple[Any, ...]:
        mkldnn = torch.backends.mkldnn
        denormal = torch.tensor([1e-40]) * 1  # 0 while denormal numbers are flushed
        return mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision, denormal.item()  # type: ignore[attr-defined]

    before = state()
    assert before[2] > 0  # nothing before this test has left denormal numbers flushed
    factors = "bf16" if precision == "bf16" or not any(rounds_factors()) else "ieee"
    convolutions = {"bf16": "bf16", "fp32": "ieee"}[precision]

    def fail_within() -> None:
        with arithmetic(precision, torch.device("cpu")):
            assert state() == (factors, convolutions, 0.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_within()
    assert state() == before
    with arithmetic("fp32", torch.device("cpu")):
        within = state()
        with pytest.raises(KeyboardInterrupt):
            fail_within()
        assert state() == within


@pytest.mark.parametrize("size", [128, 1024])
@pytest.mark.parametrize(("precision", "factor"), [("fp32", 1 + 2.0**-10), ("bf16", 1.0)])
def test_factors_are_rounded_in_bf16_alone_whatever_this_processor_can(
    precision: str, factor: float, size: int
) -> None:
    layer = StackedLinear(torch.tensor([0]), size, size, lane=0, dtype=torch.float32)
    rate, x = 2.0**-4, torch.full((1, size, size), 1 + 2.0**-10, requires_grad=True)  # bf16 makes 1 of it
    layer.low, layer.fold = low_type(precision, torch.device("cpu")), FoldedSGD(rate, torch.ones(1))
    with torch.no_grad():
        layer.weight.copy_(torch.eye(size))
    with arithmetic(precision, torch.device("cpu")):
        out = layer.layer(x, None, None, "identity", None)
        out.backward(torch.eye(size)[None] * (1 + 2.0**-10))
    assert (out == factor).all()
    assert x.grad is not None and torch.equal(x.grad[0], torch.eye(size) * factor)
    torch.testing.assert_close(layer.weight[0].detach(), torch.eye(size) - rate * factor**2, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("by_itself", "words"), [(True, "factors rounded"), (False, "factors and results rounded")])
def test_what_bf16_is_on_this_processor_is_told(by_itself: bool, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noise_reg.precision.rounds_factors", lambda: (True, by_itself))
    assert products("bf16", torch.device("cpu")) == f"{words} to bf16"
    assert products("bf16", torch.device("cuda")) == "factors rounded to bf16"
    assert products("fp32", torch.device("cpu")) == "in full"


@pytest.mark.parametrize("shape", [(1, 128, 784, 1024), (1, 784, 128, 1024), (10, 32, 64, 20), (2, 8192, 72, 8)])
def test_fp32_products_are_full_ones(shape: tuple[int, int, int, int]) -> None:
    replicas, rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(replicas, rows, inner, generator=generator)
    b = torch.randn(replicas, columns, inner, generator=generator)
    with arithmetic("fp32", torch.device("cpu")):
        found = batched(a, b.mT)
    exact = torch.bmm(a.double(), b.double().mT)
    assert (found - exact).abs().max() < 1e-6 * inner  # with rounded factors 1e-3 times the root of it


@pytest.mark.parametrize("folded", [True, False])
def test_a_product_of_bf16_factors_is_that_of_rounded_ones_with_its_update_in_fp32(folded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, grad = (torch.randn(2, *shape, generator=generator) for shape in ((6, 5), (4, 5), (6, 4)))
    bias = torch.zeros(2, 4, requires_grad=True)
    low_weight, low_x = weight.clone().requires_grad_(), x.clone().requires_grad_()
    out = (
        DenseLayer.apply(
            low_x, low_weight, bias, None, None, False, None, FoldedSGD(0.1, torch.ones(2)), torch.bfloat16
        )
        if folded
        else product(low_x, low_weight, bias, torch.bfloat16)
    )
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.bmm(x.bfloat16(), weight.bfloat16().mT).float())
    out.backward(grad)
    expected = torch.bmm(grad.bfloat16().mT, x.bfloat16()).float()
    if folded:
        assert low_weight.grad is None
        torch.testing.assert_close(low_weight.detach(), weight - 0.1 * expected)
    else:
        torch.testing.assert_close(low_weight.grad, expected)
    torch.testing.assert_close(low_x.grad, torch.bmm(grad.bfloat16(), weight.bfloat16()).float())
