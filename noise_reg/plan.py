"""Which runs train together: runs of equal shapes are cut into stacks whose size suits device and network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

from noise_reg.spec import ArchSpec, RunSpec, digest

# Bytes of fp32 weights in one stack. On a CPU a large network gains nothing from company, it only leaves the cache; small
# networks are bound by the number of operations and gain by an order of magnitude. On a GPU memory is the limit.
STACK_BYTES = {"cpu": 8 << 20, "cuda": 4 << 30}


def weight_count(arch: ArchSpec, image: tuple[int, int, int], classes: int) -> int:
    """Of one run, without biases. Raises SpecError where the convolutions leave nothing of the images (C, H, W)."""
    shapes = arch.shapes(image)
    count = sum(inside[0] * after[0] * arch.kernel**2 for inside, after in pairwise(shapes))
    sizes = [math.prod(shapes[-1]), *arch.widths, classes]
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


CDT_COST = 1.4  # of a run that draws a number a pixel, in runs that do not; measured on small networks
COSTLY_LAST = ("cdt", "nin_hidden", "nin_input", "dropout", "weight_decay")


def shares(specs: Sequence[RunSpec], count: int) -> list[list[RunSpec]]:
    """`specs` in `count` parts of nearly equal cost, for as many workers: runs that need the same kinds of noise stay together, and
    those that draw a number a pixel (CDT) stay apart from those that draw a number a unit (dropout)."""
    kinds = [tuple(getattr(spec.strengths, name) > 0 for name in COSTLY_LAST) for spec in specs]
    order = sorted(range(len(specs)), key=lambda n: (kinds[n], strengths_key(specs[n]), n))
    costs = [CDT_COST if kinds[n][0] else 1.0 for n in order]
    parts: list[list[int]] = [[] for _ in range(count)]
    for n, cost, until in zip(order, costs, accumulate(costs), strict=True):
        parts[int((until - cost / 2) * count / sum(costs))].append(n)
    return [[specs[n] for n in sorted(part)] for part in parts if part]


def by_shape(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """Groups of equal stack keys, in order of first appearance."""
    groups: dict[str, list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.stack_key(), []).append(spec)
    return list(groups.values())
