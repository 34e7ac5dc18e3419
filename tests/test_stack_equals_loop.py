"""Promise 1: R replicas in a stack give what R plain runs of tests/plain.py give (float64, after 20 steps).

Axes: R replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from noise_reg.spec import RunSpec
from noise_reg.train import Outcome, new_stack, run_epoch, train
from tests.plain import made_data, made_spec, plain_run

# torch's own padding for even kernels, the plain runs' oracle, says that it may copy the image
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

FULL = {"nin_input": 2.0, "nin_hidden": 1.0}
METHODS: dict[str, dict[str, float]] = {
    "none": {},
    "l2": {"weight_decay": 0.3},
    "dropout": {"dropout": 0.5},
    "cdt": {"cdt": 0.4},
    "in_ninr": {"nin_input": 3.0},
    "in_ninr_catapult": {"nin_input": 40.0},
    "full_ninr": FULL,
    "all_together": {"weight_decay": 0.1, "dropout": 0.2, "cdt": 0.3, **FULL},
}
OF_DENSE: dict[str, dict[str, float]] = {
    "jacobian": {"jacobian": 0.02},
    "nj": {"jacobian": 0.02, "jacobian_noise": 0.5},
    "weight_penalty": {"weight_penalty": 0.002},
}
OTHERS: dict[str, dict[str, float]] = {
    "input_noise": {"input_noise": 0.7},
    "weight_noise": {"weight_noise": 0.003},
    "label_smoothing": {"label_smoothing": 0.2},
    "noises_together": {"weight_noise": 0.003, "input_noise": 0.4, "label_smoothing": 0.1, **METHODS["all_together"]},
}
EVERY_STRENGTH = {**OTHERS["noises_together"], **OF_DENSE["nj"], **OF_DENSE["weight_penalty"], "nin_input": 1.0}
READINGS: dict[
    str, tuple[dict[str, float], dict[str, Any]]
] = {  # strengths under which the reading matters, the reading
    **{
        f"l2_{form}_on_{on}": ({"weight_decay": 0.3, **FULL}, {"l2_form": form, "l2_on": on})
        for form in ("half", "keras")
        for on in ("weights", "weights_niw", "all")
    },
    "dropout_input": ({"dropout": 0.3, "cdt": 0.3}, {"dropout_input": True}),
    "noise_shared": (FULL, {"full_noise": "shared"}),
    "noise_once": (FULL, {"noise_redraw": "once"}),
    "noise_shared_once": (FULL, {"full_noise": "shared", "noise_redraw": "once"}),
    "no_output_nin": (FULL, {"output_nin": False}),
    "clean_stop": (FULL, {"stop_measure": "clean"}),
    "pytorch_batch_norm": (FULL, {"batch_norm": "pytorch"}),
    "channels_fan_in": ({}, {"conv_fan_in": "channels"}),
}

OF_THE_CNN = ("pytorch_batch_norm", "channels_fan_in")


def replicas(arch: str, strengths: Mapping[str, float], **changes: Any) -> list[RunSpec]:
    """Three seeds: at these strengths, at half of them, and with everything off."""
    scales = (1.0, 0.5, 0.0)
    return [
        made_spec(arch, seed=seed, strengths={name: scale * value for name, value in strengths.items()}, **changes)
        for seed, scale in enumerate(scales, start=11)
    ]


def trained(specs: Sequence[RunSpec], *, folded: bool = True) -> list[Outcome]:
    """The outcomes of one stack, in the order of `specs`."""
    data = made_data(specs[0])
    outcomes = [outcome for ended in train(new_stack(specs, data, folded=folded), data) for outcome in ended]
    return sorted(outcomes, key=lambda outcome: specs.index(outcome.spec))


def assert_equal_to_plain_runs(specs: Sequence[RunSpec], tolerance: float = 1e-10) -> None:
    data = made_data(specs[0])
    outcomes = trained(specs)
    for spec, outcome in zip(specs, outcomes, strict=True):
        weights, history, _ = plain_run(spec, data)
        assert outcome.record["status"] == "completed"
        assert set(outcome.weights) == set(weights)
        for name, value in weights.items():
            np.testing.assert_allclose(
                outcome.weights[name], value.numpy(), rtol=tolerance, atol=tolerance, err_msg=name
            )
        for ours, plain in zip(outcome.history, history, strict=True):
            assert ours == pytest.approx(plain, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("loss", ["clamped", "exact"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_a_stack_gives_what_plain_runs_give_for_each_method_and_loss(arch: str, method: str, loss: str) -> None:
    assert_equal_to_plain_runs(replicas(arch, METHODS[method], reading={"loss": loss}))


@pytest.mark.parametrize("loss", ["clamped", "exact", "squared"])
@pytest.mark.parametrize(
    ("arch", "method"),
    [
        *[(arch, name) for arch in ("fc", "tanh_mlp", "linear") for name in OF_DENSE],
        *[(arch, name) for arch in ("tanh_mlp", "cnn") for name in OTHERS],
    ],
)
def test_a_stack_gives_what_plain_runs_give_for_the_other_sources(arch: str, method: str, loss: str) -> None:
    specs = replicas(arch, {**OF_DENSE, **OTHERS}[method], reading={"loss": loss}, learning_rate=0.01)
    assert_equal_to_plain_runs(specs)


@pytest.mark.parametrize("widths", [[7], [7, 5], [7, 5, 6]])
@pytest.mark.parametrize("arch", ["fc", "tanh_mlp"])
@pytest.mark.parametrize(
    "reading",
    [
        {},
        {"jacobian_layer": 1},
        {"jacobian_estimator": "projection", "jacobian_directions": 2},
        {"jacobian_estimator": "projection", "jacobian_layer": 1},
        {"jacobian_estimator": "hutchinson", "jacobian_directions": 2},
        {"jacobian_estimator": "hutchinson", "jacobian_layer": 1},
        {"weight_noise_draw": "sample"},
    ],
    ids=[
        "exact",
        "of_hidden",
        "projection",
        "projection_of_hidden",
        "hutchinson",
        "hutchinson_of_hidden",
        "weights_a_sample",
    ],
)
def test_everything_at_once_under_the_readings_of_the_penalties(
    reading: dict[str, Any], arch: str, widths: list[int]
) -> None:
    changes = {"reading": reading, "learning_rate": 0.01, "max_epochs": 2, "geometry": {"widths": widths}}
    assert_equal_to_plain_runs(replicas(arch, EVERY_STRENGTH, **changes))


@pytest.mark.parametrize("estimator", ["exact", "projection", "hutchinson"])
@pytest.mark.parametrize("method", ["jacobian", "weight_penalty"])
@pytest.mark.parametrize("arch", ["fc", "tanh_mlp", "linear"])
def test_a_penalty_that_shares_the_data_pass_gives_what_its_own_pass_gives(
    arch: str, method: str, estimator: str
) -> None:
    """Beside replicas that need a pass of their own, and folded as well as not."""
    strengths = [OF_DENSE[method], {**OF_DENSE[method], "dropout": 0.5}, {}, {**OF_DENSE["nj"], "cdt": 0.2}]
    changes: dict[str, Any] = {"reading": {"jacobian_estimator": estimator}, "learning_rate": 0.01, "max_epochs": 2}
    assert_equal_to_plain_runs([made_spec(arch, seed=n, strengths=s, **changes) for n, s in enumerate(strengths)])


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_penalties_join_the_gradients_of_other_optimisers(optimizer: str) -> None:
    strengths = {**OF_DENSE["nj"], **OF_DENSE["weight_penalty"], "weight_noise": 0.003, "weight_decay": 0.1}
    changes = {"reading": {"l2_form": "keras"}, "learning_rate": 0.01, "max_epochs": 2}
    specs = replicas("tanh_mlp", strengths, optimizer=optimizer, **changes)
    assert_equal_to_plain_runs(specs, 1e-7)


@pytest.mark.parametrize(
    ("arch", "reading"),
    [(arch, reading) for arch in ("fc", "cnn") for reading in READINGS if arch == "cnn" or reading not in OF_THE_CNN],
)
def test_a_stack_gives_what_plain_runs_give_under_every_reading(arch: str, reading: str) -> None:
    strengths, changes = READINGS[reading]
    assert_equal_to_plain_runs(replicas(arch, strengths, reading=changes))


@pytest.mark.parametrize(
    "geometry",
    [{"padding": "valid"}, {"kernel": 3}, {"kernel": 3, "padding": "valid", "filters": [3]}],
    ids=["valid", "kernel_3", "kernel_3_valid"],
)
def test_a_stack_of_convolutions_gives_what_plain_ones_give_for_each_padding(geometry: dict[str, Any]) -> None:
    assert_equal_to_plain_runs(replicas("cnn", {"dropout": 0.2, **FULL}, geometry=geometry))


@pytest.mark.parametrize("arch", ["fc", "cnn", "tanh_mlp"])
def test_a_whole_sweep_in_one_stack_gives_what_plain_runs_give(arch: str) -> None:
    methods = {**METHODS, **OTHERS, **({} if arch == "cnn" else OF_DENSE)}
    specs = [made_spec(arch, seed=seed, strengths=methods[name]) for seed, name in enumerate(methods, start=3)]
    assert_equal_to_plain_runs(specs)


@pytest.mark.parametrize("decays", [(0.3, 0.3), (0.3, 0.0)], ids=["one_decay", "several_decays"])
@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_folded_and_stored_gradients_give_the_same_training(arch: str, decays: tuple[float, float]) -> None:
    off = dict.fromkeys(("jacobian", "jacobian_noise", "weight_penalty"), 0.0) if arch == "cnn" else {}
    specs = [
        made_spec(arch, seed=seed, strengths={**EVERY_STRENGTH, **off, "weight_decay": decay}, learning_rate=0.01)
        for seed, decay in enumerate(decays)
    ]
    for fast, slow in zip(trained(specs, folded=True), trained(specs, folded=False), strict=True):
        for name, value in slow.weights.items():
            np.testing.assert_allclose(fast.weights[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("method", ["none", "l2", "dropout", "full_ninr", "all_together"])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_a_stack_gives_what_plain_runs_give_with_every_optimizer(arch: str, optimizer: str, method: str) -> None:
    specs = replicas(arch, METHODS[method], optimizer=optimizer, learning_rate=0.01)
    assert_equal_to_plain_runs(
        specs, 1e-7
    )  # a gradient of some 1e-17 is a rounding error, and moves by its size / 1e-7


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_a_replica_keeps_its_optimizers_state_when_its_companions_leave(optimizer: str) -> None:
    long, short = (
        made_spec("fc", seed=seed, optimizer=optimizer, learning_rate=0.01, strengths=METHODS["l2"]) for seed in (1, 2)
    )
    alone, stack = new_stack([long], made_data(long)), new_stack([short, long], made_data(long))
    data = made_data(long)
    for _ in range(4):
        run_epoch(alone, data)
        run_epoch(stack, data)
        alone.epoch, stack.epoch = alone.epoch + 1, stack.epoch + 1
        if len(stack.specs) == 2 and stack.epoch == 2:
            stack.keep([1])
    for name, value in alone.weights(0).items():
        np.testing.assert_allclose(stack.weights(0)[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("method", [*METHODS])
def test_a_stack_of_vgg_networks_gives_what_plain_ones_give(method: str) -> None:
    assert_equal_to_plain_runs(replicas("vgg", METHODS[method]))


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_a_vggs_own_l2_is_a_penalty_with_every_optimizer(optimizer: str) -> None:
    specs = replicas("vgg", METHODS["l2"], optimizer=optimizer, learning_rate=0.01, reading={"l2_form": "keras"})
    assert_equal_to_plain_runs(specs, 1e-7)
