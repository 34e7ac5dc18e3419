"""The progress bar of a training: it counts epochs, and expects as many of a run as runs like it took."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tqdm import tqdm

from noise_reg.spec import RunSpec
from noise_reg.usual_epochs import UsualEpochs, likeness
from noise_reg.workers import Send

FORMAT = (
    "{{l_bar}}{{bar}}| {{n_fmt}}/{at_most}{{total_fmt}} [{{elapsed}}<{at_most}{{remaining}}, {{rate_fmt}}{{postfix}}]"
)


class Progress(Protocol):
    """What training tells of its way, by stack (its name)."""

    def begin(self, stack: str, specs: Sequence[RunSpec], epochs: int) -> None:
        """The runs of a stack, which go on from where they have done so many epochs."""

    def step(self, stack: str) -> None:
        """One more epoch of each is done."""

    def end(self, stack: str, ended: Mapping[str, bool]) -> None:
        """The runs of these keys do no more; the value says whether before they had to."""

    def say_state(self, words: str) -> None:
        """What goes on, in words."""


@dataclasses.dataclass(frozen=True)
class RemoteBar:
    """The bar of a worker process: the parent shows it. `send` gets the name of a method and its arguments."""

    send: Send

    def begin(self, stack: str, specs: Sequence[RunSpec], epochs: int) -> None:
        self.send(("begin", (stack, list(specs), epochs)))

    def step(self, stack: str) -> None:
        self.send(("step", (stack,)))

    def end(self, stack: str, ended: Mapping[str, bool]) -> None:
        self.send(("end", (stack, dict(ended))))

    def say_state(self, words: str) -> None:
        self.send(("say_state", (words,)))


class EpochBar:
    """Shown on `bar`, whose total is what has been done and what is expected to come. It says 'at most' where of some run nothing
    but max_epochs is known. `method`: that of a run, by its key."""

    def __init__(
        self, bar: tqdm[Any], specs: Iterable[RunSpec], usual: UsualEpochs, method: Callable[[str], str]
    ) -> None:
        self.bar, self.usual, self.method = bar, usual, method
        self.running: dict[str, tuple[RunSpec, str]] = {}  # by key, with what the run is like
        self.expected: dict[str, int] = {}
        self.stacks: dict[str, set[str]] = {}
        self.epochs: Counter[str] = Counter()  # of each stack
        self._add(specs)
        self._expect()

    def begin(self, stack: str, specs: Sequence[RunSpec], epochs: int) -> None:
        before = self.epochs[stack] * len(self.stacks.get(stack, ()))  # by a worker that was killed
        self._add(specs)  # a checkpoint may hold runs that nobody asked for now
        self.stacks[stack], self.epochs[stack] = {spec.key for spec in specs}, epochs
        self.bar.update(epochs * len(specs) - before)
        self._expect()

    def step(self, stack: str) -> None:
        self.epochs[stack] += 1
        longer = sum(self.expected[key] < self.epochs[stack] for key in self.stacks[stack])
        self.bar.total = (self.bar.total or 0) + longer
        self.bar.update(len(self.stacks[stack]))

    def end(self, stack: str, ended: Mapping[str, bool]) -> None:
        for key, by_itself in ended.items():
            self.stacks[stack].remove(key)
            self.usual.add(self.running.pop(key)[0], self.epochs[stack], by_itself=by_itself)
        if ended:
            self._expect()

    def leave(self, keys: Iterable[str]) -> None:
        """Another process trained the runs of these keys."""
        for key in keys:
            self.running.pop(key, None)
        self._expect()

    def say_state(self, words: str) -> None:
        self.bar.set_postfix_str(words, refresh=False)

    def _add(self, specs: Iterable[RunSpec]) -> None:
        self.running |= {spec.key: (spec, likeness(spec)) for spec in specs}

    def _expect(self) -> None:
        """Counts anew what is to come."""
        done = {key: self.epochs[stack] for stack, keys in self.stacks.items() for key in keys}
        found: dict[tuple[str, int], float | None] = {}  # runs that are alike share a look
        for key, (spec, like) in self.running.items():
            if (like, spec.max_epochs) not in found:
                found[like, spec.max_epochs] = self.usual.of(spec, self.method(key))
            epochs = found[like, spec.max_epochs]
            self.expected[key] = max(done.get(key, 0), round(spec.max_epochs if epochs is None else epochs))
        self.bar.total = self.bar.n + sum(self.expected[key] - done.get(key, 0) for key in self.running)
        self.bar.bar_format = FORMAT.format(at_most="at most " if None in found.values() else "")
