"""What a run is: its key, its validation, and the messages for what cannot be run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from noise_reg import spec as spec_module
from noise_reg.spec import RunSpec, SpecError, parse
from tests.composed import job


def tree_of(spec: RunSpec, **changes: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(spec), **changes}


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    return job("regularizer=in_ninr_decay").spec


def test_a_spec_survives_json(spec: RunSpec) -> None:
    assert parse(RunSpec, json.loads(json.dumps(dataclasses.asdict(spec)))) == spec


def test_the_key_changes_with_every_field_that_changes_numbers(spec: RunSpec) -> None:
    variants: list[dict[str, Any]] = [
        {"seed": 1},
        {"max_epochs": 7},
        {"precision": "bf16"},
        {"stop_accuracy": 0.9},
        {"strengths": {**vars(spec.strengths), "dropout": 0.5}},
        {"reading": {**vars(spec.reading), "loss": "exact"}},
        {"optimizer": {**vars(spec.optimizer), "learning_rate": 0.1}},
        {"arch": {**vars(spec.arch), "widths": [8]}},
        {"dataset": {**vars(spec.dataset), "split_seed": 1}},
        {"dataset": {**vars(spec.dataset), "test_images": 100}},
        {"distribution": {**vars(spec.distribution), "name": "uniform"}},
    ]
    keys = {parse(RunSpec, tree_of(spec, **change)).key for change in variants}
    assert len(keys | {spec.key}) == len(variants) + 1


@pytest.mark.parametrize(
    ("idle", "overrides"),
    [
        ("reading.jacobian_layer=1", ["regularizer=jacobian"]),
        ("reading.jacobian_estimator=projection", ["regularizer=jacobian"]),
        ("reading.jacobian_directions=2", ["regularizer=jacobian", "reading.jacobian_estimator=hutchinson"]),
        ("reading.weight_noise_draw=sample", ["regularizer=weight_noise"]),
        ("distribution=laplace", ["regularizer=input_noise"]),
    ],
)
def test_what_plays_no_part_is_not_in_the_key(idle: str, overrides: list[str]) -> None:
    assert job(idle).spec.key == job().spec.key
    assert job(*overrides, idle).spec.key != job(*overrides).spec.key


def test_the_key_is_the_same_in_another_process(spec: RunSpec) -> None:
    code = "import json, sys; from noise_reg.spec import *; print(parse(RunSpec, json.loads(sys.argv[1])).key)"
    call = [sys.executable, "-c", code, json.dumps(dataclasses.asdict(spec))]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip() == spec.key


def test_a_field_added_later_keeps_the_keys_of_earlier_runs(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(spec_module.ADDED_LATER, "reading.loss", "clamped")
    added = spec.key
    flat = {n: v for n, v in spec_module.flatten(dataclasses.asdict(spec)).items() if n != "reading.loss"}
    assert added == spec_module.digest({n: v for n, v in flat.items() if not spec_module.is_neutral(n, v)})


def test_stacks_share_everything_but_seed_and_strengths(spec: RunSpec) -> None:
    assert spec.replace(seed=5).stack_key() == spec.stack_key() == job("regularizer=l2").spec.stack_key()
    assert job("arch.widths=[8]").spec.stack_key() != spec.stack_key()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed = -1: must be a whole number in [0, 4294967295]"),
        ({"seed": 1.5}, "seed = 1.5: must be a whole number"),
        ({"seed": None}, "seed: must be given"),
        ({"seed": True}, "seed = True: must be a whole number"),
        ({"max_epochs": 0}, "max_epochs = 0: must be a whole number of at least 1"),
        ({"stop_accuracy": 0.0}, "stop_accuracy = 0.0: must be a number in (0, 1]"),
        ({"stop_accuracy": float("nan")}, "stop_accuracy = nan: must be a number in (0, 1]"),
        ({"precision": "fp8"}, "precision = fp8: must be one of fp32, bf16, tf32, fp64"),
        ({"colour": 1}, "colour: unknown key; known are dataset, arch"),
        ({"dataset": 3}, "dataset = 3: a mapping is needed"),
    ],
)
def test_what_cannot_be_run_is_named_with_what_is_allowed(spec: RunSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(RunSpec, tree_of(spec, **change))
    assert message in str(error.value)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("inf"), float("nan"), "much"])
def test_impossible_dropout_is_refused(spec: RunSpec, value: Any) -> None:
    with pytest.raises(SpecError, match=r"strengths.dropout = .*: must be a number"):
        parse(RunSpec, tree_of(spec, strengths={**vars(spec.strengths), "dropout": value}))


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(SpecError, match=r"corruption\.grid = .*at least 1"):
        job("corruption.grid=[]")


def test_runs_stored_before_a_field_joined_keep_their_key_and_can_be_read(spec: RunSpec) -> None:
    old = {name: value for name, value in dataclasses.asdict(spec).items() if name != "distribution"}
    old["optimizer"] = {name: vars(spec.optimizer)[name] for name in ("name", "learning_rate", "batch_size")}
    old["arch"] = {name: vars(spec.arch)[name] for name in ("name", "widths", "filters", "kernel", "padding")}
    assert parse(RunSpec, old) == spec
    assert job("regularizer=none", "precision=bf16", "seed=3", "wandb=disabled").spec.key == "e51658256eba6d68"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distribution=student_t distribution.df=2", "distribution.df = 2.0: must be above 2 for distribution.name = student_t"),
        ("distribution.width=0.5", "distribution.width = 0.5: must be 0 for distribution.name = gaussian"),
        ("distribution=double_gaussian distribution.weight=1.5", "distribution.weight = 1.5: must be a number in [0, 1]"),
        ("distribution=double_gaussian distribution.width=-1", "distribution.width = -1.0: must be a finite number of at least 0"),
        ("distribution=uniform distribution.df=3", "distribution.df = 3.0: must be 0 for distribution.name = uniform"),
        ("distribution.name=cauchy", "must be one of gaussian, uniform"),
    ],
)  # fmt: skip
def test_a_distribution_with_an_impossible_parameter_is_named(override: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        job("regularizer=in_ninr_decay", *override.split())
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.learning_rate=0"], "optimizer.learning_rate = 0.0: must be a finite number above 0"),
        (
            ["optimizer=adam", "optimizer.learning_rate=-0.1"],
            "optimizer.learning_rate = -0.1: must be a finite number above 0",
        ),
        (["optimizer=adam", "optimizer.beta_1=1.0"], "optimizer.beta_1 = 1.0: must be a number in [0, 1)"),
        (
            ["optimizer=rmsprop", "optimizer.epsilon=0"],
            "optimizer.epsilon = 0.0: must be above 0 for optimizer.name = rmsprop",
        ),
        (
            ["optimizer=rmsprop", "optimizer.beta_2=0.9"],
            "optimizer.beta_2 = 0.9: must be 0 for optimizer.name = rmsprop",
        ),
        (["optimizer.rho=0.9"], "optimizer.rho = 0.9: must be 0 for optimizer.name = sgd"),
        (["optimizer.name=lion"], "optimizer.name = lion: must be one of sgd, rmsprop, adam"),
    ],
)
def test_an_optimizer_with_an_impossible_parameter_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(SpecError) as error:
        job(*overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(("optimizer", "arch"), [(o, a) for o in ("rmsprop", "adam") for a in ("fc", "cnn")])
def test_the_papers_noise_keeps_eta_sigma_squared_across_optimizers(optimizer: str, arch: str) -> None:
    rate = {"rmsprop": {"fc": 1e-4, "cnn": 1e-3}, "adam": {"fc": 0.01, "cnn": 0.01}}[optimizer][arch]
    for regularizer in ("in_ninr_decay", "in_ninr_catapult", "full_ninr_decay", "full_ninr_catapult"):
        of, plain = (
            job(f"regularizer={regularizer}", f"arch={arch}", *more).spec
            for more in ([f"optimizer={optimizer}", f"optimizer.learning_rate={rate}"], [])
        )
        products = [spec.optimizer.learning_rate * spec.strengths.nin_input**2 for spec in (of, plain)]
        assert products[0] == pytest.approx(products[1], rel=0.07)  # the paper's 0.9 is rounded


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["arch=vgg", "arch.dropouts=[0.2]"], "arch.dropouts = [0.2]: must be one number for each of arch.filters"),
        (
            ["arch=vgg", "arch.dropouts=[0.2,0.3,1.0]"],
            "arch.dropouts = [0.2, 0.3, 1.0]: must be a list, each a number in [0, 1)",
        ),
        (["arch=cnn", "arch.dropouts=[0.2]"], "arch.dropouts = [0.2]: must be [] for arch.name = cnn"),
        (["arch=fc", "arch.conv_decay=0.1"], "arch.conv_decay = 0.1: must be 0 for arch.name = fc"),
        (["arch=vgg", "regularizer=full_ninr_decay"], "the paper gives no sigma_epsilon for arch.name = vgg"),
    ],
)
def test_an_impossible_vgg_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(SpecError) as error:
        job("dataset=cifar10", *overrides)
    assert message in str(error.value)
