"""Weight noise as a gradient penalty (Deep Learning, section 7.5) measured: what noise on the weights adds to the squared error of
networks before and after training, and how flat the solutions are that noise, its penalty and plain training find.

Everything is measured in fp64 on training images. `eta` is the noise's variance.

Axes: V directions of weight space, B samples, N values of t = sqrt(eta).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hydra
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from noise_reg.artefacts import MEASURED
from noise_reg.cli.reproduce import run_provenance
from noise_reg.config import Job, read_job, read_runtime, read_study
from noise_reg.errors import UserError
from noise_reg.limits import IMAGES, REPEATED, check_count
from noise_reg.pipeline import Pipeline
from noise_reg.place import deliver, read_place, study_context
from noise_reg.prepare import TrainingData
from noise_reg.regularizers.derivatives import representations, weight_gradient_norm
from noise_reg.spec import CONVOLUTIONAL, ArchSpec, SpecError
from noise_reg.theory.weight_noise import Directions, Network
from noise_reg.train import new_stack, run_epoch

CHUNK = 16  # directions a pass
METHODS = {  # beside plain training; of the noise one draw a sample (the text's 'with each input presentation') or a mini-batch
    "penalty": ["regularizer=weight_penalty", "regularizer.weight_penalty={eta}"],
    "noise per sample": [
        "regularizer=weight_noise",
        "regularizer.weight_noise={eta}",
        "reading.weight_noise_draw=sample",
    ],
    "noise per mini-batch": [
        "regularizer=weight_noise",
        "regularizer.weight_noise={eta}",
        "reading.weight_noise_draw=batch",
    ],
}
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Solution:
    """One run of the comparison: how it was trained, its method, its eta (0: plain) and its job."""

    training: str
    method: str
    eta: float
    job: Job

    @property
    def facts(self) -> dict[str, Any]:
        return {"training": self.training, "method": self.method, "eta": self.eta, "seed": self.job.spec.seed}


def study(cfg: DictConfig) -> None:
    """Trains the networks, measures them and draws results/weight_noise."""
    plain, place = read_study(cfg), read_place(cfg, "weight_noise")
    check(plain)
    pipeline = Pipeline(read_runtime(cfg))
    networks = {name: composed(pipeline, plain, own) for name, own in plain["networks"].items()}
    solutions = [
        Solution(training, method, eta, with_seed(composed(pipeline, plain, [*common, *own]), seed))
        for training, common in plain["trainings"].items()
        for method, eta, own in lines(plain["strengths"])
        for seed in range(plain["seeds"])
    ]
    data = pipeline.data(solutions[0].job.spec)
    if plain["images"] > len(data.x):
        raise SpecError(f"images = {plain['images']}: must be at most the {len(data.x)} training images")
    pipeline.complete([one.job for one in solutions], group="weight_noise", tags=["weight_noise"])
    tables: dict[str, Rows] = {"expansion": [], "moments": [], "runs": [], "flatness": [], "lines": []}
    total = len(networks) * len(plain["epochs"]) + len(solutions)
    with tqdm(total=total, unit="measurement", desc="measuring", dynamic_ncols=True) as bar:
        for name, job in networks.items():
            for epoch, network in moments(job, data, plain):
                bar.set_postfix_str(f"{name}, epoch {epoch}", refresh=True)
                at = {"network": name, "epoch": epoch}
                moment, rows = expansion(network, plain)
                tables["moments"].append(at | moment)
                tables["expansion"] += [at | row for row in rows]
                bar.update()
        for one in solutions:
            bar.set_postfix_str(
                f"{one.training}, {one.method}, η = {one.eta:g}, seed {one.job.spec.seed}", refresh=True
            )
            run, found = solution(one, pipeline, data, plain)
            tables["runs"].append(one.facts | run)
            if found is not None:
                tables["flatness"] += [one.facts | row for row in flatness(found, plain)]
                if one.job.spec.seed == 0:
                    tables["lines"] += [one.facts | row for row in along(found, plain)]
            bar.update()
    context = run_provenance(solutions[0].job.spec, pipeline)
    context |= study_context(plain, place)
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    deliver(MEASURED["weight_noise"], frames, context, place)


def check(plain: dict[str, Any]) -> None:
    for name, least in (
        ("images", 2),
        ("draws", 8),
        ("probe_draws", 8),
        ("directions", 2),
        ("points", 3),
        ("seeds", 3),
    ):
        check_count(name, plain[name], least, IMAGES if name == "images" else REPEATED)
    for name, least in (("etas", 4), ("strengths", 1), ("probes", 2)):
        values = plain[name]
        numbers = isinstance(values, list) and all(type(v) in (int, float) and 0 < v < math.inf for v in values)
        if not numbers or len(values) < least or values != sorted(set(values)):
            raise SpecError(f"{name} = {values}: must be a rising list of at least {least} finite numbers above 0")
    if missing := [eta for eta in plain["strengths"] if eta not in plain["probes"]]:
        raise SpecError(f"probes = {plain['probes']}: must hold {missing[0]:g}, one of strengths")
    epochs = plain["epochs"]
    whole = isinstance(epochs, list) and epochs and all(type(e) is int and e >= 0 for e in epochs)
    if not whole or epochs != sorted(set(epochs)):
        raise SpecError(f"epochs = {epochs}: must be a rising list of whole numbers of at least 0")
    if type(plain["reach"]) not in (int, float) or not 0 < plain["reach"] < math.inf:
        raise SpecError(f"reach = {plain['reach']}: must be a finite number above 0")
    for name in ("networks", "trainings"):
        if not plain[name]:
            raise SpecError(f"{name}: at least one must be given")


def composed(pipeline: Pipeline, plain: dict[str, Any], own: list[str]) -> Job:
    """A training that is not evaluated further. Raises SpecError where the expansion says nothing of it."""
    job = read_job(hydra.compose("train", overrides=[*plain["overrides"], *own]))
    spec = job.spec
    if spec.reading.loss != "squared":
        raise SpecError(f"reading.loss = {spec.reading.loss}: must be squared, the loss that the expansion is of")
    if spec.arch.name in CONVOLUTIONAL:
        raise SpecError(f"arch.name = {spec.arch.name}: must be a dense network: none of {', '.join(CONVOLUTIONAL)}")
    return dataclasses.replace(job, evaluations=(), runtime=pipeline.runtime)


def with_seed(job: Job, seed: int) -> Job:
    return dataclasses.replace(job, spec=job.spec.replace(seed=seed))


def lines(strengths: list[float]) -> list[tuple[str, float, list[str]]]:
    """(method, eta, overrides) of what is compared; plain training has no eta."""
    found: list[tuple[str, float, list[str]]] = [("plain", 0.0, ["regularizer=none"])]
    for eta in strengths:
        found += [(method, eta, [one.format(eta=eta) for one in own]) for method, own in METHODS.items()]
    return found


def moments(job: Job, data: TrainingData, plain: dict[str, Any]) -> Iterator[tuple[int, Network]]:
    """The network of `job` at the end of each of `epochs`; 0 is before the first step."""
    stack = new_stack([job.spec], data)
    for epoch in range(plain["epochs"][-1] + 1):
        if epoch:
            run_epoch(stack, data)
            stack.epoch = epoch
        if not all(parameter.isfinite().all() for parameter in stack.model.parameters()):
            raise UserError(f"networks: {job.spec.arch.name} diverged by epoch {epoch}. Remedy: a lower learning rate")
        if epoch in plain["epochs"]:
            yield epoch, network_of(stack.weights(0), job.spec.arch, data, plain["images"])


def network_of(weights: Mapping[str, np.ndarray], arch: ArchSpec, data: TrainingData, images: int) -> Network:
    """A copy in fp64 with so many training images, so that measuring neither disturbs the training nor rounds."""

    def part(name: str) -> tuple[Tensor, ...]:
        layers = range(len(arch.widths) + 1)
        return tuple(torch.from_numpy(np.array(weights[f"layers.{n}.{name}"])).double() for n in layers)

    targets_BK = F.one_hot(data.y[:images].cpu(), data.classes).double()
    return Network(part("weight"), part("bias"), arch.activation, data.x[:images].double().cpu(), targets_BK)


def draws(network: Network, count: int) -> Iterator[Directions]:
    """So many directions, a chunk at a time; networks of one shape get the same."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, count, CHUNK):
        yield network.directions(min(CHUNK, count - first), generator)


