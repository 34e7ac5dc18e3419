"""Claim R3 of N+J on trained networks: what noise in the input of |J|^2 adds, against the terms of its expansion.

Everything is measured in fp64 on test images, one network a line. Axes: B samples, D inputs.
"""

from __future__ import annotations

import math
from typing import Any

import hydra
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from noise_reg.artefacts import MEASURED
from noise_reg.cli.reproduce import run_provenance
from noise_reg.config import read_job, read_runtime, read_study
from noise_reg.limits import EPOCHS, IMAGES, REPEATED, check_count
from noise_reg.nn import CLEAN
from noise_reg.nn.export import stacked_model
from noise_reg.pipeline import Pipeline
from noise_reg.place import deliver, read_place, study_context
from noise_reg.prepare import TrainingData
from noise_reg.spec import RunSpec, SpecError
from noise_reg.theory.jacobian import Function, noisy_norm, second_order, second_order_whole, squared_jacobian
from noise_reg.train import new_stack, run_epoch


def study(cfg: DictConfig) -> None:
    """Trains the networks, measures them and draws results/nj_expansion."""
    plain, place = read_study(cfg), read_place(cfg, "nj_expansion")
    check(plain)
    pipeline = Pipeline(read_runtime(cfg))
    specs = {
        name: read_job(hydra.compose("train", overrides=[*plain["overrides"], *network["overrides"]])).spec
        for name, network in plain["networks"].items()
    }
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(specs), unit="network", desc="measuring", dynamic_ncols=True) as bar:
        for name, spec in specs.items():
            network, data = plain["networks"][name], pipeline.data(spec)
            function = trained(spec, data, network["epochs"])
            rows += measure(name, function, data.test_x[: plain["images"]].double().cpu(), network["whole"], plain)
            bar.update()
    context = run_provenance(next(iter(specs.values())), pipeline)
    context |= study_context(plain, place)
    context["data"] = {spec.dataset.name: pipeline.data(spec).facts for spec in specs.values()}
    context["dataset"] = ", ".join(context["data"])
    deliver(MEASURED["nj_expansion"], {"expansion": pd.DataFrame(rows)}, context, place)


def check(plain: dict[str, Any]) -> None:
    for name, most in (("images", IMAGES), ("draws", REPEATED), ("vectors", REPEATED)):
        check_count(name, plain[name], 2, most)
    sigmas = plain["sigmas"]
    numbers = isinstance(sigmas, list) and all(type(v) in (int, float) and v > 0 for v in sigmas)
    if not numbers or sigmas != sorted(set(sigmas)) or len(sigmas) < 3:
        raise SpecError(f"sigmas = {sigmas}: must be a rising list of at least three numbers above 0, for a slope")
    if not plain["networks"]:
        raise SpecError("networks: at least one must be given")
    for name, network in plain["networks"].items():
        check_count(f"networks.{name}.epochs", network["epochs"], 0, EPOCHS)


def trained(spec: RunSpec, data: TrainingData, epochs: int) -> Function:
    """The network after so many epochs as a function of its standardised inputs (B, D), in fp64."""
    stack = new_stack([spec], data)
    for epoch in range(epochs):
        run_epoch(stack, data)
        stack.epoch = epoch + 1
    wide = spec.replace(precision="fp64")
    model = stacked_model([wide], [stack.weights(0)], data.image, data.classes).double()
    return lambda x_BD: model(x_BD[None], CLEAN)[0]


def measure(name: str, function: Function, x_BD: Tensor, whole: bool, plain: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a sigma: means over images; `_error` is the standard error over draws, or over Hutchinson's vectors."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(x_BD.shape, generator=generator, dtype=torch.float64)

    base = float(squared_jacobian(function, x_BD).detach().mean())
    if whole:
        hessian, half = (float(t.mean()) for t in second_order_whole(function, x_BD))
        errors = (0.0, 0.0)
    else:
        found = torch.stack(
            [torch.stack(second_order(function, x_BD, draw().sign())).mean(1) for _ in range(plain["vectors"])]
        )
        hessian, half = found.mean(0).tolist()
        errors = tuple((found.std(0) / math.sqrt(len(found))).tolist())
    epsilons = [draw() for _ in range(plain["draws"])]
    rows = []
    for sigma in plain["sigmas"]:
        noisy = torch.stack([noisy_norm(function, x_BD, sigma, epsilon).mean() for epsilon in epsilons])
        row = {"network": name, "whole": whole, "sigma": sigma, "jacobian": base, "added": float(noisy.mean()) - base}
        row |= {"added_error": float(noisy.std() / math.sqrt(len(noisy)))}
        row |= {"hessian": hessian, "hessian_error": errors[0], "second": half, "second_error": errors[1]}
        rows.append(row)
    return rows
