"""Worker processes of the benchmark, and contender (e): the plain loop in processes of one thread, one a core.

Processes live as long as their contender: that is what a sweep by Hydra's joblib launcher comes to once its processes have
started. The launcher itself is measured cold, see cold.py.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np
import torch

from noise_reg.bench.loops import PlainLoop
from noise_reg.bench.work import Recipe, Workload, own_mib, synchronize
from noise_reg.plan import shares
from noise_reg.workers import can_fork, start_fork


class Part(Protocol):
    """What one worker does, as a `Runner` does it."""

    def ready(self, epoch: int) -> None: ...

    def run(self) -> object: ...

    def weights(self) -> Any: ...


class Workers:
    """Processes that each do what `makers` make. They are forked where that can be, else started anew, with the makers pickled."""

    def __init__(self, makers: Sequence[Callable[[], Part]], device: torch.device) -> None:
        self.ends: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for make in makers:
            ours, theirs = multiprocessing.Pipe()
            self.ends.append(ours)
            if can_fork(device):
                self.processes.append(start_fork(serve, make, theirs, str(device)))
            else:
                fresh = multiprocessing.get_context("spawn").Process(
                    target=serve, args=(make, theirs, str(device)), daemon=True
                )
                fresh.start()
                self.processes.append(fresh)
            theirs.close()
        self.ask("started")

    def ask(self, what: str, epoch: int = 0) -> list[Any]:
        """What each worker answers. Raises EOFError if one has died."""
        for end in self.ends:
            end.send((what, epoch))
        return [end.recv() for end in self.ends]

    @property
    def mib(self) -> float:
        return float(sum(self.ask("memory")))

    def close(self) -> None:
        for end, process in zip(self.ends, self.processes, strict=True):
            process.terminate()
            process.join()
            end.close()


def serve(make: Callable[[], Part], end: Connection, device: str) -> None:
    """A worker: makes an epoch ready, runs it and tells its CPU seconds, or tells its own memory, or its weights."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    part = make()

    def run(epoch: int) -> float:
        started = time.process_time()
        part.run()
        synchronize(torch.device(device))
        return time.process_time() - started

    answers: dict[str, Callable[[int], Any]] = {
        "started": lambda epoch: None,
        "ready": part.ready,
        "run": run,
        "weights": lambda epoch: part.weights(),
        "memory": lambda epoch: own_mib(torch.device(device)),
    }
    while True:
        try:
            what, epoch = end.recv()
            end.send(answers[what](epoch))
        except (EOFError, BrokenPipeError):
            return


def absent(work: Workload) -> str:
    """Why contender (e) is not there for a job, or ''."""
    return "" if len(work.specs) > 1 else "one run is no sweep"


class Processes:
    """As many single runs as keep all cores equally busy, the job's single ones among them."""

    def __init__(self, work: Workload, precision: str, gate: bool) -> None:
        self.work = work
        count = min(torch.get_num_threads(), len(work.specs))
        chosen = chosen_runs(work.recipe, count)
        place = {spec.key: n for n, spec in enumerate(work.specs)}
        self.runs = len(chosen)
        parts = shares([work.specs[n] for n in chosen], count)
        self.places = [[place[spec.key] for spec in part] for part in parts]
        recipes = [dataclasses.replace(work.recipe, single=tuple(places)) for places in self.places]
        self.workers = Workers([partial(loop_of, recipe, precision, gate) for recipe in recipes], work.device)

    def ready(self, epoch: int) -> None:
        self.workers.ask("ready", epoch)

    def run(self) -> float:
        return float(sum(self.workers.ask("run")))

    @property
    def elsewhere_mib(self) -> float:
        return self.workers.mib

    def weights(self) -> list[dict[str, np.ndarray]]:
        answers = zip(self.places, self.workers.ask("weights"), strict=True)
        found = {n: weights for places, answer in answers for n, weights in zip(places, answer, strict=True)}
        return [found[n] for n in self.work.recipe.single]

    def close(self) -> None:
        self.workers.close()


def chosen_runs(recipe: Recipe, count: int) -> list[int]:
    """The single runs, and others until `count` processes have equally many, where there are so many."""
    others = [n for n in range(len(recipe.specs)) if n not in recipe.single]
    return [*recipe.single, *others[: -len(recipe.single) % count]]


def loop_of(recipe: Recipe, precision: str, gate: bool) -> PlainLoop:
    return PlainLoop(Workload(recipe), precision, gate)
