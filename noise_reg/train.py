"""Training of a stack: one step, one epoch, one loop.

Axes: R replicas, S steps, B samples a batch, N samples, D pixels, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noise_reg.evaluations.clean import clean_scores
from noise_reg.graph import Repeated
from noise_reg.losses import correct, mean_loss_and_gradient
from noise_reg.nn import DTYPES, StackedModel, depth
from noise_reg.optimizers import State, kept, optimizer_of
from noise_reg.precision import arithmetic
from noise_reg.prepare import TrainingData
from noise_reg.regularizers import Penalties, TrainingPlaces, WeightNoise, node_layers, of_step
from noise_reg.spec import RunSpec, SpecError
from noise_reg.streams import permutation
from noise_reg.sums import total


@dataclass
class Outcome:
    """A finished run as the store takes it."""

    spec: RunSpec
    record: dict[str, Any]
    history: list[dict[str, float]]
    weights: dict[str, np.ndarray]


@dataclass
class Books:
    """What the steps of an epoch read, the samples' order and the numbers of step and epoch (1,), and what they write: losses, right
    answers and penalties. A CUDA graph keeps to these tensors: a new epoch changes their contents."""

    order_RN: Tensor
    loss_SR: Tensor
    correct_R: Tensor
    penalty_R: Tensor
    step: Tensor
    epoch: Tensor

    @classmethod
    def of(cls, order_RN: Tensor, steps: int, dtype: torch.dtype) -> Books:
        zeros_R = torch.zeros_like(order_RN[:, 0])
        loss_SR = torch.zeros(steps, len(order_RN), dtype=dtype, device=order_RN.device)
        return cls(order_RN, loss_SR, zeros_R.clone(), zeros_R.double(), zeros_R[:1].clone(), zeros_R[:1].clone())

    def open(self, order_RN: Tensor, epoch: int) -> None:
        self.order_RN.copy_(order_RN)
        self.epoch.fill_(epoch)
        for written in (self.loss_SR, self.correct_R, self.penalty_R, self.step):
            written.zero_()


@dataclass
class Stack:
    """R replicas in training; `histories` and `seconds` have one entry a replica, `epoch` counts the epochs done.
    `by_graph`: steps are taken so that a CUDA graph can hold them; by default on a GPU.

    Of the last epoch: `first_loss` (R,) of its first mini-batch, the mean `penalty` (R,), and by layer the peak (R,) of |W_NI|, see `is_watched`.
    """

    specs: list[RunSpec]
    model: StackedModel
    epoch: int = 0
    histories: list[list[dict[str, float]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    folded: bool = True
    first_loss: Tensor = field(default_factory=lambda: torch.empty(0))
    penalty: Tensor = field(default_factory=lambda: torch.empty(0))
    node_peaks: dict[str, Tensor] = field(default_factory=dict)
    by_graph: bool | None = None
    repeated: tuple[TrainingData, Books, Repeated] | None = None

    def __post_init__(self) -> None:
        self.histories = self.histories or [[] for _ in self.specs]
        self.seconds = self.seconds or [0.0] * len(self.specs)
        self.attach()

    def attach(self, state: State | None = None) -> None:
        """Regularisers and optimiser for the replicas there are now, whose optimiser's state was `state`."""
        spec, device = self.specs[0], next(self.model.parameters()).device
        self.by_graph = device.type == "cuda" if self.by_graph is None else self.by_graph
        self.repeated = None  # it would go on with what is replaced here
        strengths = [s.strengths for s in self.specs]
        self.seeds_R = torch.tensor([s.seed for s in self.specs], device=device)
        layers = [int(layer) for layer in self.model.nodes]
        batch = spec.optimizer.batch_size
        dtype = next(self.model.parameters()).dtype
        self.places = TrainingPlaces(strengths, self.seeds_R, spec.reading, layers, batch, spec.distribution, dtype)
        decay_R = torch.tensor([s.weight_decay for s in strengths], dtype=torch.float64, device=device)
        self.penalties = Penalties(self.model, strengths, self.seeds_R, spec.reading, spec.distribution)
        of_batch = strengths if spec.reading.weight_noise_draw == "batch" else []
        self.weight_noise = WeightNoise(self.model, of_batch, self.seeds_R)
        self.model.set_precision(spec.precision)
        self.optimizer = optimizer_of(
            self.model, spec.optimizer, decay_R, spec.reading, folded=self.folded, state=state
        )

    def keep(self, alive: Sequence[int]) -> None:
        if len(alive) == len(self.specs):
            return
        self.specs = [self.specs[r] for r in alive]
        self.histories = [self.histories[r] for r in alive]
        self.seconds = [self.seconds[r] for r in alive]
        if alive:
            index = torch.tensor(alive, device=self.seeds_R.device)
            state = kept(self.optimizer.state(), index)
            self.model.keep(index)
            self.attach(state)

    def weights(self, replica: int) -> dict[str, np.ndarray]:
        """One replica's parameters and buffers; nodes that only its companions need are left out."""
        idle = tuple(f"nodes.{layer}." for layer in self.model.nodes if not self.uses_node(replica, layer))
        state = self.model.state_dict().items()
        return {name: value[replica].cpu().numpy() for name, value in state if not name.startswith(idle)}

    def uses_node(self, replica: int, layer: str) -> bool:
        strengths = self.specs[replica].strengths
        return (strengths.nin_hidden if int(layer) else strengths.nin_input) > 0


