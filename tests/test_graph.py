"""Steps taken for a CUDA graph are the plain steps, to the last bit on a CPU; on a GPU the graph is the same steps one launch at a
time."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from noise_reg.prepare import TrainingData
from noise_reg.spec import RunSpec
from noise_reg.train import Outcome, Stack, new_stack, train
from tests.plain import made_data, made_spec

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

DENSE: list[dict[str, float]] = [
    {},
    {"dropout": 0.5, "weight_decay": 0.3},
    {"cdt": 0.4},
    {"nin_input": 3.0, "nin_hidden": 1.0},
    {"jacobian": 0.02, "jacobian_noise": 0.1},
    {"input_noise": 0.5, "weight_noise": 0.003},
    {"weight_penalty": 0.002, "label_smoothing": 0.2},
]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fc": ("fc", {}),
    "stops": ("fc", {"stop_accuracy": 0.86, "max_epochs": 10, "reading": {"stop_measure": "clean"}}),
    "cnn": ("cnn", {}),
    "vgg": ("vgg", {"max_epochs": 2}),
    "samples": ("tanh_mlp", {"reading": {"weight_noise_draw": "sample", "noise_redraw": "once"}}),
    "directions": ("tanh_mlp", {"reading": {"jacobian_estimator": "projection", "loss": "squared"}}),
    "adam": ("fc", {"optimizer": "adam", "reading": {"dropout_input": True}}),
    "rmsprop": ("cnn", {"optimizer": "rmsprop"}),
}


def specs_of(case: str, **changes: Any) -> list[RunSpec]:
    arch, own = CASES[case]
    for_all = [s for s in DENSE if arch not in ("cnn", "vgg") or not {"jacobian", "weight_penalty"} & s.keys()]
    return [made_spec(arch, seed=seed, strengths=s, **own, **changes) for seed, s in enumerate(for_all, start=20)]


def moved(data: TrainingData, device: str) -> TrainingData:
    found = {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
    return dataclasses.replace(
        data, **{name: value.to(device) for name, value in found.items() if hasattr(value, "to")}
    )


def outcomes(specs: list[RunSpec], by_graph: bool, device: str = "cpu") -> dict[str, Outcome]:
    data = moved(made_data(specs[0]), device)
    fresh = new_stack(specs, data)
    stack = Stack(fresh.specs, fresh.model, by_graph=by_graph)
    assert stack.by_graph == by_graph
    return {outcome.spec.key: outcome for ended in train(stack, data) for outcome in ended}


@pytest.mark.parametrize("case", CASES)
def test_steps_for_a_graph_end_in_the_same_bits(case: str) -> None:
    specs = specs_of(case)
    plain, found = outcomes(specs, False), outcomes(specs, True)
    if case == "stops":
        assert len({outcome.record["epochs"] for outcome in plain.values()}) > 1
    for key, expected in plain.items():
        assert found[key].history == expected.history
        for name, value in expected.weights.items():
            assert torch.equal(torch.from_numpy(found[key].weights[name]), torch.from_numpy(value)), (case, name)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("case", CASES)
def test_a_graph_computes_what_its_steps_compute_one_launch_at_a_time(case: str) -> None:
    specs = specs_of(case)
    plain, found = outcomes(specs, False, "cuda"), outcomes(specs, True, "cuda")
    on_cpu = outcomes(specs, False)
    for key, expected in plain.items():
        for other, tolerance in ((found[key], 1e-12), (on_cpu[key], 1e-3)):
            assert other.record["epochs"] == expected.record["epochs"]
            for name, value in expected.weights.items():
                torch.testing.assert_close(
                    torch.from_numpy(other.weights[name]), torch.from_numpy(value), rtol=tolerance, atol=tolerance
                )
