"""Rows made up for tests, with known answers; never results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from noise_reg.artefacts.rows import Rows

SIGMAS = (0.0, 0.4, 0.6, 0.9)
# clean accuracy, at sigma_noise = 0.4, and at 0.6 and 0.9, in percent: every claim of the paper holds
AS_CLAIMED: dict[str, tuple[float, float, float]] = {
    "none": (88.0, 80.0, 50.0),
    "l2": (88.0, 81.0, 52.0),
    "dropout": (88.0, 81.0, 53.0),
    "in_ninr_decay": (88.0, 85.0, 72.0),
    "in_ninr_catapult": (87.0, 85.0, 80.0),
    "full_ninr_decay": (88.0, 84.8, 71.0),
    "full_ninr_catapult": (87.2, 85.0, 75.0),
    "cdt_0.2": (87.0, 84.0, 65.0),
    "cdt": (85.5, 85.0, 70.0),
}
CONTEXT: dict[str, Any] = {
    "preset": "smoke",
    "dataset": "fmnist",
    "below_paper_scale": "made-up rows",
    "seeds": [0, 1, 2, 3],
    "reading": {"loss": "clamped"},
    "git_commit": "0" * 40,
    "date": "2000-01-01",
}


def wobble(seed: int, which: int, size: float) -> float:
    """A fixed deviation within +-size that differs with seed and method."""
    return size * math.sin(1.0 + 2.1 * seed + 78.233 * which)


def made_rows(
    truth: Mapping[str, tuple[float, float, float]] = AS_CLAIMED,
    *,
    archs: tuple[str, ...] = ("fc", "cnn"),
    n: int = 4,
    size: float = 0.2,
    dataset: str = "fmnist",
    early_loss: float | None = 3.0,
    late_loss: float = 1.0,
) -> Rows:
    """`n` seeds a method around `truth`; the catapult's clean loss goes from `early_loss` (None: no history) on."""
    runs: list[dict[str, Any]] = []
    evaluations: list[tuple[str, str, float, float]] = []
    history: list[tuple[str, int, float, float]] = []
    for arch in archs:
        for which, (method, (clean, middle, large)) in enumerate(truth.items()):
            for seed in range(n):
                key = f"{len(runs):016x}"
                shift = wobble(seed, which, size)
                runs.append(run(key, arch, method, seed, (clean + shift) / 100, dataset))
                values = dict(zip(SIGMAS, (clean, middle, large, large), strict=True))
                evaluations.append((key, "clean", 0.0, (clean + shift) / 100))
                evaluations += [(key, "corruption", s, (value + shift) / 100) for s, value in values.items()]
                losses = ((10, early_loss), (30, late_loss)) if "catapult" in method else ((10, 0.0), (30, 0.0))
                history += [(key, e, 0.9, (88 + shift - (loss or 0)) / 100) for e, loss in losses]
    return Rows(
        pd.DataFrame(runs),
        pd.DataFrame(evaluations, columns=["key", "evaluation", "strength", "accuracy"]),
        None
        if early_loss is None
        else pd.DataFrame(history, columns=["key", "epoch", "train_accuracy", "test_accuracy"]),
    )


def run(key: str, arch: str, method: str, seed: int, accuracy: float, dataset: str) -> dict[str, Any]:
    return {
        "key": key,
        "dataset": dataset,
        "arch": arch,
        "method": method,
        "reading": "",
        "seed": seed,
        "status": "completed",
        "stopped_by": "accuracy",
        "epochs": 30,
        "train_accuracy": 0.981,
        "test_accuracy": accuracy,
        "seconds": 1.5,
        "precision": "fp32",
        "max_epochs": 30,
    }


def diverge(rows: Rows, method: str, seeds: range, *, arch: str = "fc") -> Rows:
    """The same rows, but these runs diverged and left no accuracy."""
    runs, evaluations = rows.runs.copy(), rows.evaluations
    gone = (runs["arch"] == arch) & (runs["method"] == method) & runs["seed"].isin(list(seeds))
    runs.loc[gone, ["status", "stopped_by"]] = "diverged"
    runs.loc[gone, ["train_accuracy", "test_accuracy"]] = float("nan")
    kept = ~evaluations["key"].isin(runs.loc[gone, "key"])
    return Rows(runs, evaluations[kept], rows.history)


def keep_at_chance(rows: Rows, method: str, seeds: range, *, arch: str = "fc") -> Rows:
    """The same rows, but these runs came to the end of their epochs without learning anything."""
    runs, evaluations = rows.runs.copy(), rows.evaluations.copy()
    stuck = (runs["arch"] == arch) & (runs["method"] == method) & runs["seed"].isin(list(seeds))
    runs.loc[stuck, "stopped_by"] = "epochs"
    runs.loc[stuck, ["train_accuracy", "test_accuracy"]] = 0.1
    evaluations.loc[evaluations["key"].isin(runs.loc[stuck, "key"]), "accuracy"] = 0.1
    return Rows(runs, evaluations, rows.history)


def with_reading(rows: Rows, method: str, reading: str, *, arch: str = "fc") -> Rows:
    """The rows and, beside them, the runs of one method again under another reading."""
    again = rows.runs[(rows.runs["arch"] == arch) & (rows.runs["method"] == method)].copy()
    names = {key: f"f{i:015x}" for i, key in enumerate(again["key"])}
    more = rows.evaluations[rows.evaluations["key"].isin(list(names))].copy()
    again["key"], more["key"] = again["key"].map(names), more["key"].map(names)
    again["reading"] = reading
    return Rows(pd.concat([rows.runs, again]), pd.concat([rows.evaluations, more]), rows.history)
