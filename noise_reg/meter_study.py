"""Section 2.1 of the NINR paper measured: R_k, local gradient and Hessian of a network at its input's node, along training.

Everything is measured in fp64 on training images, with the network as it stands at the end of an epoch.

Axes: R replicas (1), B samples, O numbers of the pre-activation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hydra
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from noise_reg.artefacts import MEASURED
from noise_reg.cli.reproduce import run_provenance, training_facts
from noise_reg.config import Job, read_job, read_runtime, read_study
from noise_reg.limits import IMAGES, REPEATED, check_count
from noise_reg.nn import StackedModel
from noise_reg.nn.export import stacked_model
from noise_reg.pipeline import Pipeline
from noise_reg.place import deliver, read_place, study_context
from noise_reg.prepare import TrainingData
from noise_reg.spec import SpecError
from noise_reg.theory.meters import Meter
from noise_reg.train import Stack, new_stack, run_epoch

LAYER = 0  # the node at the input


@dataclass(frozen=True)
class Moment:
    """A network at the end of an epoch: its name, its noise and the weights behind it (1, O)."""

    name: str
    sigma: float
    epoch: int
    model: StackedModel
    direction: Tensor


def study(cfg: DictConfig) -> None:
    """Trains the networks, measures them and draws results/meters."""
    plain, place = read_study(cfg), read_place(cfg, "meters")
    check(plain)
    pipeline = Pipeline(read_runtime(cfg))
    kinds = ("networks", "linear_networks")
    jobs, linear = (
        {
            name: read_job(hydra.compose("train", overrides=[*plain["overrides"], *own]))
            for name, own in plain[kind].items()
        }
        for kind in kinds
    )
    data = pipeline.data(next(iter(jobs.values())).spec)
    tables: dict[str, list[dict[str, Any]]] = {"course": [], "expansion": [], "batch": [], "spectrum": []}
    total = len(jobs) * len(plain["epochs"])
    with tqdm(total=total, unit="measurement", desc="measuring", dynamic_ncols=True) as bar:
        for name, job in jobs.items():
            for moment in moments(name, job, data, plain["epochs"]):
                bar.set_postfix_str(f"{name}, epoch {moment.epoch}", refresh=True)
                tables["course"].append(course(moment, data, plain))
                if moment.epoch in (plain["epochs"][0], plain["epochs"][-1]):
                    tables["expansion"] += expansion(moment, data, plain)
                    tables["batch"] += by_batch(moment, data, plain)
                    tables["spectrum"] += spectrum(moment, data, plain)
                bar.update()
        for name, job in linear.items():
            for moment in moments(name, job, data, [plain["epochs"][0], plain["epochs"][-1]]):
                tables["spectrum"] += spectrum(moment, data, plain)
    context = run_provenance(next(iter(jobs.values())).spec, pipeline)
    context |= study_context(plain, place)
    context["training"] = [{"arch": job.spec.arch.name, **training_facts(pipeline, job.spec)} for job in jobs.values()]
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    deliver(MEASURED["meters"], frames, context, place)


def check(plain: dict[str, Any]) -> None:
    for name in ("images", "draws", "vectors", "batch", "spectrum_images"):
        check_count(name, plain[name], 2, REPEATED if name in ("draws", "vectors") else IMAGES)
    for name in ("epochs", "batch_sizes", "sigmas"):
        values = plain[name]
        numbers = isinstance(values, list) and values and all(type(v) in (int, float) for v in values)
        if not numbers or values != sorted(set(values)) or values[0] < 0:
            raise SpecError(f"{name} = {values}: must be a rising list of numbers of at least 0")
    if len(plain["batch_sizes"]) < 3 or plain["batch_sizes"][0] < 1:
        raise SpecError(
            f"batch_sizes = {plain['batch_sizes']}: must be at least three numbers of at least 1, for a slope"
        )
    if not plain["networks"]:
        raise SpecError("networks: at least one must be given")


def moments(name: str, job: Job, data: TrainingData, epochs: list[int]) -> Iterator[Moment]:
    """The network of `job` at the end of each of `epochs`; 0 is before the first step."""
    stack = new_stack([job.spec], data, layers=[LAYER])
    for epoch in range(epochs[-1] + 1):
        if epoch:
            run_epoch(stack, data)
            stack.epoch = epoch
        if epoch in epochs:
            yield as_it_stands(name, job.spec.strengths.nin_input, stack, data)


def as_it_stands(name: str, sigma: float, stack: Stack, data: TrainingData) -> Moment:
    """A copy in fp64, so that measuring neither disturbs the training nor rounds."""
    spec = stack.specs[0].replace(precision="fp64")
    model = stacked_model([spec], [stack.weights(0)], data.image, data.classes).double()
    node: Tensor = stack.model.nodes[str(LAYER)].get_parameter("weight")
    return Moment(name, sigma, stack.epoch, model, node.detach().double().cpu())


def meter(moment: Moment, data: TrainingData, count: int, loss: str = "exact", first: int = 0) -> Meter:
    chosen = slice(first, first + count)
    x_RBD, y_RB = data.x[chosen].double().cpu()[None], data.y[chosen].cpu()[None]
    return Meter(moment.model, x_RBD, y_RB, LAYER, loss)


def noise(count: int, sigma: float, seed: int) -> Tensor:
    """(1, count) from a generator of its own."""
    return sigma * torch.randn(1, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def course(moment: Moment, data: TrainingData, plain: dict[str, Any]) -> dict[str, Any]:
    """R_1, R_2 at the training's own noise and batch, and what they are made of; `_sd` over draws, `_error` of Hutchinson's mean."""
    batch = meter(moment, data, plain["batch"])
    terms = [
        batch.terms(noise(plain["batch"], moment.sigma, seed), moment.direction)[:, 0] for seed in range(plain["draws"])
    ]
    first, second = torch.stack(terms).T
    whole = meter(moment, data, plain["images"])
    trace, error = whole.trace(plain["vectors"], torch.Generator().manual_seed(0))
    corrupted, corrupted_error = whole.corrupted_r2(1.0, plain["vectors"], torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = float(whole.losses(None).mean())
    return {
        "network": moment.name,
        "sigma": moment.sigma,
        "epoch": moment.epoch,
        "loss": loss,
        "nin_norm": float(moment.direction.norm()),
        "gradient_norm": float(whole.mean_gradient().norm()),
        "r1_rms": float(first.square().mean().sqrt()),
        "r2": float(second.mean()),
        "r2_sd": float(second.std()),
        "trace": float(trace),
        "trace_error": float(error),
        "corrupted_r2": float(corrupted),
        "corrupted_r2_error": float(corrupted_error),
    }


def expansion(moment: Moment, data: TrainingData, plain: dict[str, Any]) -> list[dict[str, Any]]:
    """Noisy minus clean loss against R_1 + R_2, on the same noise at every size."""
    of = meter(moment, data, plain["images"])
    epsilon = noise(plain["images"], 1.0, 0)
    first, second = of.terms(epsilon, moment.direction)[:, 0].tolist()
    noisy = of.along(epsilon, moment.direction)
    with torch.no_grad():
        clean = float(of.losses(None).mean())
        return [
            {
                "network": moment.name,
                "epoch": moment.epoch,
                "sigma": sigma,
                "added": float(noisy(sigma)) - clean,
                "r1": sigma * first,
                "r2": sigma**2 * second,
            }
            for sigma in plain["sigmas"]
        ]


def by_batch(moment: Moment, data: TrainingData, plain: dict[str, Any]) -> list[dict[str, Any]]:
    """Root mean square over draws and batches of R_1 to R_4 for unit noise, by the batch's size."""
    rows = []
    for batch in plain["batch_sizes"]:
        found = []
        for seed in range(plain["draws"]):
            of = meter(moment, data, batch, first=(seed * batch) % max(1, len(data.x) - batch))
            epsilon = noise(batch, 1.0, seed)
            found.append(of.terms(epsilon, moment.direction, orders=4)[:, 0])
        values = torch.stack(found)
        sizes, errors = values.square().mean(0).sqrt(), values.square().std(0) / math.sqrt(len(found))
        for k in range(4):
            rows.append(
                {
                    "network": moment.name,
                    "epoch": moment.epoch,
                    "batch": batch,
                    "k": k + 1,
                    "rms": float(sizes[k]),
                    "rms_error": float(errors[k] / (2 * sizes[k])),
                }
            )
    return rows


def spectrum(moment: Moment, data: TrainingData, plain: dict[str, Any]) -> list[dict[str, Any]]:
    """The ends of the mean local Hessian's spectrum, for each loss."""
    rows = []
    for loss in ("squared", "exact"):
        eigenvalues = torch.linalg.eigvalsh(meter(moment, data, plain["spectrum_images"], loss).hessian())
        rows.append(
            {
                "network": moment.name,
                "epoch": moment.epoch,
                "loss": loss,
                "lowest": float(eigenvalues.min()),
                "highest": float(eigenvalues.max()),
            }
        )
    return rows
