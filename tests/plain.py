"""A small made-up problem, and one replica of it in plain PyTorch as the paper's text says: the slow path that proves the
stack. Nothing here is stacked: torch.nn modules, autograd and torch.optim.SGD, with the numbers of one seed's streams.

Axes: B samples a batch, C channels, H and W height and width, N samples, K classes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise_reg.data import Dataset
from noise_reg.prepare import TrainingData, prepare
from noise_reg.regularizers.penalties import JACOBIAN_LANE
from noise_reg.regularizers.places import INPUT_LANE
from noise_reg.spec import RunSpec, Strengths, parse
from noise_reg.streams import Purpose, keep_mask, normal, permutation

HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {"tanh_mlp": torch.tanh, "linear": lambda z: z}
IMAGE, CLASSES = (2, 8, 8), 4
TRAIN_IMAGES, TEST_IMAGES, BATCH = 43, 24, 8  # 5 mini-batches an epoch; 3 samples of each epoch's order are left out
ARCHS: dict[str, dict[str, Any]] = {
    "fc": {"name": "fc", "widths": [7, 5], "filters": [], "kernel": 0, "padding": "none"},
    "tanh_mlp": {"name": "tanh_mlp", "widths": [7, 5], "filters": [], "kernel": 0, "padding": "none"},
    "linear": {"name": "linear", "widths": [7, 5], "filters": [], "kernel": 0, "padding": "none"},
    "cnn": {"name": "cnn", "widths": [6], "filters": [2, 3], "kernel": 2, "padding": "same"},
    "vgg": {
        "name": "vgg",
        "widths": [6],
        "filters": [2, 3],
        "kernel": 3,
        "padding": "same",
        "dropouts": [0.2, 0.3],
        "conv_decay": 0.1,
    },
}
OPTIMIZERS: dict[str, dict[str, float]] = {
    "sgd": {},
    "rmsprop": {"rho": 0.9, "epsilon": 1e-7},
    "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
}
OFF = {field.name: 0.0 for field in dataclasses.fields(Strengths)}
READING = {
    "standardize": "std",
    "standardize_per": "global",
    "loss": "clamped",
    "batch_norm": "keras",
    "conv_fan_in": "patch",
    "train_fraction": 1.0,
    "stop_measure": "running",
    "l2_on": "weights",
    "l2_form": "half",
    "dropout_input": False,
    "full_noise": "each",
    "output_nin": True,
    "noise_redraw": "epoch",
}


def made_spec(
    arch: str,
    *,
    seed: int = 1,
    strengths: Mapping[str, float] | None = None,
    reading: Mapping[str, Any] | None = None,
    geometry: Mapping[str, Any] | None = None,
    precision: str = "fp64",
    max_epochs: int = 4,  # 20 steps
    stop_accuracy: float = 1.0,
    learning_rate: float = 0.05,
    optimizer: str = "sgd",
) -> RunSpec:
    """A run on the made-up problem: these strengths (the others off), changes to the reading and to the architecture."""
    return parse(
        RunSpec,
        {
            "dataset": {"name": "digits", "split_seed": 0},
            "arch": ARCHS[arch] | dict(geometry or {}),
            "strengths": OFF | dict(strengths or {}),
            "optimizer": {
                "name": optimizer,
                "learning_rate": learning_rate,
                "batch_size": BATCH,
                **OPTIMIZERS[optimizer],
            },
            "reading": READING | dict(reading or {}),
            "max_epochs": max_epochs,
            "stop_accuracy": stop_accuracy,
            "precision": precision,
            "seed": seed,
        },
    )


def made_data(spec: RunSpec) -> TrainingData:
    """Images of two channels: a pattern for each class under so much noise that a small network learns it in some epochs."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 256, (CLASSES, *IMAGE))

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = rng.integers(0, CLASSES, count)
        images = 0.4 * pattern[labels] + 0.6 * rng.integers(0, 256, (count, *IMAGE))
        return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)

    (train, train_labels), (test, test_labels) = draw(TRAIN_IMAGES), draw(TEST_IMAGES)
    provenance = {"source": "made", "file": "none"}
    dataset = Dataset("made", train, test, train_labels, test_labels, CLASSES, provenance)
    return prepare(dataset, spec, torch.device("cpu"))


