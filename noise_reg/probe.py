"""How long a step, a test image and an evaluation take here: a few of each are done and timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from noise_reg.evaluation_spec import CorruptionSpec, EvaluationSpec
from noise_reg.evaluations import evaluation_precision
from noise_reg.evaluations.clean import clean_scores
from noise_reg.evaluations.corruption import CHUNK, corruption_accuracy, noise
from noise_reg.pipeline import Pipeline
from noise_reg.precision import arithmetic
from noise_reg.spec import RunSpec
from noise_reg.train import Stack, new_stack, run_epoch

SHARE = 0.02  # of the work may be done to time it
MOST_STEPS, LEAST_STEPS = 6, 2
QUICK = 1.0  # seconds of work, for which another method's steps say enough
LEAST_IMAGES = 50
GRAPH_STEPS = 6  # on a GPU, until its steps are repeated from a graph

Kind = tuple[object, ...]


class Probe:
    """Each kind of stack is timed once: its shapes, its size and which regularisers are in it (of work of seconds not even these),
    whatever their strengths.

    single_thread: training is, as in a worker process; evaluations always have all threads.
    """

    def __init__(self, pipeline: Pipeline, *, single_thread: bool) -> None:
        self.pipeline, self.single_thread = pipeline, single_thread
        self._found: dict[Kind, float] = {}
        self._stack: tuple[Kind, Stack] | None = None  # the last, which the next question may be about too

    def step(self, specs: Sequence[RunSpec], steps: int) -> float:
        """Seconds of a training step of the stack, of which `steps` are to be done."""
        rough = ("step", *self._shapes(specs))
        if steps * self._found.get(rough, QUICK) < QUICK:
            return self._found[rough]
        seconds = self._once(("step", *self._kind(specs)), lambda: self._time_steps(specs, steps))
        self._found.setdefault(rough, seconds)
        return seconds

    def image(self, specs: Sequence[RunSpec], images: float, *, training: bool) -> float:
        """Seconds of a forward pass a test image, of which `images` are to be looked at; training: after an epoch."""
        precision = specs[0].precision
        kind = ("image", training and self.single_thread, precision, *self._shapes(specs))
        return self._once(kind, lambda: self._time_images(specs, images, precision, None, training=training))

    def evaluation(self, specs: Sequence[RunSpec], settings: EvaluationSpec) -> float:
        """Seconds of an evaluation of the stack. An attack whose images leave it early takes less."""
        data = self.pipeline.data_for(specs[0], settings)
        images = settings.passes(len(data.test_y)) * len(data.test_y)
        precision, noisy = evaluation_precision(settings, specs[0].precision), isinstance(settings, CorruptionSpec)
        kind = ("corruption" if noisy else "image", False, precision, *self._shapes(specs))
        corruption = settings if isinstance(settings, CorruptionSpec) else None
        seconds = images * self._once(kind, lambda: self._time_images(specs, images, precision, corruption))
        if corruption is None:
            return seconds
        draws = corruption.draws * -(-len(data.test_y) // CHUNK)
        return seconds + draws * self._once(("noise", data.test_x.shape), lambda: self._time_noise(specs[0]))

    def _once(self, kind: Kind, measure: Callable[[], float]) -> float:
        if kind not in self._found:
            self._found[kind] = measure()
        return self._found[kind]

    def _kind(self, specs: Sequence[RunSpec]) -> Kind:
        active = {name for spec in specs for name, value in vars(spec.strengths).items() if value}
        return *self._shapes(specs), *sorted(active)

    def _shapes(self, specs: Sequence[RunSpec]) -> Kind:
        return specs[0].replace(max_epochs=1).stack_key(), len(specs)

    def _new(self, specs: Sequence[RunSpec]) -> Stack:
        kind = self._kind(specs)
        if self._stack is None or self._stack[0] != kind:
            self._stack = kind, new_stack(specs, self.pipeline.data(specs[0]))
        return self._stack[1]

    def _time_steps(self, specs: Sequence[RunSpec], steps: int) -> float:
        stack, data, batch = self._new(specs), self.pipeline.data(specs[0]), specs[0].optimizer.batch_size
        wanted = (
            GRAPH_STEPS
            if self.pipeline.device.type == "cuda"
            else max(LEAST_STEPS, min(MOST_STEPS, int(SHARE * steps)))
        )
        count = max(1, min(wanted, len(data.x) // batch))
        few = dataclasses.replace(data, x=data.x[: count * batch], y=data.y[: count * batch])
        with arithmetic(specs[0].precision, self.pipeline.device), self._threads(single=self.single_thread):
            run_epoch(stack, few)  # what is set up once is not timed
            return self._seconds(lambda: run_epoch(stack, few)) / count

    def _time_images(
        self,
        specs: Sequence[RunSpec],
        images: float,
        precision: str,
        corruption: CorruptionSpec | None,
        *,
        training: bool = False,
    ) -> float:
        stack, data = self._new(specs), self.pipeline.data(specs[0])
        count = int(min(len(data.test_y), CHUNK, max(LEAST_IMAGES, SHARE * images)))
        one = None if corruption is None else dataclasses.replace(corruption, grid=corruption.grid[-1:], draws=1)

        def look() -> object:
            if one is None:
                return clean_scores(stack.model, data.test_x[:count], data.test_y[:count], specs[0].reading.loss)
            test = (stack.model, data.test_pixels[:count], data.test_y[:count], data.standardizer)
            return corruption_accuracy(*test, one)

        stack.model.set_precision(precision)
        with arithmetic(precision, self.pipeline.device), self._threads(single=training and self.single_thread):
            look()  # the noise too, which is timed apart
            seconds = self._seconds(look) / count
        stack.model.set_precision(specs[0].precision)
        return seconds

    def _time_noise(self, spec: RunSpec) -> float:
        """Of one draw for one chunk of test images."""
        count = self.pipeline.data(spec).test_x[:CHUNK].numel()
        return self._seconds(lambda: noise.__wrapped__(0, 0, 0, count, self.pipeline.device))

    def _seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.pipeline.device.type == "cuda":
            torch.cuda.synchronize(self.pipeline.device)

    @contextmanager
    def _threads(self, *, single: bool) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1 if single else threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
