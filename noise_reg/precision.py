"""Precisions: what a stack's weights are stored in and what its products are computed in.

fp32 products of a CPU can come from two libraries: torch's usual one, MKL, which is slow on processors of other makers, and
oneDNN, which torch takes for fp32 factors only where it is allowed to round them to bf16. With AMX oneDNN does round them; without
AMX it multiplies them in full. What this machine does is tried once, `rounds_factors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch


def processor() -> str:
    """'amx', 'avx512', 'avx2' or what torch calls this processor's capability."""
    flags = Path("/proc/cpuinfo")
    if flags.exists() and "amx_tile" in flags.read_text():
        return "amx"
    return torch.backends.cpu.get_cpu_capability().lower()


@cache
def rounds_factors() -> tuple[bool, ...]:
    """Of each kind of product that stacks make, whether this CPU takes fp32 factors in bf16 when it may."""
    factor, unit = torch.full((1, 128, 128), 1 + 2.0**-10), torch.eye(128)[None]  # bf16 makes 1 of the factor
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        found = (torch.bmm(factor, unit), torch.zeros_like(factor).baddbmm_(factor, unit), (factor[0] @ unit[0])[None])
    finally:
        matmul.fp32_precision = before
    return tuple(bool((product != factor).any()) for product in found)


def low_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that a stack itself has to round the factors of its products to, None where it has not: in full precision, and
    where fp32 products do it within `arithmetic`."""
    by_itself = device.type == "cpu" and all(rounds_factors())
    return torch.bfloat16 if precision == "bf16" and not by_itself else None


def products(precision: str, device: torch.device) -> str:
    """What a precision's products are on a device, in words."""
    if precision == "bf16":
        by_stack_on_cpu = device.type == "cpu" and low_type(precision, device) is not None
        return f"factors {'and results ' if by_stack_on_cpu else ''}rounded to bf16"
    return "factors rounded to TF32" if precision == "tf32" else "in full"


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, products of fp32 numbers are what `precision` says: 'bf16' takes their factors in bf16 on a CPU that can (else
    the stack rounds them, see `low_type`), 'tf32' in TF32 on a GPU, everything else in full; sums and weights stay fp32. Products in
    full come from oneDNN where it can make them.

    Denormal numbers count as 0 meanwhile: decayed noise weights would otherwise slow every product they enter.
    """
    on_cpu = "bf16" if precision == "bf16" or not any(rounds_factors()) else "ieee"
    on_gpu = "tf32" if precision == "tf32" else "ieee"
    wanted: dict[Any, str] = {
        torch.backends.mkldnn.matmul: on_cpu,  # type: ignore[attr-defined]
        torch.backends.mkldnn.conv: "bf16" if precision == "bf16" else "ieee",  # type: ignore[attr-defined]
        torch.backends.cuda.matmul: on_gpu,
        torch.backends.cudnn.conv: on_gpu,  # type: ignore[attr-defined]
    }
    before = {backend: backend.fp32_precision for backend in wanted}
    with denormals(flushed=True):
        try:
            for backend, value in wanted.items():
                backend.fp32_precision = value
            yield
        finally:
            for backend, value in before.items():
                backend.fp32_precision = value


@contextmanager
def denormals(*, flushed: bool = False) -> Iterator[None]:
    """Within it denormal numbers are not taken for 0, whatever holds around it: a library's numbers are then its own. Or they
    are, if `flushed`."""
    before = float(torch.tensor([1e-40]) * 1) == 0
    torch.set_flush_denormal(flushed)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
