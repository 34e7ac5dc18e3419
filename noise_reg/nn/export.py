"""One replica as a plain torch module on pixels, for any attack library or notebook, and back into a stack."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noise_reg.data import Standardizer
from noise_reg.nn.architectures import DTYPES, StackedModel
from noise_reg.nn.convolution import BATCH_NORM
from noise_reg.spec import RunSpec, parse

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}
STANDARDIZER = "standardizer."  # prefix of the stored first layer's mean and scale


def standardizer_of(weights: Mapping[str, np.ndarray]) -> Standardizer:
    mean, scale = (torch.from_numpy(np.array(weights[STANDARDIZER + name])) for name in ("mean", "scale"))
    return Standardizer(mean, scale)


def plain_model(spec: Mapping[str, Any], weights: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> nn.Module:
    """Logits (B, K) of pixels (B, C, H, W) in [0, 1]; in evaluation mode, noise nodes off, standardising first."""
    run = parse(RunSpec, spec)
    layers: OrderedDict[str, nn.Module] = OrderedDict(standardize=standardizer_of(weights))
    for block in range(len(run.arch.convolutions)):
        layers |= convolution_block(run, weights, block)
    layers["flatten"] = nn.Flatten()
    dense = len(run.arch.widths) + 1
    for layer in range(dense):
        weight, bias = (torch.from_numpy(np.array(weights[f"layers.{layer}.{part}"])) for part in ("weight", "bias"))
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers[f"dense_{layer}"] = linear
        if layer < dense - 1:
            layers[f"{run.arch.activation}_{layer}"] = ACTIVATIONS[run.arch.activation]()
    return nn.Sequential(layers).eval()


def convolution_block(run: RunSpec, weights: Mapping[str, np.ndarray], block: int) -> OrderedDict[str, nn.Module]:
    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(weights[name]))

    weight = tensor(f"convolutions.{block}.weight")
    outputs, channels, kernel, _ = weight.shape
    convolution = nn.Conv2d(channels, outputs, kernel, dtype=weight.dtype)
    convolution.load_state_dict({"weight": weight, "bias": tensor(f"convolutions.{block}.bias")})
    norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM[run.reading.batch_norm][1], dtype=weight.dtype)
    names = ("weight", "bias", "running_mean", "running_var")
    norm.load_state_dict({name: tensor(f"norms.{block}.{name}") for name in names}, strict=False)
    before = (kernel - 1) // 2 if run.arch.padding == "same" else 0
    after = kernel - 1 - before if run.arch.padding == "same" else 0
    return OrderedDict(
        {
            f"pad_{block}": nn.ZeroPad2d((before, after, before, after)),
            f"convolution_{block}": convolution,
            f"activation_{block}": nn.ReLU() if run.arch.name == "vgg" else nn.ELU(),
            f"norm_{block}": norm,
        }
        | ({f"pool_{block}": nn.MaxPool2d(2)} if run.arch.convolutions[block].pooled else {})
    )


def stacked_model(
    specs: Sequence[RunSpec], weights: Sequence[Mapping[str, np.ndarray]], image: tuple[int, int, int], classes: int
) -> StackedModel:
    """The stack of stored runs for evaluation, on the CPU: noise nodes are off there and left out."""
    seeds_R = torch.tensor([spec.seed for spec in specs])
    model = StackedModel(specs[0].arch, specs[0].reading, image, classes, seeds_R, [], DTYPES[specs[0].precision])
    names = model.state_dict()
    model.load_state_dict({name: torch.stack([torch.from_numpy(np.array(w[name])) for w in weights]) for name in names})
    return model.requires_grad_(False)  # an attack's gradient is by the images alone