class Draws:
    """The numbers of one seed, as its streams give them to a stack of one."""

    def __init__(self, spec: RunSpec) -> None:
        self.seed, self.spec = torch.tensor([spec.seed]), spec

    def normal(self, purpose: Purpose, shape: Sequence[int], lane: int, step: int = 0, epoch: int = 0) -> Tensor:
        count = int(np.prod(shape))
        return normal(self.seed, purpose, count, lane=lane, step=step, epoch=epoch)[0].view(*shape).double()

    def order(self, epoch: int) -> Tensor:
        return permutation(self.seed, TRAIN_IMAGES, epoch=epoch)[0]

    def epsilon(self, layer: int, epoch: int, order: Tensor) -> Tensor:
        """Of the samples in `order`, before sigma_epsilon: 'initialized randomly per sample at each training epoch'."""
        lane = 0 if self.spec.reading.full_noise == "shared" else layer
        if self.spec.reading.noise_redraw == "once":
            return self.normal(Purpose.NODE, (TRAIN_IMAGES,), lane, step=1)[order]
        return self.normal(Purpose.NODE, (len(order),), lane, epoch=epoch)

    def keep(self, h: Tensor, layer: int, step: int, epoch: int, own: float = 0.0) -> Tensor:
        """Of the regulariser's dropout, or of the architecture's `own`."""
        drop = torch.tensor([own or self.spec.strengths.dropout])
        lane, purpose = (layer, Purpose.ARCH_DROPOUT) if own else (layer + 1, Purpose.DROPOUT)
        keep = keep_mask(self.seed, drop, h.numel(), lane=lane, step=step, epoch=epoch, purpose=purpose)[0]
        if h.dim() == 2:
            return keep.view_as(h)
        return keep.view(len(h), *h.shape[2:], h.shape[1]).permute(0, 3, 1, 2)  # drawn with channels last


@dataclasses.dataclass
class StepNoise:
    """What one training step draws for one replica; `order` are the samples that the epoch uses, in their order."""

    draws: Draws
    epoch: int
    step: int
    order: Tensor

    def epsilon(self, layer: int) -> Tensor:
        strengths = self.draws.spec.strengths
        sigma = strengths.nin_hidden if layer else strengths.nin_input
        epsilon = self.draws.epsilon(layer, self.epoch, self.order)
        return sigma * epsilon[self.step * BATCH : (self.step + 1) * BATCH]

    def dropout(self, h: Tensor, layer: int) -> Tensor:
        p = self.draws.spec.strengths.dropout
        return torch.where(self.draws.keep(h, layer, self.step, self.epoch), h / (1 - p), 0.0) if p else h

    def own_dropout(self, h: Tensor, layer: int, p: float) -> Tensor:
        return torch.where(self.draws.keep(h, layer, self.step, self.epoch, p), h / (1 - p), 0.0)

    def input(self, x: Tensor) -> Tensor:
        sigma = self.draws.spec.strengths.cdt
        if sigma:
            delta = self.draws.normal(Purpose.CDT, x.shape, 0, self.step, self.epoch)
            x = np.sqrt(1 - sigma**2) * x + sigma * delta  # Eq. 8
        if sigma := self.draws.spec.strengths.input_noise:
            x = x + sigma * self.draws.normal(Purpose.NODE, x.shape, INPUT_LANE, self.step, self.epoch)
        return self.dropout(x, -1) if self.draws.spec.reading.dropout_input else x

    def product(self, z: Tensor, x: Tensor, layer: int) -> Tensor:
        """Weight noise of one draw a sample: that of W x + b is normal, of variance eta (|x|^2 + 1)."""
        spec = self.draws.spec
        if not spec.strengths.weight_noise or spec.reading.weight_noise_draw != "sample":
            return z
        xi = self.draws.normal(Purpose.WEIGHT_NOISE, z.shape, layer, self.step, self.epoch)
        return z + xi * (spec.strengths.weight_noise * (x.square().sum(1, keepdim=True) + 1)).sqrt()

    def weights(self, net: PlainNet) -> list[tuple[Tensor, Tensor]]:
        """Weight noise of one draw a mini-batch: (the numbers of a parameter, their noise)."""
        spec, found = self.draws.spec, []
        if spec.strengths.weight_noise and spec.reading.weight_noise_draw == "batch":
            blocks = len(net.convolutions)
            for lane in range(blocks + len(net.dense)):
                kind = f"convolutions.{lane}" if lane < blocks else f"layers.{lane - blocks}"
                for address, part in ((2 * lane, "weight"), (2 * lane + 1, "bias")):
                    value = net.parts()[f"{kind}.{part}"].detach()
                    xi = self.draws.normal(Purpose.WEIGHT_NOISE, value.shape, address, self.step, self.epoch)
                    found.append((value, np.sqrt(spec.strengths.weight_noise) * xi))
        return found

    def derivative_penalty(self, net: PlainNet, x: Tensor) -> Tensor:
        """lambda |J|^2 and eta |grad_W y|^2, means over the batch, output by output with autograd's own second derivatives."""
        spec, total = self.draws.spec, torch.zeros((), dtype=torch.float64)
        if spec.strengths.jacobian:
            noise = spec.strengths.jacobian_noise * self.draws.normal(
                Purpose.NODE, x.shape, JACOBIAN_LANE, self.step, self.epoch
            )
            z = (x + noise).requires_grad_()
            out = net(z.view(-1, *IMAGE), None, spec.reading.jacobian_layer)
            ends: Tensor | None = None
            if spec.reading.jacobian_estimator == "hutchinson":
                shape = (spec.reading.jacobian_directions, z.shape[1])
                ends = self.draws.normal(Purpose.DIRECTION, shape, 0, self.step, self.epoch).sign().T
            if spec.reading.jacobian_estimator == "projection":
                count, ends_of = spec.reading.jacobian_directions, out.shape[1]
                v = self.draws.normal(Purpose.DIRECTION, (len(x), count, ends_of), 0, self.step, self.epoch)
                v = v / v.norm(dim=2, keepdim=True)
                rows, scale = [(out * v[:, n]).sum() for n in range(count)], ends_of / count
            else:
                rows = [out[:, k].sum() for k in range(out.shape[1])]
                scale = 1.0 if ends is None else 1 / ends.shape[1]
            found = [torch.autograd.grad(row, z, create_graph=True)[0] for row in rows]
            squares = [(row if ends is None else row @ ends).square().sum() for row in found]
            total = total + spec.strengths.jacobian * scale * sum(squares) / len(x)
        if spec.strengths.weight_penalty:
            out, layers = net(x.view(-1, *IMAGE), None), list(net.dense.parameters())
            for one in out.flatten():
                for grad in torch.autograd.grad(one, layers, create_graph=True):
                    total = total + spec.strengths.weight_penalty * grad.square().sum() / len(x)
        return total


