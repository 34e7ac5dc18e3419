"""The project as a library: runs composed, trained as stacks and given back in Python; figures made by one call."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from noise_reg.compose import CONF, composed
from noise_reg.config import Job, method_label, read_job, read_runtime
from noise_reg.errors import UserError
from noise_reg.shape import check_shape
from noise_reg.spec import RunSpec
from noise_reg.store import Store

if TYPE_CHECKING:  # torch, and scipy for the artefacts, take seconds to import: they wait until something needs them
    from torch import nn


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that ended.

    record: status ('completed' or 'diverged'), stopped_by, epochs, train_accuracy, test_accuracy (fractions), seconds, ...
    history: one row an epoch, from epoch 0 before the first step.
    weights: arrays by name, as they stand in the store: parameters, buffers, and `standardizer.mean`, `standardizer.scale` (C, 1, 1).
    """

    spec: RunSpec
    record: dict[str, Any]
    history: pd.DataFrame
    weights: dict[str, np.ndarray]

    def model(self) -> nn.Module:
        """The trained network as a plain module: logits (B, K) of pixels (B, C, H, W) in [0, 1]."""
        from noise_reg.nn.export import plain_model

        return plain_model(dataclasses.asdict(self.spec), self.weights, self.record)


def run_spec(*overrides: str) -> RunSpec:
    """The run that `scripts/train.py` would train with these overrides.

    Raises UserError that names the wrong one. A Hydra application that calls this is left as it was.

    >>> spec = run_spec("dataset=digits", "arch=fc_small", "regularizer=dropout", "seed=3")
    >>> spec.dataset.name, spec.strengths.dropout, spec.seed
    ('digits', 0.5, 3)
    """
    with composed("train", overrides) as cfg:
        check_shape(cfg, CONF, "train")
        return read_job(cfg).spec


def train_stack(
    specs: Sequence[RunSpec],
    *,
    store: str | Path | None = None,
    data_dir: str | Path | None = None,
    download: bool = True,
    device: str = "auto",
    workers: int | str = 1,
    methods: Sequence[str] | None = None,
) -> list[FinishedRun]:
    """Trains `specs` together, those of equal shapes as one stacked network, and returns them in their order.

    store: a folder in which runs are kept: what is there already is not trained again, what was interrupted goes on. None: nothing is kept.
    data_dir: of prepared <dataset>.npz files, by default NOISE_REG_DATA_DIR, else ./data. download: fetch what is missing through torchvision.
    device: 'auto', 'cpu', 'cuda' or 'cuda:<number>'. workers: processes on a CPU, or 'auto'; 1 is this process.
    methods: what the store calls the method of each run; by default the strengths, as 'dropout_0.5'.

    A run that diverges is returned with that status and harms no other. Raises UserError for what cannot be run.

    >>> specs = [run_spec("dataset=digits", "arch=fc_small", "max_epochs=2", f"seed={seed}") for seed in range(3)]
    >>> runs = train_stack(specs, device="cpu")
    >>> [run.record["epochs"] for run in runs], runs[0].history["epoch"].tolist()
    ([2, 2, 2], [0, 1, 2])
    """
    from noise_reg.pipeline import Pipeline

    names = [strengths_label(spec) for spec in specs] if methods is None else list(methods)
    if len(names) != len(specs):
        raise UserError(f"methods = {names}: must be {len(specs)} names, one a run")
    with tempfile.TemporaryDirectory(prefix="noise_reg-") as folder, composed("train") as cfg:
        cfg.store, cfg.data_dir = str(store or folder), None if data_dir is None else str(data_dir)
        cfg.download, cfg.device, cfg.workers, cfg.wandb = download, device, workers, "disabled"
        pipeline = Pipeline(read_runtime(cfg))
        jobs = [Job(spec, name, (), pipeline.runtime) for spec, name in zip(specs, names, strict=True)]
        pipeline.complete(jobs, group="train", tags=["train"])
        return [finished(pipeline.store, spec) for spec in specs]


def finished(store: Store, spec: RunSpec) -> FinishedRun:
    return FinishedRun(spec, store.read_record(spec.key), store.history(spec.key), store.weights(spec.key))


def strengths_label(spec: RunSpec) -> str:
    """'none', or the strengths that are on: 'dropout_0.5+weight_decay_0.001'."""
    return method_label({"name": "", "default": {}}, spec.strengths, ()).removeprefix("+")


def reproduce(artefact: str, *overrides: str) -> Path | None:
    """What `scripts/reproduce.py artefact=<artefact> <overrides>` does; the folder of figure, tables and rows, None of a mere shard.

    `reproduce("demo", "preset=demo", "store=runs", "results=results")` trains ninety small networks in three minutes and draws them.
    Raises UserError for what is unknown or impossible.
    """
    from noise_reg.cli.reproduce import reproduce as reproduce_artefact

    with composed("reproduce", (f"artefact={artefact}", *overrides)) as cfg:
        check_shape(cfg, CONF, "reproduce")
        return reproduce_artefact(cfg)
