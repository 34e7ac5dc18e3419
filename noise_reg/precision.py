"""Precisions: what a stack's weights are stored in and what its products are computed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def arithmetic(precision: str, device: torch.device, flush: bool = True) -> Iterator[None]:
    """Within it, products on the CPU take their factors in bf16 where `precision` is 'bf16', with fp32 sums and weights.

    `flush`: denormal numbers count as 0 meanwhile; decayed noise weights would otherwise slow every product they enter.
    """
    backends = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    wanted = "bf16" if precision == "bf16" and device.type == "cpu" else "ieee"
    torch.set_flush_denormal(flush)
    try:
        for backend in backends:
            backend.fp32_precision = wanted
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
        torch.set_flush_denormal(False)