class PlainNet(nn.Module):
    """One replica. A node in front of a dense layer is 'an additional noisy pixel' of its input, so a column of its weight."""

    def __init__(self, spec: RunSpec, draws: Draws) -> None:
        super().__init__()
        arch, reading, strengths = spec.arch, spec.reading, spec.strengths
        vgg = arch.name == "vgg"
        convolutions = [f for f in arch.filters for _ in range(2 if vgg else 1)]
        self.pools = [not vgg or n % 2 == 1 for n in range(len(convolutions))]
        self.own_drops = [arch.dropouts[n // 2] if vgg and n % 2 else 0.0 for n in range(len(convolutions))]
        self.activation = F.relu if vgg else F.elu
        self.hidden_activation = HIDDEN.get(arch.name, F.relu)
        depth = len(convolutions) + len(arch.widths) + 1
        hidden = range(1, depth if reading.output_nin else depth - 1) if strengths.nin_hidden else []
        self.node_layers = [*([0] if strengths.nin_input else []), *hidden]
        self.convolutions, self.norms, self.dense = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.niw = nn.ParameterDict()  # of convolutions: the pixel-wise masks
        shape = torch.Size(IMAGE)
        for layer, filters in enumerate(convolutions):
            if layer in self.node_layers:
                niw = draws.normal(Purpose.NOISE_WEIGHTS, shape, layer) / np.sqrt(shape.numel())
                self.niw[str(layer)] = nn.Parameter(niw)
            channels = shape[0]
            convolution = nn.Conv2d(channels, filters, arch.kernel, padding=arch.padding)
            fan_in = channels * arch.kernel**2 if reading.conv_fan_in == "patch" else channels
            weight = draws.normal(Purpose.WEIGHTS, convolution.weight.shape, layer) / np.sqrt(fan_in)
            self.convolutions.append(fill(convolution, weight))
            self.norms.append(
                nn.BatchNorm2d(filters, momentum=1 - 0.99, eps=1e-3)
                if reading.batch_norm == "keras"
                else nn.BatchNorm2d(filters)
            )
            image = convolution(torch.zeros(1, *shape, dtype=torch.float64))
            shape = (F.max_pool2d(image, 2) if self.pools[layer] else image).shape[1:]
        sizes = [shape.numel(), *arch.widths, CLASSES]
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=len(convolutions)):
            weight = draws.normal(Purpose.WEIGHTS, (outputs, inputs), layer) / np.sqrt(inputs)
            if layer in self.node_layers:
                niw = draws.normal(Purpose.NOISE_WEIGHTS, (outputs, 1), layer) / np.sqrt(inputs + 1)
                weight = torch.cat([weight, niw], dim=1)
            self.dense.append(fill(nn.Linear(weight.shape[1], outputs), weight))
        self.double()

    def forward(self, x: Tensor, noise: StepNoise | None, hidden: int = 0) -> Tensor:
        """(B, C, H, W) standardised -> logits (B, K), or hidden dense layer 1, 2, ...; without noise epsilon = 0 and nothing is
        dropped."""
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if noise and layer in self.node_layers:
                x = x + noise.epsilon(layer)[:, None, None, None] * self.niw[str(layer)]
            x = norm(self.activation(convolution(x)))
            x = F.max_pool2d(x, 2) if self.pools[layer] else x
            x = noise.own_dropout(x, layer, p) if noise and (p := self.own_drops[layer]) else x
            x = noise.dropout(x, layer) if noise else x
        h, last = x.flatten(1), len(self.convolutions) + len(self.dense) - 1
        for layer, linear in enumerate(self.dense, start=len(self.convolutions)):
            enters = h
            if layer in self.node_layers:
                epsilon = noise.epsilon(layer) if noise else h.new_zeros(len(h))
                h = torch.cat([h, epsilon[:, None]], dim=1)
            h = linear(h)
            h = noise.product(h, enters, layer) if noise else h
            if layer < last:
                h = self.hidden_activation(h)
                h = noise.dropout(h, layer) if noise else h
            if hidden and layer == hidden - 1:
                return h
        return h

    def parts(self) -> dict[str, Tensor]:
        """Every parameter and buffer, a noise column apart from the weight it extends, named as the stack names them."""
        parts: dict[str, Tensor] = {}
        for i, linear in enumerate(self.dense):
            layer, weight = i + len(self.convolutions), linear.get_parameter("weight")
            parts[f"layers.{i}.bias"] = linear.get_parameter("bias")
            node = layer in self.node_layers
            parts[f"layers.{i}.weight"] = weight[:, :-1] if node else weight
            if node:
                parts[f"nodes.{layer}.weight"] = weight[:, -1]
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            parts |= {f"convolutions.{i}.{name}": value for name, value in convolution.named_parameters()}
            parts |= {f"norms.{i}.{name}": value for name, value in norm.state_dict(keep_vars=True).items()}
            del parts[f"norms.{i}.num_batches_tracked"]
        return parts | {f"nodes.{layer}.weight": niw for layer, niw in self.niw.items()}


def fill(module: nn.Conv2d | nn.Linear, weight: Tensor) -> nn.Module:
    assert module.bias is not None
    module.weight, module.bias = nn.Parameter(weight), nn.Parameter(torch.zeros_like(module.bias))
    return module


def data_loss(loss: str, logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """'exact' as torch has it; 'clamped' as Keras computes it from the softmax; the 'squared' error of the logits themselves."""
    hard = F.one_hot(labels, logits.shape[1]).double()
    targets = hard * (1 - smoothing) + (1 - hard) * smoothing / (logits.shape[1] - 1)
    if loss == "squared":
        return (logits - targets).square().sum(1).mean()
    if loss == "exact":
        return F.cross_entropy(logits, targets)
    p = logits.softmax(1).clamp(1e-7, 1 - 1e-7)
    return -(targets * p.log()).sum(1).mean()


def penalty(net: PlainNet, spec: RunSpec) -> Tensor:
    """lambda/2 |W|^2 or, as Keras' l2 has it, lambda |W|^2, over the parameters that the reading names."""
    total = torch.zeros((), dtype=torch.float64)
    for name, value in net.parts().items():
        kind, part = name.split(".")[0], name.split(".")[-1]
        weights = part == "weight" and kind in ("layers", "convolutions")
        chosen = {"weights": weights, "weights_niw": weights or kind == "nodes", "all": not part.startswith("running")}
        if chosen[spec.reading.l2_on]:
            total = total + value.square().sum() * spec.strengths.weight_decay
        if kind == "convolutions" and part == "weight":
            total = total + value.square().sum() * spec.arch.conv_decay
    return total * {"half": 0.5, "keras": 1.0}[spec.reading.l2_form]


def score(net: PlainNet, loss: str, x: Tensor, y: Tensor) -> tuple[float, float]:
    net.eval()
    with torch.no_grad():
        logits = net(x.view(-1, *IMAGE), None)
    net.train()
    return data_loss(loss, logits, y).item(), (logits.argmax(1) == y).double().mean().item()


def norms(net: PlainNet) -> dict[str, float]:
    parts, blocks = net.parts(), len(net.convolutions)
    weights = [f"convolutions.{i}.weight" for i in range(blocks)] + [
        f"layers.{i}.weight" for i in range(len(net.dense))
    ]
    named = {f"weight_norm_{layer}": parts[name].norm().item() for layer, name in enumerate(weights)}
    return named | {f"nin_norm_{layer}": parts[f"nodes.{layer}.weight"].norm().item() for layer in net.node_layers}


def plain_optimizer(net: PlainNet, spec: RunSpec) -> torch.optim.Optimizer:
    chosen = spec.optimizer
    if chosen.name == "rmsprop":
        return torch.optim.RMSprop(net.parameters(), lr=chosen.learning_rate, alpha=chosen.rho, eps=chosen.epsilon)
    if chosen.name == "adam":
        betas = (chosen.beta_1, chosen.beta_2)
        return torch.optim.Adam(net.parameters(), lr=chosen.learning_rate, betas=betas, eps=chosen.epsilon)
    return torch.optim.SGD(net.parameters(), lr=chosen.learning_rate)


def plain_run(spec: RunSpec, data: TrainingData) -> tuple[dict[str, Tensor], list[dict[str, float]], list[float]]:
    """Trains for `max_epochs`: the final weights, the history, and the loss of every step."""
    draws, loss = Draws(spec), spec.reading.loss
    net = PlainNet(spec, draws)
    optimizer = plain_optimizer(net, spec)
    test_loss, test_accuracy = score(net, loss, data.test_x, data.test_y)
    history, losses = [{"epoch": 0.0, "test_loss": test_loss, "test_accuracy": test_accuracy} | norms(net)], []
    for epoch in range(spec.max_epochs):
        peaks: dict[str, float] = {}
        order = draws.order(epoch)[: len(data.x) // BATCH * BATCH]
        right, extras = 0, list[float]()
        for step in range(len(order) // BATCH):
            index = order[step * BATCH : (step + 1) * BATCH]
            noise = StepNoise(draws, epoch, step, order)
            if step % 8 == 0 or (epoch == 0 and step < 32):
                peaks = {name: max(value, peaks.get(name, 0.0)) for name, value in norms(net).items()}
            optimizer.zero_grad()
            extra = noise.derivative_penalty(net, data.x[index])
            (extra + penalty(net, spec)).backward()
            extras.append(extra.item())
            weights = [(value, value.clone(), xi) for value, xi in noise.weights(net)]
            for value, _, xi in weights:
                value += xi
            logits = net(noise.input(data.x[index]).view(-1, *IMAGE), noise)
            value = data_loss(loss, logits, data.y[index], spec.strengths.label_smoothing)
            value.backward()
            for perturbed, before, _ in weights:
                perturbed.copy_(before)
            optimizer.step()
            losses.append(value.item())
            right += int((logits.argmax(1) == data.y[index]).sum())
        row = {"epoch": epoch + 1.0, "train_loss": float(np.mean(losses[-(step + 1) :]))}
        row["train_accuracy"] = right / len(order)
        if spec.reading.stop_measure == "clean":
            row["train_accuracy"] = score(net, loss, data.x, data.y)[1]
        row["test_loss"], row["test_accuracy"] = score(net, loss, data.test_x, data.test_y)
        history[0].setdefault("train_loss", losses[0])
        if spec.strengths.jacobian or spec.strengths.weight_penalty:
            row["penalty"] = float(np.mean(extras))
        row |= {f"nin_peak_{layer}": peaks[f"nin_norm_{layer}"] for layer in net.node_layers}
        history.append(row | norms(net))
    return {name: value.detach() for name, value in net.parts().items()}, history, losses