def new_stack(
    specs: Sequence[RunSpec], data: TrainingData, *, folded: bool = True, layers: Sequence[int] | None = None
) -> Stack:
    """Fresh replicas for `specs`, which share everything but seed and strengths (`RunSpec.stack_key`).

    `layers` are those with a noise node, by default the ones that some replica needs.
    """
    spec = specs[0]
    if spec.optimizer.batch_size > len(data.x):
        raise SpecError(
            f"optimizer.batch_size = {spec.optimizer.batch_size}: must be at most the {len(data.x)} training images"
        )
    seeds_R = torch.tensor([s.seed for s in specs], device=data.x.device)
    if layers is None:
        layers = node_layers(spec.arch, spec.reading, [s.strengths for s in specs], depth(spec.arch))
    model = StackedModel(spec.arch, spec.reading, data.image, data.classes, seeds_R, layers, DTYPES[spec.precision])
    return Stack(list(specs), model, folded=folded)


def run_epoch(stack: Stack, data: TrainingData) -> tuple[Tensor, Tensor, Tensor]:
    """One epoch of all replicas: mean loss (R,), running accuracy (R,), first step with a non-finite loss (R,) or -1.

    Samples that do not fill a last mini-batch are left out; the next epoch's order has others there.
    """
    batch, seeds_R = stack.specs[0].optimizer.batch_size, stack.seeds_R
    steps = len(data.x) // batch
    order_RN = permutation(seeds_R, len(data.x), epoch=stack.epoch)[:, : steps * batch]
    stack.places.start_epoch(stack.epoch, order_RN, len(data.x))
    stack.penalties.start_epoch(steps)
    stack.node_peaks = {}
    books, repeated = opened(stack, data, order_RN, steps)
    for step in range(steps):
        if stack.model.nodes and is_watched(stack.epoch, step):
            raise_peaks(stack.node_peaks, stack.model)
        if repeated is None:
            one_step(stack, data, books, step, stack.epoch)
        else:
            repeated()
    loss_SR = books.loss_SR
    stack.first_loss, stack.penalty = loss_SR[0].clone(), books.penalty_R / steps
    bad_step_R = torch.where(finite(loss_SR), -1, (~loss_SR.isfinite()).int().argmax(0))
    return loss_SR.double().mean(0), books.correct_R.double() / (steps * batch), bad_step_R


def opened(stack: Stack, data: TrainingData, order_RN: Tensor, steps: int) -> tuple[Books, Repeated | None]:
    """The books of this epoch, and its step for a graph: both of the epoch before where there was one with this data."""
    if not stack.by_graph:
        return Books.of(order_RN, steps, data.x.dtype), None
    if stack.repeated is None or stack.repeated[0] is not data:
        books = Books.of(order_RN.clone(), steps, data.x.dtype)

        def next_step() -> None:
            one_step(stack, data, books, books.step, books.epoch)
            books.step += 1

        stack.repeated = data, books, Repeated(next_step, data.x.device)
    _, books, repeated = stack.repeated
    books.open(order_RN, stack.epoch)
    return books, repeated