def gathered(network: Network, count: int, measure: Callable[[Directions], Tensor]) -> Tensor:
    """`measure` (..., V of a chunk) over so many directions: (..., count)."""
    return torch.cat([measure(chunk) for chunk in draws(network, count)], dim=-1)


def penalty(network: Network) -> Tensor:
    """P (B,), the sum over outputs of |grad_W y_k|^2, in closed form."""
    weights, biases = ([one[None] for one in part] for part in (network.weights, network.biases))
    h = representations(weights, biases, network.activation, network.x_BI[None])
    return weight_gradient_norm(weights, h, network.activation)[0]


def estimate(name: str, values_V: Tensor) -> dict[str, float]:
    """A mean over draws and its standard error."""
    return {name: float(values_V.mean()), f"{name}_error": float(values_V.std()) / math.sqrt(len(values_V))}


def terms(chunk: Directions) -> Tensor:
    """Of each direction (3, V), means over the batch: the spread |xi grad y|^2, the shift a xi^T H xi, the cross term a xi grad y."""
    first_VBK, second_VBK = chunk.jet()
    a_BK = chunk.network.errors()
    found = (first_VBK.square(), a_BK * second_VBK, a_BK * first_VBK)
    return torch.stack([one.sum(2).mean(1) for one in found])


def expansion(network: Network, plain: dict[str, Any]) -> tuple[dict[str, Any], Rows]:
    """What the closed form says of a network beside its Monte Carlo means; and by eta what the noise adds to the loss, with what
    the expansion leaves of it: `rest_1` after eta P, `rest_2` after eta (P + L). `rest_2` is the mean of what each direction's own
    terms leave of its own pair, and `rest_1` is that and eta L, which is known: the draw's noise in terms of known mean is left out."""
    t_N = [math.sqrt(eta) for eta in plain["etas"]]
    found = gathered(network, plain["draws"], lambda one: torch.cat([terms(one), *one.added(t_N)]))
    spread_V, shift_V, cross_V = found[:3]
    shifts_NV, spreads_NV = found[3:].unflatten(0, (2, -1))
    a_BK = network.errors()
    P, L = float(penalty(network).mean()), float((a_BK * network.laplacian()).sum(1).mean())
    error = float(a_BK.square().sum(1).mean())
    first_layer = float(network.x_BI.square().sum(1).mean()) + 1
    moment = {
        "parameters": network.parameters,
        "loss": error,
        "penalty": P,
        "curvature": L,
        **estimate("curvature_drawn", shift_V),
        **estimate("square", spread_V / P),
        **estimate("cross", cross_V / math.sqrt(error * P)),
        "draws": plain["draws"],
    }
    bent = network.activation == "relu" and len(network.weights) == 2  # its units' mean shift has a closed form
    rows = []
    for eta, shift, spread in zip(plain["etas"], shifts_NV, spreads_NV, strict=True):
        rest = estimate("rest_2", shift + spread - eta * (spread_V + shift_V))
        rows.append(
            {
                "eta": eta,
                "z_variance": eta * first_layer,
                **estimate("added", shift + spread),
                "penalty": eta * P,
                "curvature": eta * L,
                **estimate("shift", shift),
                "kinks": float(network.kinks(eta).mean()) if bent else math.nan,
                "rest_1": eta * L + rest["rest_2"],
                **rest,
                "draws": plain["draws"],
            }
        )
    return moment, rows


