"""From jobs to stored, evaluated, mirrored runs: finds what is there, resumes what was begun, trains what is missing."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from noise_reg.begun import Begun, read_begun
from noise_reg.config import Job, Runtime
from noise_reg.data import DataError, Dataset, load, resolve_data_dir
from noise_reg.data.own import load_content
from noise_reg.data_check import REMEDY, DataCheck, content_of, measured_on
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import CertificateSpec, EvaluationSpec, ShiftSpec, ValidationSpec
from noise_reg.evaluations import evaluation_precision, measure
from noise_reg.memory import check_memory
from noise_reg.mirror import Mirror
from noise_reg.nn.export import STANDARDIZER, stacked_model
from noise_reg.plan import by_shape, cut, shares, stack_size
from noise_reg.precision import arithmetic
from noise_reg.prepare import TrainingData, data_key, held_out, prepare, shifted
from noise_reg.progress import EpochBar, Progress, RemoteBar
from noise_reg.spec import RunSpec, SpecError, digest
from noise_reg.store import Store
from noise_reg.tracking import TrackingSpec
from noise_reg.train import Outcome, Stack, new_stack, train
from noise_reg.usual_epochs import UsualEpochs
from noise_reg.workers import Send, possible_workers, run_in_workers

COMMITTED = Path(__file__).parent.parent / "results"
STATE = "optimizer."  # prefix of a checkpoint's tensors that are the optimiser's
CHECKPOINT_SHARE = 0.02  # of the time may go into checkpoints
POLL_SECONDS = 2.0  # between looks at runs that another process trains


def find_device(name: str) -> torch.device:
    """The device called `name` ('auto' takes CUDA where there is one). Raises UserError if it is not there."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= cuda:
        there = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(cuda))])
        raise UserError(f"device = {name}: no such device here; must be one of {there}")
    return device


def to_stderr(line: str) -> None:
    """A line for the user above the progress bar."""
    tqdm.write(line, file=sys.stderr)


