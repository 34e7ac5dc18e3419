"""Small networks that know most of their training images, in their stack and exported as plain modules."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from torch import nn

from noise_reg.nn import StackedModel
from noise_reg.nn.export import STANDARDIZER, plain_model
from noise_reg.prepare import TrainingData
from noise_reg.train import Outcome, new_stack, train
from tests.plain import made_data, made_spec


def trained(
    arch: str, seeds: tuple[int, ...] = (1, 2, 3), **changes: Any
) -> tuple[StackedModel, TrainingData, list[Outcome]]:
    """One replica a seed, with no regulariser, CDT and in-NINR."""
    methods: list[dict[str, float]] = [{}, {"cdt": 0.4}, {"nin_input": 1.0}]
    specs = [
        made_spec(arch, seed=seed, strengths=strengths, **{"max_epochs": 6, **changes})
        for seed, strengths in zip(seeds, methods, strict=True)
    ]
    data = made_data(specs[0])
    stack = new_stack(specs, data)
    return stack.model, data, [outcome for ended in train(stack, data) for outcome in ended]


def exported(outcome: Outcome, data: TrainingData) -> nn.Module:
    """As the store has them: the specification through JSON, the first layer's numbers among the weights."""
    first = {STANDARDIZER + name: value.numpy() for name, value in data.standardizer.state_dict().items()}
    return plain_model(
        json.loads(json.dumps(dataclasses.asdict(outcome.spec))), outcome.weights | first, outcome.record
    )