def solution(
    one: Solution, pipeline: Pipeline, data: TrainingData, plain: dict[str, Any]
) -> tuple[dict[str, Any], Network | None]:
    """Of a stored run its test error in percent and what its network is on the training images; None if it diverged."""
    record = pipeline.store.read_record(one.job.spec.key)
    run = {"key": one.job.spec.key, "status": record["status"], "epochs": record["epochs"]}
    run["test_error"] = 100 * (1 - record["test_accuracy"])
    if record["status"] != "completed":
        return run | dict.fromkeys(("loss", "penalty", "curvature", "gradient_norm"), math.nan), None
    network = network_of(pipeline.store.weights(one.job.spec.key), one.job.spec.arch, data, plain["images"])
    a_BK = network.errors()
    run |= {"loss": float(a_BK.square().sum(1).mean()), "penalty": float(penalty(network).mean())}
    run |= {"curvature": float((a_BK * network.laplacian()).sum(1).mean()), "gradient_norm": network.gradient_norm()}
    return run, network


def flatness(network: Network, plain: dict[str, Any]) -> Rows:
    """By the probe's eta what noise adds to the loss of a network, on the same directions for every run."""
    t_N = [math.sqrt(eta) for eta in plain["probes"]]
    found_NV = gathered(network, plain["probe_draws"], lambda one: torch.stack(one.added(t_N)).sum(0))
    return [{"probe": eta, **estimate("added", values)} for eta, values in zip(plain["probes"], found_NV, strict=True)]


def along(network: Network, plain: dict[str, Any]) -> Rows:
    """The loss on lines through a network, t its distance in standard deviations a weight: the mean over directions at +-t is the
    loss under noise of variance t^2."""
    t_N = np.linspace(-plain["reach"], plain["reach"], plain["points"]).tolist()
    found_NV = gathered(network, plain["directions"], lambda one: one.losses(t_N))
    return [
        {"direction": v, "t": t, "loss": loss}
        for t, row in zip(t_N, found_NV.tolist(), strict=True)
        for v, loss in enumerate(row)
    ]
