"""What Figs 1, 4 and 5 of the NINR paper are drawn from: a trained boundary in two dimensions, and networks with their nodes.

Axes: N points, R replicas (1).
"""

from __future__ import annotations

import datetime
from typing import Any

import hydra
import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from sklearn.datasets import make_moons  # type: ignore[import-untyped]
from torch import Tensor

from noise_reg.artefacts import MEASURED
from noise_reg.checkout import commit
from noise_reg.config import read_job
from noise_reg.data import Standardizer, load
from noise_reg.limits import check_count
from noise_reg.losses import LOSSES
from noise_reg.nn import CLEAN, DTYPES, StackedModel, depth
from noise_reg.place import deliver, of_measurement, read_place
from noise_reg.prepare import TrainingData
from noise_reg.regularizers import node_layers
from noise_reg.spec import RunSpec
from noise_reg.train import new_stack, train


def draw(cfg: DictConfig) -> None:
    """Trains the small network, looks at the large ones and draws results/drawings."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    check_count("points", plain["points"], 20)
    place = read_place(cfg, "drawings", ())
    tables = {**boundary(plain), "layers": layers(plain), "mask": mask(plain)}
    context = {
        "preset": place.preset_in_words,
        "dataset": "two moons",
        "below_paper_scale": "",
        "settings": of_measurement(plain),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    deliver(MEASURED["drawings"], tables, context, place)


def spec_of(overrides: list[str]) -> RunSpec:
    return read_job(hydra.compose("train", overrides=overrides)).spec


def moons(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, 2) and labels (N,)."""
    x, y = make_moons(count, noise=0.08, random_state=seed)
    return torch.from_numpy(x).float(), torch.from_numpy(y).long()


def boundary(plain: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Training and test points, one point's way up its loss, and the trained network's probability of class 1 on a grid."""
    spec = spec_of(plain["two_dimensions"])
    x, y = moons(plain["points"], plain["seed"])
    test_x, test_y = moons(plain["points"] // 2, plain["seed"] + 1)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    image, identity = (1, 1, 2), Standardizer(0 * one, one)
    data = TrainingData(x, y, test_x, test_x, test_y, image, 2, identity, {})
    stack = new_stack([spec], data)
    for _ in train(stack, data):
        pass
    model = stack.model
    side = torch.linspace(-1.8, 2.8, plain["grid"])
    other = torch.linspace(-1.4, 1.9, plain["grid"])
    mesh = torch.cartesian_prod(side, other)
    with torch.no_grad():
        probability = model(mesh[None], CLEAN)[0].softmax(1)[:, 1]
    chosen = int((x - torch.tensor([0.0, 1.0])).square().sum(1).argmin())
    path = attack(model, x[chosen], y[chosen])
    frames = [
        pd.DataFrame({"kind": "train", "x": x[:, 0], "y": x[:, 1], "label": y}),
        pd.DataFrame({"kind": "test", "x": test_x[:, 0], "y": test_x[:, 1], "label": test_y}),
        pd.DataFrame({"kind": "attack", "x": path[:, 0], "y": path[:, 1], "label": int(y[chosen])}),
    ]
    grid = pd.DataFrame({"x": mesh[:, 0], "y": mesh[:, 1], "probability": probability})
    return {"points": pd.concat(frames, ignore_index=True), "grid": grid}


def attack(model: StackedModel, x: Tensor, y: Tensor, step: float = 0.04, most: int = 60) -> Tensor:
    """Steps up the gradient of the loss from `x` until the network errs, (steps, 2)."""
    path = [x]
    for _ in range(most):
        z = path[-1].view(1, 1, 2).clone().requires_grad_()
        logits = model(z, CLEAN)
        if int(logits.argmax()) != int(y):
            break
        (grad,) = torch.autograd.grad(LOSSES["exact"](logits, y.view(1, 1)).sum(), z)
        path.append((z + step * grad / grad.norm().clamp(min=1e-12)).detach()[0, 0])
    return torch.stack(path)


def layers(plain: dict[str, Any]) -> pd.DataFrame:
    """One row a layer of each network: its kind, what goes in and out, and its node's weights, as the model objects have them."""
    rows = []
    for name, overrides in plain["topologies"].items():
        spec = spec_of(overrides)
        where = node_layers(spec.arch, spec.reading, [spec.strengths], depth(spec.arch))
        seeds_R = torch.tensor([spec.seed])
        model = StackedModel(spec.arch, spec.reading, (1, 28, 28), 10, seeds_R, where, DTYPES[spec.precision])
        modules = [("convolution", m) for m in model.convolutions] + [("dense", m) for m in model.layers]
        for layer, (kind, module) in enumerate(modules):
            weight = module.get_parameter("weight")
            node = str(layer) in model.nodes
            niw = tuple(model.nodes[str(layer)].get_parameter("weight").shape[1:]) if node else ()
            shape = " × ".join(map(str, niw))
            rows.append(
                {
                    "network": name,
                    "layer": layer,
                    "kind": kind,
                    "inputs": weight.shape[2],
                    "outputs": weight.shape[1],
                    "node": shape,
                }
            )
    return pd.DataFrame(rows)


def mask(plain: dict[str, Any]) -> pd.DataFrame:
    """A digit and the initial pixel-wise W_NI of a small CNN, pixel by pixel."""
    spec = spec_of(plain["mask"])
    digits = load("digits", None, False)
    image = digits.test_images[0]
    shape = (1, int(image.shape[1]), int(image.shape[2]))
    model = StackedModel(spec.arch, spec.reading, shape, 10, torch.tensor([spec.seed]), [0], DTYPES[spec.precision])
    niw = model.nodes["0"].get_parameter("weight").detach()[0, 0]
    rows, columns = np.indices(shape[1:])
    return pd.DataFrame(
        {
            "row": rows.ravel(),
            "column": columns.ravel(),
            "level": image[0].flatten().numpy(),
            "w_ni": niw.flatten().numpy(),
        }
    )