def one_step(stack: Stack, data: TrainingData, books: Books, step: int | Tensor, epoch: int | Tensor) -> None:
    """One mini-batch of every replica, forward, backward and update; step and epoch are numbers, or (1,) for a graph."""
    spec, model, places, penalties = stack.specs[0], stack.model, stack.places, stack.penalties
    weight_noise = stack.weight_noise.active and stack.weight_noise
    index_RB = of_step(books.order_RN, step, spec.optimizer.batch_size)
    x_RBD = data.x.index_select(0, index_RB.flatten()).view(*index_RB.shape, -1)
    y_RB = data.y.take(index_RB)
    places.start_step(step, epoch)
    if penalties:
        penalties.start_step(x_RBD, step, epoch)
    if weight_noise:
        weight_noise.add(step, epoch)
    logits_RBK = model(x_RBD, places)
    shared, of_shared = penalties.share(x_RBD, places.hidden) if penalties else ([], [])
    books.penalty_R += penalties.value_R
    found_RBK = logits_RBK.detach().mT.contiguous().mT  # see log_probabilities
    targets = places.targets(y_RB, data.classes)
    # replicas share nothing: each gets its own gradient
    loss_R, grad_RBK = mean_loss_and_gradient(spec.reading.loss, found_RBK, y_RB, targets)
    if isinstance(step, Tensor):
        books.loss_SR.index_copy_(0, step, loss_R[None])
    else:
        books.loss_SR[step] = loss_R
    books.correct_R += correct(found_RBK, y_RB)
    # With every sample beyond the clamp a step would change nothing. (A sample's gradients sum to 0: some are positive.)
    may_rest = spec.reading.loss == "clamped" and stack.optimizer.may_rest and not penalties and not stack.by_graph
    rests = may_rest and data.x.device.type == "cpu" and float(grad_RBK.max()) == 0
    if not rests:
        torch.autograd.backward([logits_RBK, *shared], [grad_RBK, *of_shared])
    if weight_noise:
        weight_noise.remove(stepped=not rests)
    if not rests:
        stack.optimizer.step(penalties)


def is_watched(epoch: int, step: int) -> bool:
    """Whether |W_NI| is looked at before this step: while a catapult may be under way at each of them, later now and then."""
    return step % 8 == 0 or (epoch == 0 and step < 32)


@torch.no_grad()
def raise_peaks(peaks: dict[str, Tensor], model: StackedModel) -> None:
    for layer, node in model.nodes.items():
        norm_R = norm(node.get_parameter("weight"))
        peaks[layer] = torch.maximum(peaks[layer], norm_R) if layer in peaks else norm_R


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of each replica's x (R, ...), (R,)."""
    return total(x.flatten(1).square()).sqrt()


def finite(loss_SR: Tensor) -> Tensor:
    """(R,), whether all of a replica's losses are finite."""
    return loss_SR.isfinite().all(0)


def norms(model: StackedModel) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Euclidean norms a replica of every layer's weights, and of its noise weights W_NI where it has a node, by layer."""

    def by_layer(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, list[float]]:
        return {name: norm(module.weight.detach()).tolist() for name, module in modules}  # type: ignore[operator]

    layers = [*model.convolutions, *model.layers]
    return by_layer((str(layer), module) for layer, module in enumerate(layers)), by_layer(model.nodes.items())


def norms_of(
    stack: Stack, replica: int, weight_norms: Mapping[str, list[float]], node_norms: Mapping[str, list[float]]
) -> dict[str, float]:
    """What `norms` found, for one replica as columns of its history."""
    row = {f"weight_norm_{layer}": values[replica] for layer, values in weight_norms.items()}
    return row | {f"nin_norm_{n}": values[replica] for n, values in node_norms.items() if stack.uses_node(replica, n)}


