"""Regularisation by noise, reproduced: sweeps trained as one stacked network.

The public names, imported when first asked for, so that `import noise_reg` costs nothing and needs no torch:

    Store(path)                   the runs of a folder: frames of runs, evaluations, and trained networks
    RunSpec                       everything that changes a run's numbers; `.key` names the run
    run_spec(*overrides)          a RunSpec, composed as by scripts/train.py
    train_stack(specs)            trains them together; a FinishedRun each
    evaluate(model, dataset)      accuracy of any torch module under noise, attack, rotation
    reproduce(artefact)           makes a figure or a table of the paper; its folder
    FinishedRun, UserError        what `train_stack` gives; what wrong input raises
    __version__
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noise_reg.errors import UserError
    from noise_reg.library import FinishedRun, reproduce, run_spec, train_stack
    from noise_reg.own_model import evaluate
    from noise_reg.spec import RunSpec
    from noise_reg.store import Store

    __version__: str

__all__ = [
    "FinishedRun",
    "RunSpec",
    "Store",
    "UserError",
    "__version__",
    "evaluate",
    "reproduce",
    "run_spec",
    "train_stack",
]
HOMES = {
    "FinishedRun": "library",
    "RunSpec": "spec",
    "Store": "store",
    "UserError": "errors",
    "evaluate": "own_model",
    "reproduce": "library",
    "run_spec": "library",
    "train_stack": "library",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # slow to import

        try:
            return version("noise_reg")
        except PackageNotFoundError:  # a checkout that is not installed
            return "unknown"
    if name not in HOMES:
        raise AttributeError(f"module 'noise_reg' has no attribute {name!r}")
    return getattr(import_module(f"noise_reg.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
