"""Precisions: what a stack's weights are stored in and what its products are computed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, products of fp32 numbers are what `precision` says: 'bf16' takes their factors in bf16 on a CPU (on a GPU the
    stack does that itself), 'tf32' in TF32 on a GPU, everything else in full; sums and weights stay fp32.

    Denormal numbers count as 0 meanwhile: decayed noise weights would otherwise slow every product they enter.
    """
    on_cpu = "bf16" if precision == "bf16" and device.type == "cpu" else "ieee"
    on_gpu = "tf32" if precision == "tf32" else "ieee"
    wanted: dict[Any, str] = {
        torch.backends.mkldnn.matmul: on_cpu,  # type: ignore[attr-defined]
        torch.backends.mkldnn.conv: on_cpu,  # type: ignore[attr-defined]
        torch.backends.cuda.matmul: on_gpu,
        torch.backends.cudnn.conv: on_gpu,  # type: ignore[attr-defined]
    }
    before = {backend: backend.fp32_precision for backend in wanted}
    torch.set_flush_denormal(True)
    try:
        for backend, value in wanted.items():
            backend.fp32_precision = value
        yield
    finally:
        for backend, value in before.items():
            backend.fp32_precision = value
        torch.set_flush_denormal(False)


@contextmanager
def denormals() -> Iterator[None]:
    """Within it denormal numbers are not taken for 0, whatever holds around it: a library's numbers are then its own."""
    flushed = float(torch.tensor([1e-40]) * 1) == 0
    torch.set_flush_denormal(False)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
