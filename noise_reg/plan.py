"""Which runs train together: runs of equal shapes are cut into stacks whose size suits device and network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

from noise_reg.spec import ArchSpec, RunSpec, digest

# Bytes of fp32 weights in one stack. On a CPU a large network gains nothing from company, it only leaves the cache; small
# networks are bound by the number of operations and gain by an order of magnitude. On a GPU memory is the limit.
STACK_BYTES = {"cpu": 8 << 20, "cuda": 4 << 30}


def weight_count(arch: ArchSpec, image: tuple[int, int, int], classes: int) -> int:
    channels, height, width = image
    count = 0
    for filters in arch.filters:
        count += filters * channels * arch.kernel**2
        lost = 0 if arch.padding == "same" else arch.kernel - 1
        channels, height, width = filters, (height - lost) // 2, (width - lost) // 2
    sizes = [channels * height * width, *arch.widths, classes]
    return count + sum(i * o for i, o in pairwise(sizes))


def stack_size(spec: RunSpec, image: tuple[int, int, int], classes: int, device: str, wanted: Any) -> int:
    if wanted != "auto":
        return int(wanted)
    return max(1, STACK_BYTES[device] // (4 * weight_count(spec.arch, image, classes)))


def strengths_key(spec: RunSpec) -> str:
    return digest({name: value for name, value in vars(spec.strengths).items() if value})


def cut(specs: Sequence[RunSpec], size: int) -> list[list[RunSpec]]:
    """Stacks of at most `size` runs. All in `specs` share a stack key. A cut keeps runs of one method together, because
    they need the same draws, and takes every method's first seeds before any method's next ones."""
    if len(specs) <= size:
        return [list(specs)]
    position = {spec.key: place for place, spec in enumerate(specs)}
    by_method = sorted(specs, key=lambda spec: (strengths_key(spec), spec.seed))
    chunks = []
    for _, group in groupby(by_method, key=strengths_key):
        runs = list(group)
        chunks += [(first, runs[first : first + size]) for first in range(0, len(runs), size)]
    chunks.sort(key=lambda chunk: (chunk[0], min(position[spec.key] for spec in chunk[1])))
    return [runs for _, runs in chunks]


def by_shape(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """Groups of equal stack keys, in order of first appearance."""
    groups: dict[str, list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.stack_key(), []).append(spec)
    return list(groups.values())
