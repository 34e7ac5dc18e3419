"""What a stack needs of memory at least, against what the machine has: told before anything of it is allocated."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from noise_reg.errors import UserError
from noise_reg.nn import DTYPES
from noise_reg.plan import weight_count
from noise_reg.spec import ArchSpec, RunSpec

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
STATE_COPIES = {"sgd": 0, "rmsprop": 2, "adam": 3}  # of every weight: its gradient and the optimiser's running means
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def activation_count(arch: ArchSpec, image: tuple[int, int, int], classes: int) -> int:
    """Values that one sample leaves for the way back: the pixels and what every layer gives."""
    channels, height, width = image
    count = channels * height * width
    for convolution in arch.convolutions:
        lost = 0 if arch.padding == "same" else arch.kernel - 1
        channels, height, width = convolution.filters, height - lost, width - lost
        count += channels * height * width
        if convolution.pooled:
            height, width = height // 2, width // 2
    return count + sum(arch.widths) + classes


def training_bytes(specs: Sequence[RunSpec], image: tuple[int, int, int], classes: int) -> int:
    """What the stack `specs` holds at least while it trains: weights, the optimiser's copies, activations of a mini-batch."""
    spec = specs[0]
    values = weight_count(spec.arch, image, classes) * (1 + STATE_COPIES[spec.optimizer.name])
    values += spec.optimizer.batch_size * activation_count(spec.arch, image, classes)
    return len(specs) * values * DTYPES[spec.precision].itemsize


def machine_bytes(device: torch.device) -> int:
    """The memory that this process may ever have on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits += [soft] if soft != resource.RLIM_INFINITY else []
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not there, or 'max'
            limits.append(int(Path(path).read_text()))
    return min(limits)


def check_memory(specs: Sequence[RunSpec], image: tuple[int, int, int], classes: int, device: torch.device) -> None:
    """Raises UserError where the stack `specs` cannot fit."""
    needed, there = training_bytes(specs, image, classes), machine_bytes(device)
    if needed <= there:
        return
    arch = specs[0].arch
    runs = "a run" if len(specs) == 1 else f"a stack of {len(specs)} runs"
    fewer = "" if len(specs) == 1 else ", fewer runs a stack (stack_size=1)"
    raise UserError(
        f"arch.widths = {list(arch.widths)}{f', arch.filters = {list(arch.filters)}' if arch.filters else ''}: {runs} of this network "
        f"needs at least {in_units(needed)} for weights, optimiser and the activations of {specs[0].optimizer.batch_size} samples; "
        f"{device} has {in_units(there)}. Remedy: a smaller network, a smaller optimizer.batch_size{fewer}, or a machine with more memory."
    )


def in_units(count: int) -> str:
    """A number of bytes as people read it."""
    power = next((n for n in range(len(UNITS)) if count < 1024 ** (n + 1)), len(UNITS) - 1)
    return f"{count / 1024**power:.3g} {UNITS[power]}"
