"""The contenders of the benchmark, by the letters of its protocol.

A new contender is a class with what `work.Runner` asks for, and a row of `CONTENDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from noise_reg.bench import graph, processes, vmap
from noise_reg.bench.graph import GraphLoop
from noise_reg.bench.loader import LoaderLoop
from noise_reg.bench.loops import PlainLoop
from noise_reg.bench.ours import Stacked
from noise_reg.bench.processes import Processes
from noise_reg.bench.vmap import Ensembles
from noise_reg.bench.work import Runner, Workload


def always(work: Workload) -> str:
    return ""


@dataclass(frozen=True)
class Contender:
    """`build(work, precision, gate)` makes its runner. At the gate it trains in `gate_precision` and must end as near to the
    plain loop in fp64 as `tolerance`, a fraction of the way that the weights have gone. `absent(work)` says why it is not there
    for a job, or ''; `short` is its name in a figure."""

    title: str
    short: str
    precision: str
    build: Callable[[Workload, str, bool], Runner]
    gate_precision: str
    tolerance: float
    absent: Callable[[Workload], str] = always


BASE = "b"  # the contender that ratios refer to
CONTENDERS = {
    "a": Contender("plain loop, torchvision transforms and DataLoader", "DataLoader", "fp32", LoaderLoop, "fp32", 5e-2),
    "b": Contender("plain loop, tensors in memory", "plain loop", "fp32", PlainLoop, "fp32", 5e-2),
    "c": Contender(
        "plain loop, each step a CUDA graph", "CUDA graph", "fp32", GraphLoop, "fp64", 1e-8, graph.absent
    ),
    "d": Contender(
        "torch.func vmap ensemble, one a method", "vmap ensemble", "fp32", Ensembles, "fp64", 1e-8, vmap.absent
    ),
    "e": Contender(
        "plain loop in processes of one thread, one a core", "processes", "fp32", Processes, "fp64", 1e-8, processes.absent,
    ),
    "f": Contender("ours", "ours", "fp32", Stacked, "fp64", 1e-8),
    "g": Contender("ours", "ours", "bf16", Stacked, "bf16", 5e-1),
}  # fmt: skip