def beginning(stack: Stack, data: TrainingData) -> list[dict[str, float]]:
    """Row 0 of each replica's history, before the first step: no training accuracy, and of the training loss (added when it
    is known) that of the first mini-batch, noise on."""
    scores = clean_scores(stack.model, data.test_x, data.test_y, stack.specs[0].reading.loss)
    test_loss_R, test_accuracy_R = (t.tolist() for t in scores)
    found = norms(stack.model)
    return [
        {"epoch": 0, "test_loss": test_loss_R[r], "test_accuracy": test_accuracy_R[r]} | norms_of(stack, r, *found)
        for r in range(len(stack.specs))
    ]


def train(stack: Stack, data: TrainingData) -> Iterator[list[Outcome]]:
    """Trains until every replica has reached its stop; yields after each epoch, with the runs that ended in it."""
    while stack.specs:
        started = time.perf_counter()
        spec = stack.specs[0]
        with arithmetic(spec.precision, data.x.device):
            beginnings = beginning(stack, data) if stack.epoch == 0 else []
            loss_R, accuracy_R, bad_step_R = (t.tolist() for t in run_epoch(stack, data))
            if spec.reading.stop_measure == "clean":
                accuracy_R = clean_scores(stack.model, data.x, data.y, spec.reading.loss)[1].tolist()
            test_loss_R, test_accuracy_R = (
                t.tolist() for t in clean_scores(stack.model, data.test_x, data.test_y, spec.reading.loss)
            )
        for history, row, loss in zip(stack.histories, beginnings, stack.first_loss.tolist(), strict=False):
            history.append({**row, "train_loss": loss})
        stack.epoch += 1
        penalty_R = stack.penalty.tolist()
        peaks = {layer: peak_R.tolist() for layer, peak_R in stack.node_peaks.items()}
        weight_norms, node_norms = norms(stack.model)
        seconds = (time.perf_counter() - started) / len(stack.specs)
        outcomes, alive = [], []
        for r, replica in enumerate(stack.specs):
            stack.seconds[r] += seconds
            accuracy = accuracy_R[r] if bad_step_R[r] < 0 else math.nan  # of an epoch that broke off, how far is chance
            row = {"epoch": stack.epoch, "train_loss": loss_R[r], "train_accuracy": accuracy}
            row |= {"test_loss": test_loss_R[r], "test_accuracy": test_accuracy_R[r]}
            row |= {"penalty": penalty_R[r]} if replica.strengths.jacobian or replica.strengths.weight_penalty else {}
            row |= norms_of(stack, r, weight_norms, node_norms)
            row |= {f"nin_peak_{n}": values[r] for n, values in peaks.items() if stack.uses_node(r, n)}
            stack.histories[r].append(row)
            ending = how_it_ended(replica, row, bad_step_R[r])
            if ending is None:
                alive.append(r)
            else:
                outcomes.append(finish(stack, r, row, ending))
        stack.keep(alive)
        yield outcomes


def how_it_ended(spec: RunSpec, row: dict[str, float], bad_step: int) -> dict[str, Any] | None:
    """What the record says of the ending of a run, or None while it goes on."""
    if bad_step >= 0:
        return {"stopped_by": "diverged", "diverged_quantity": "training loss", "diverged_step": bad_step}
    broken = [name for name, value in row.items() if not math.isfinite(value)]
    if broken:
        return {"stopped_by": "diverged", "diverged_quantity": broken[0], "diverged_step": -1}
    if row["train_accuracy"] >= spec.stop_accuracy:
        return {"stopped_by": "accuracy"}
    return {"stopped_by": "epochs"} if row["epoch"] >= spec.max_epochs else None


def finish(stack: Stack, replica: int, row: dict[str, float], ending: dict[str, Any]) -> Outcome:
    diverged = ending["stopped_by"] == "diverged"
    record = {
        "status": "diverged" if diverged else "completed",
        "epochs": stack.epoch,
        "train_accuracy": math.nan if diverged else row["train_accuracy"],
        "test_accuracy": math.nan if diverged else row["test_accuracy"],
        "seconds": stack.seconds[replica],
        **ending,
    }
    return Outcome(stack.specs[replica], record, stack.histories[replica], stack.weights(replica))
