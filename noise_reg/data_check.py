"""Whether what a store holds was made with the data that are loaded now: their content is compared, not their files' names.

A run's record, a checkpoint and the provenance of committed rows say which content was used. Those of earlier versions name its
file alone: where nothing but one known content passed under that name, it is that; otherwise count and split of the training
images are compared, and the mean and scale by which the network's first layer standardises them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from noise_reg.data import Dataset
from noise_reg.data.known import KNOWN_CONTENT, KNOWN_TEST_CONTENT
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import EvaluationSpec, ShiftSpec
from noise_reg.nn.export import standardizer_of
from noise_reg.prepare import TrainingData
from noise_reg.spec import RunSpec
from noise_reg.store import Store

REMEDY = "Remedy: bring the data of then back (data_dir=...), or choose another store=... for the data of now"


class DataCheck:
    """Compares what `store` holds with the data sets that `dataset` (by name), `dataset_of` and `prepared` (of a run) give. `folder`: where these are searched."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        dataset: Callable[[str], Dataset],
        dataset_of: Callable[[RunSpec], Dataset],
        prepared: Callable[[RunSpec], TrainingData],
    ) -> None:
        self.store, self.folder = store, folder
        self.dataset, self.dataset_of, self.prepared = dataset, dataset_of, prepared
        self._passed: set[str] = set()

    def check_runs(self, specs: Iterable[RunSpec]) -> None:
        """Raises UserError if one of these stored runs was trained on other data."""
        found = [(spec.key, problem) for spec in specs if (problem := self.of_run(spec)) is not None]
        if found:
            (key, problem), others = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise UserError(
                f"store = {self.store.root}: run {key}{others}: {problem}. {REMEDY}, or delete its folder "
                f"{self.store.root / 'runs' / key} to train it anew"
            )

    def of_run(self, spec: RunSpec) -> str | None:
        """How the data of a stored run differ from those of now, or None."""
        if spec.key in self._passed:
            return None

        def same_first_layer(data: TrainingData) -> bool:
            stored = standardizer_of(self.store.weights(spec.key))
            return torch.equal(stored.mean, data.standardizer.mean.cpu()) and torch.equal(
                stored.scale, data.standardizer.scale.cpu()
            )

        problem = self._difference(self.store.read_record(spec.key), spec, same_first_layer)
        if problem is None:
            self._passed.add(spec.key)
        return problem and f"trained on {problem}"

    def of_evaluation(self, key: str, settings: EvaluationSpec) -> str | None:
        """How the other data set that a stored evaluation of a shift was measured on differs from that of now, or None."""
        if not isinstance(settings, ShiftSpec):
            return None  # it was measured on the run's own data
        stored, now = self.store.evaluation_data(key, settings.label), measured_on(self.dataset(settings.dataset))
        content = stored.get("data_sha256") or KNOWN_TEST_CONTENT.get(settings.dataset)
        if content in (None, now["data_sha256"]):
            return None
        file = str(stored.get("data_file", settings.dataset))
        return f"evaluation {settings.label} measured on {self._both(file, f'content {content[:16]}', now)}"

    def check_checkpoint(self, name: str, then: Mapping[str, str], spec: RunSpec) -> None:
        """Raises UserError if the stack of the checkpoint `name`, with runs like `spec`, was begun on other data."""
        now = content_of(self.dataset_of(spec))
        if then.get("data_sha256") not in (None, now["data_sha256"]):
            path = self.store.root / "checkpoints" / f"{name}.safetensors"
            problem = self._both(then["data_file"], f"content {then['data_sha256'][:16]}", now)
            raise UserError(f"{path}: begun on {problem}. {REMEDY}, or delete that file to begin its runs anew")

    def check_rows(self, provenance: Mapping[str, Any], spec: RunSpec, folder: Path) -> None:
        """Raises UserError if the committed rows in `folder`, with this provenance, are of other data than runs like `spec` now are."""

        def same_scale(data: TrainingData) -> bool:
            return provenance.get("pixel_scale") in (None, pixel_scale(data))

        problem = self._difference(provenance.get("data", {}), spec, same_scale)
        if problem is not None:
            raise UserError(
                f"{folder}: its rows are of runs trained on {problem}. Remedy: bring the data of then back (data_dir=...), or choose "
                "another results=... for the data of now"
            )

    def _difference(
        self, then: Mapping[str, Any], spec: RunSpec, same_moments: Callable[[TrainingData], bool]
    ) -> str | None:
        """Words for data of then and now, which differ, or None. `same_moments` compares those of the training images."""
        now = content_of(self.dataset_of(spec))
        file = str(then.get("data_file"))
        content = then.get("data_sha256") or KNOWN_CONTENT.get((spec.dataset.name, file))
        if content is not None:
            return None if content == now["data_sha256"] else self._both(file, f"content {content[:16]}", now)
        data = self.prepared(spec)
        counts = all(then.get(name) in (None, data.facts[name]) for name in ("train_images", "split_sha256"))
        if counts and same_moments(data):
            return None
        return self._both(file, "other training images (their content was not recorded)", now)

    def _both(self, file: str, content: str, now: Mapping[str, str]) -> str:
        return (
            f"{file} of {content}, while {now['data_file']} of data_dir = {self.folder} is of content "
            f"{now['data_sha256'][:16]}"
        )


def pixel_scale(data: TrainingData) -> list[float]:
    """One number, or one a channel; of a scale a pixel the first ten."""
    scale: list[float] = data.standardizer.scale.unique().tolist()[:10]
    return scale


def content_of(dataset: Dataset) -> dict[str, str]:
    """What a checkpoint says of the data that its stack is trained on."""
    return {"data_file": dataset.provenance["file"], "data_sha256": dataset.sha256}


def measured_on(dataset: Dataset) -> dict[str, str]:
    """What an evaluation says of another data set, whose test half it is measured on."""
    return {"data_file": dataset.provenance["file"], "data_sha256": dataset.test_sha256}