class Pipeline:
    """The work of one process on one store. `say` receives lines for the user; `results` holds committed rows, which tell how many
    epochs a run usually takes."""

    def __init__(self, runtime: Runtime, say: Callable[[str], None] = to_stderr, results: Path = COMMITTED) -> None:
        self.runtime, self.say = runtime, say
        self.device = find_device(runtime.device)
        self.store = Store(runtime.store)
        self.store.check_place()
        self.store.warn = say
        self.mirror = Mirror(TrackingSpec(runtime.wandb, runtime.wandb_project, str(self.store.root)), self.store, say)
        self.datasets: dict[str, Dataset] = {}
        self.prepared: dict[tuple[Any, ...], TrainingData] = {}
        self.check = DataCheck(self.store, resolve_data_dir(runtime.data_dir), self.dataset, self.dataset_of, self.data)
        self.lost_workers = 0
        self.left_alone: set[str] = set()  # names of checkpoints
        self.methods: dict[str, str] = {}  # the method's name of each run met, by key
        self.usual = UsualEpochs(self.store, results)

    def data(self, spec: RunSpec) -> TrainingData:
        """The prepared data of `spec`, loaded once."""
        if data_key(spec) not in self.prepared:
            self.prepared[data_key(spec)] = prepare(self.dataset_of(spec), spec, self.device)
        return self.prepared[data_key(spec)]

    def dataset(self, name: str) -> Dataset:
        """The data set `name` of ours, loaded once."""
        if name not in self.datasets:
            self.datasets[name] = load(name, self.runtime.data_dir, self.runtime.download)
        return self.datasets[name]

    def dataset_of(self, spec: RunSpec) -> Dataset:
        """The data set of a run: one of ours, or a user's own."""
        own = spec.dataset.content
        return load_content(spec.dataset.name, own) if own else self.dataset(spec.dataset.name)

    def data_for(self, spec: RunSpec, settings: EvaluationSpec | None) -> TrainingData:
        """The data of `spec`, with what `settings` tests on."""
        if not isinstance(settings, ShiftSpec | ValidationSpec):
            return self.data(spec)
        key = (*data_key(spec), settings)
        if key not in self.prepared:
            if isinstance(settings, ShiftSpec):
                found = shifted(self.data(spec), self.dataset(settings.dataset), spec, settings)
            else:
                found = held_out(self.data(spec), self.dataset_of(spec), spec)
            self.prepared[key] = found
        return self.prepared[key]

    def complete(self, jobs: Sequence[Job], group: str, tags: Sequence[str]) -> list[dict[str, Any]]:
        """Has every job's run in the store, evaluated and mirrored; returns their records in the order of `jobs`."""
        unique = merged(jobs)
        for job in unique.values():
            if job.spec.precision == "tf32" and self.device.type != "cuda":
                raise UserError(
                    f"precision = tf32: needs device = cuda; must be one of fp32, bf16, fp64 on {self.device}"
                )
            for settings in (None, *job.evaluations):
                self.data_for(job.spec, settings)  # a data set that is not there is an error before any work
        self.methods |= {key: job.method for key, job in unique.items()}
        found = self.stored([job.spec for job in unique.values()])
        missing = {key: job for key, job in unique.items() if key not in found}
        self.check_memory([job.spec for job in missing.values()])
        self.mirror.expect(unique, group, tags)
        shown: tqdm[Any] = tqdm(total=0, unit="epoch", disable=not missing, desc="training", dynamic_ncols=True)
        with shown:
            specs = [job.spec for job in missing.values()]
            self.train_missing(missing, EpochBar(shown, specs, self.usual, lambda key: self.methods.get(key, "")))
        self.evaluate_and_mirror(list(unique.values()), group, tags)
        return [self.store.read_record(job.spec.key) for job in jobs]

    def stored(self, specs: Iterable[RunSpec]) -> set[str]:
        """The keys of those whose runs are stored, intact and trained on the data of now. Raises UserError where they are others."""
        by_key = {spec.key: spec for spec in specs}
        found = self.store.take_complete(by_key, self.say)
        self.check.check_runs(spec for key, spec in by_key.items() if key in found)
        return found

    def check_memory(self, specs: Sequence[RunSpec]) -> None:
        """Raises UserError where a stack cannot fit into memory."""
        for group in by_shape(specs):
            data = self.data(group[0])
            check_memory(group[: self.stack_size(group[0])], data.image, data.classes, self.device)

    def train_missing(self, missing: Mapping[str, Job], bar: EpochBar) -> None:
        """Trains until nothing is missing; runs that another process holds are waited for, or taken over when it dies."""
        todo, waiting = set(missing), False
        while todo:
            stacks = self.stacks([missing[key].spec for key in missing if key in todo])
            if (workers := self.workers(len(stacks))) > 1:
                todo -= self.train_in_workers(stacks, workers, bar)
            else:
                for specs in stacks:
                    todo -= self.train_unclaimed(specs, bar)
            if todo:
                finished = self.stored(missing[key].spec for key in todo)
                bar.leave(finished)
                todo -= finished
            if todo and not self.lost_workers:
                if not waiting:
                    self.say(f"{len(todo)} runs are being trained by another process; waiting for them")
                waiting = True
                time.sleep(POLL_SECONDS)

    def train_unclaimed(self, specs: Sequence[RunSpec], bar: Progress) -> set[str]:
        """Trains those of `specs` that nobody else is training or has trained; the keys of those that nobody else is at."""
        with self.store.claim([spec.key for spec in specs]) as claimed:
            done = self.stored(spec for spec in specs if spec.key in claimed)  # another process may just have finished
            specs = [spec for spec in specs if spec.key in claimed and spec.key not in done]
            if specs:
                self.train_stack(specs, bar)
            return set(claimed)

    def train_in_workers(self, stacks: Sequence[Sequence[RunSpec]], workers: int, bar: EpochBar) -> set[str]:
        """Each worker process takes the next stack that no other has claimed; the keys of those that they were at."""
        settled: set[str] = set()

        def task(send: Send) -> None:
            def say(line: str) -> None:
                send(("say", line))

            self.say = self.store.warn = say
            for specs in stacks:
                send(("settled", self.train_unclaimed(specs, RemoteBar(send))))

        def receive(message: tuple[str, Any]) -> None:
            kind, value = message
            if kind == "settled":
                settled.update(value)
            elif kind == "say":
                self.say(value)
            else:
                getattr(bar, kind)(*value)

        def lost(number: int) -> None:
            self.lost_workers += 1
            self.say(f"a worker process was killed by signal {number}; its runs will go on from their last checkpoint")

        run_in_workers([task] * workers, receive, lost)
        return settled

    def workers(self, stacks: int) -> int:
        """How many worker processes train `stacks` stacks; 1 is this process itself with all its threads."""
        if self.lost_workers:  # perhaps for want of memory
            return 1
        if self.runtime.workers != "auto":
            return max(1, min(int(self.runtime.workers), stacks))
        possible = possible_workers(self.device)
        return min(possible, stacks) if 2 * stacks > possible else 1  # fewer would leave most cores idle

    def stacks(self, specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
        """`specs` as stacks: first those begun earlier, as their checkpoints have them, then the rest freshly cut."""
        wanted = {spec.key: spec for spec in specs}
        stacks: list[list[RunSpec]] = []
        for name, begun in self.begun() if specs else ():
            if any(spec.key in wanted for spec in begun.specs):
                self.check.check_checkpoint(name, begun.data, begun.specs[0])
                stacks.append(begun.specs)
                for spec in begun.specs:
                    wanted.pop(spec.key, None)
        return stacks + self.fresh_stacks(list(wanted.values()), self.workers(len(wanted)))

    def begun(self) -> Iterator[tuple[str, Begun]]:
        """The stacks in mid-training, with the names of their checkpoints."""
        for name, meta in self.store.checkpoints():
            try:
                yield name, read_begun(meta)
            except UserError as error:
                self.leave_alone(name, str(error))

    def leave_alone(self, name: str, reason: str) -> None:
        """Says once that nothing is done with a checkpoint."""
        if name not in self.left_alone:
            self.left_alone.add(name)
            self.say(
                f"{self.store.root / 'checkpoints' / name}.safetensors: left alone, another version of the code wrote it ({reason}). "
                "Its runs begin anew where they are asked for; delete it if that version is not to go on with them"
            )

    def fresh_stacks(self, specs: Sequence[RunSpec], workers: int = 1) -> list[list[RunSpec]]:
        """`specs` cut into stacks for this device, whatever was begun earlier; at least one a worker."""
        stacks = []
        for group in by_shape(specs):
            for part in shares(group, min(workers, -(-len(group) * workers // len(specs)))):
                stacks += cut(part, self.stack_size(part[0]))
        return stacks

    def stack_size(self, spec: RunSpec) -> int:
        data = self.data(spec)
        return stack_size(spec, data.image, data.classes, self.device.type, self.runtime.stack_size)

    def train_stack(self, specs: Sequence[RunSpec], bar: Progress) -> None:
        data = self.data(specs[0])
        stack, name = self.resume(specs, data)
        bar.begin(name, stack.specs, stack.epoch)
        saved_at, cost = time.monotonic(), 0.0
        for outcomes in train(stack, data):
            bar.step(name)
            bar.say_state(describe(stack, self.methods, outcomes))
            for outcome in outcomes:
                self.record(outcome, self.methods[outcome.spec.key], data)
            bar.end(name, {o.spec.key: o.record["stopped_by"] != "epochs" for o in outcomes})
            interval = max(self.runtime.checkpoint_seconds, cost / CHECKPOINT_SHARE)
            if stack.specs and time.monotonic() - saved_at >= interval:
                started = time.monotonic()
                self.save(stack, name)
                saved_at, cost = time.monotonic(), time.monotonic() - started
        self.store.drop_checkpoint(name)

    def record(self, outcome: Outcome, method: str, data: TrainingData) -> None:
        key, weights = outcome.spec.key, outcome.weights
        weights = {**weights, f"{STANDARDIZER}mean": data.standardizer.mean.cpu().numpy()}
        weights[f"{STANDARDIZER}scale"] = data.standardizer.scale.cpu().numpy()
        record = {"method": method, **outcome.record, **data.facts, "device": self.device.type}
        record["torch"] = torch.__version__
        if record["status"] == "diverged":
            step = record["diverged_step"]
            where = f"step {step} of epoch {record['epochs']}" if step >= 0 else f"epoch {record['epochs']}"
            self.say(
                f"diverged: {describe_spec(outcome.spec, method)}: {record['diverged_quantity']} not finite at {where}"
            )
        self.store.write_run(key, dataclasses.asdict(outcome.spec), pd.DataFrame(outcome.history), weights, record)

    def save(self, stack: Stack, name: str) -> None:
        state = {f"{STATE}{name}": value for name, value in stack.optimizer.state().items()}
        tensors = {key: value.cpu().numpy() for key, value in {**stack.model.state_dict(), **state}.items()}
        meta = {"specs": [dataclasses.asdict(spec) for spec in stack.specs], "epoch": stack.epoch}
        meta["data"] = content_of(self.dataset_of(stack.specs[0]))
        meta["methods"] = {spec.key: self.methods[spec.key] for spec in stack.specs}
        meta |= {"histories": stack.histories, "seconds": stack.seconds, "layers": [int(n) for n in stack.model.nodes]}
        self.store.save_checkpoint(name, tensors, meta)

    def resume(self, specs: Sequence[RunSpec], data: TrainingData) -> tuple[Stack, str]:
        """The stack of `specs` at its last checkpoint, or at its beginning; and the name of its checkpoint."""
        wanted = {spec.key for spec in specs}
        for name, begun in self.begun():
            if not wanted <= {spec.key for spec in begun.specs}:
                continue
            self.check.check_checkpoint(name, begun.data, begun.specs[0])
            loaded = self.store.load_checkpoint(name)
            if loaded is None:
                continue
            try:
                stack = resumed(begun, loaded[0], data)
            except UserError as error:
                self.leave_alone(name, str(error))
                continue
            unnamed = {spec.key: "unnamed" for spec in begun.specs}  # runs of a checkpoint of before, not asked for now
            self.methods = {**unnamed, **begun.methods, **self.methods}
            stack.keep([r for r, spec in enumerate(begun.specs) if spec.key in wanted])
            return stack, name
        names = (
            f"stack-{digest(sorted(wanted))}{again}"
            for again in itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
        )
        return new_stack(specs, data), next(name for name in names if name not in self.left_alone)

    def evaluate_and_mirror(self, jobs: Sequence[Job], group: str, tags: Sequence[str]) -> None:
        """`evaluate`; whatever that raises for runs that could not be, all of them are mirrored."""
        try:
            self.evaluate(jobs)
        except UserError:
            self.mirror.update([job.spec.key for job in jobs], group, tags)
            raise
        self.mirror.update([job.spec.key for job in jobs], group, tags)

    def evaluate(self, jobs: Sequence[Job]) -> None:
        """The evaluations of every completed run that lacks them."""
        lacking: dict[tuple[str, EvaluationSpec], list[RunSpec]] = {}
        others: dict[str, list[RunSpec]] = {}  # runs made with other data, by how these differ
        methods, unsuitable = {job.spec.key: job.method for job in jobs}, list[str]()

        def refuse(specs: Sequence[RunSpec], reason: object) -> None:
            unsuitable.append(describe_spec(specs[0], methods[specs[0].key]))
            more = f" and {len(specs) - 1} more" if len(specs) > 1 else ""
            self.say(f"not evaluated: {unsuitable[-1]}{more}: {reason}")

        for job in jobs:
            status = self.store.read_record(job.spec.key)["status"]
            if status != "completed":
                self.say(f"not evaluated: {describe_spec(job.spec, job.method)}, which {status}")
                continue
            lacks = [settings for settings in job.evaluations if self.lacks(job.spec.key, settings)]
            if problem := self.other_data(job, lacks):
                others.setdefault(problem, []).append(job.spec)
                continue
            for settings in lacks:
                lacking.setdefault((job.spec.stack_key(), settings), []).append(job.spec)
        for problem, specs in others.items():
            refuse(specs, problem)
        count = sum(map(len, lacking.values()))
        with tqdm(total=count, unit="run", disable=not count, desc="evaluating", dynamic_ncols=True) as bar:
            for (_, settings), specs in lacking.items():
                size = 1 if isinstance(settings, CertificateSpec) else self.stack_size(specs[0])
                bar.set_postfix_str(settings.label, refresh=False)
                for first in range(0, len(specs), size):
                    chunk = specs[first : first + size]
                    try:
                        self.evaluate_stack(chunk, settings)
                    except SpecError as error:  # images of another shape, no validation images: the other runs go on
                        refuse(chunk, error)
                    bar.update(len(chunk))
        if unsuitable:
            stacks = "1 stack of runs was" if len(unsuitable) == 1 else f"{len(unsuitable)} stacks of runs were"
            raise UserError(f"{stacks} not evaluated, the first with {unsuitable[0]}")

    def lacks(self, key: str, settings: EvaluationSpec) -> bool:
        return self.store.evaluation(key, settings.label, dataclasses.asdict(settings)) is None

    def other_data(self, job: Job, lacks: Sequence[EvaluationSpec]) -> str | None:
        """How the data of a stored run, or of its evaluations, differ from those of now, or None."""
        try:
            problems = [self.check.of_run(job.spec)]
            problems += [self.check.of_evaluation(job.spec.key, s) for s in job.evaluations if s not in lacks]
        except DataError as error:
            if not lacks:
                return None  # nothing is measured: what is stored can be shown without the data
            if job.spec.dataset.content:
                return str(error)  # a user's own data, not given this time: the other runs go on
            raise
        return next((f"{problem}. {REMEDY}" for problem in problems if problem), None)

    def evaluate_stack(self, specs: Sequence[RunSpec], settings: EvaluationSpec) -> None:
        data = self.data_for(specs[0], settings)
        weights = [self.store.weights(spec.key) for spec in specs]
        model = stacked_model(specs, weights, data.image, data.classes).to(self.device)
        precision = evaluation_precision(settings, specs[0].precision)
        model.set_precision(precision)
        with arithmetic(precision, self.device):
            measured = measure(model, data, settings, lambda: self.store.model(specs[0].key).to(self.device))
        other = measured_on(self.dataset(settings.dataset)) if isinstance(settings, ShiftSpec) else None
        for name, asked, _ in settings.stored():
            strengths, accuracy_RS = measured[name]
            for spec, row in zip(specs, accuracy_RS.tolist(), strict=True):
                self.store.write_evaluation(spec.key, name, asked, list(zip(strengths, row, strict=True)), other)


def resumed(begun: Begun, tensors: Mapping[str, np.ndarray], data: TrainingData) -> Stack:
    """The stack of a checkpoint. Raises UserError where its tensors are not those of such a stack."""
    try:
        stack = new_stack(begun.specs, data, layers=begun.layers)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"layers = {begun.layers}: the network has no such ones") from error
    found = {key: torch.from_numpy(value) for key, value in tensors.items()}
    weights = {key: value for key, value in found.items() if not key.startswith(STATE)}
    state = {key.removeprefix(STATE): value for key, value in found.items() if key.startswith(STATE)}
    own = stack.model.state_dict()
    if {key: (t.shape, t.dtype) for key, t in weights.items()} != {key: (t.shape, t.dtype) for key, t in own.items()}:
        raise UserError("its weights have other names, shapes or types")
    if any(key.rpartition(":")[0] not in own for key in state):
        raise UserError("its optimizer's state has other names")
    stack.model.load_state_dict(weights)
    stack.attach(state)
    stack.epoch, stack.histories, stack.seconds = begun.epoch, begun.histories, begun.seconds
    return stack


def merged(jobs: Sequence[Job]) -> dict[str, Job]:
    """One job a run, by key, with the evaluations of all that ask for it."""
    found: dict[str, Job] = {}
    for job in jobs:
        key = job.spec.key
        before = found[key].evaluations if key in found else ()
        found[key] = dataclasses.replace(job, evaluations=tuple(dict.fromkeys((*before, *job.evaluations))))
    return found


def describe_spec(spec: RunSpec, method: str) -> str:
    return f"{spec.dataset.name} {spec.arch.name} {method} seed {spec.seed}"


def describe(stack: Stack, methods: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """For the progress bar: who trains, how far they are."""
    specs = stack.specs or [outcome.spec for outcome in outcomes]
    histories = [h for h in stack.histories if h] or [outcome.history for outcome in outcomes]
    names = sorted({methods[spec.key] for spec in specs})
    who = names[0] if len(names) == 1 else f"{len(names)} methods"
    accuracy = sum(h[-1]["train_accuracy"] for h in histories) / len(histories)
    runs = "1 run" if len(specs) == 1 else f"{len(specs)} runs"
    return f"{runs} of {who}, epoch {histories[0][-1]['epoch']}, train {accuracy:.3f}"
