"""One run's folder, named by its key: what it holds, how it is written, how it is verified.

<key>/spec.json, history.csv, weights.safetensors
<key>/record.json                    the outcome and the checksums of the other three; written last
<key>/evaluations/<name>.json        added later, each with its own checksum
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import safetensors.numpy

from noise_reg.atomic import Chunks, explained, replace_file, sync_folder, write_file
from noise_reg.spec import ADDED_LATER
from noise_reg.store.sealed import (
    Damaged,
    Missing,
    Tensors,
    content_of_files,
    encode,
    nan_for_null,
    plain,
    read_bytes,
    seal,
    tensor_chunks,
    unseal,
)

RECORD = "record.json"
FILES = ("spec.json", "history.csv", "weights.safetensors")
STATUSES = ("completed", "diverged", "failed")


def describe(key: str, spec: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A run as a row: what names it and the scalars of its record. Raises ValueError if it lacks what every row needs."""
    try:
        named = {"key": key, "dataset": spec["dataset"]["name"], "arch": spec["arch"]["name"], "seed": spec["seed"]}
        named["classes"] = spec["dataset"].get("classes", ADDED_LATER["dataset.classes"])
        status = record["status"]
    except KeyError as error:
        raise ValueError(f"run {key}: its spec or record lacks {error}") from error
    if status not in STATUSES:
        raise ValueError(f"run {key}: status = {status!r}: must be one of {', '.join(STATUSES)}")
    return {name: value for name, value in record.items() if not isinstance(value, list | dict)} | named


def malformed(what: str) -> NoReturn:
    raise Damaged(f"{what}: not what any version of the code wrote")


def is_row(row: Any) -> bool:
    """[strength, accuracy]; null stands for a number that is not finite."""
    return isinstance(row, list) and len(row) == 2 and all(x is None or type(x) in (int, float) for x in row)


@dataclass(frozen=True)
class RunFolder:
    """Every reader verifies the file it reads and raises Missing, Damaged, or StoreError for what the system refuses."""

    path: Path

    @property
    def key(self) -> str:
        return self.path.name

    def write(
        self,
        part: Path,
        spec: Mapping[str, Any],
        history: pd.DataFrame,
        weights: Tensors,
        record: Mapping[str, Any],
    ) -> None:
        """All files of the run into the new folder `part`, synced, for a rename. Raises StoreError, ValueError, TypeError."""
        contents: dict[str, Chunks] = {
            "spec.json": [encode(spec)],
            "history.csv": [history.to_csv(index=False, lineterminator="\n").encode()],
            "weights.safetensors": tensor_chunks(weights, {}),
        }
        with explained(self.path):
            part.mkdir(parents=True)
        files = {}
        for name, chunks in contents.items():
            with explained(self.path / name):
                files[name] = write_file(part / name, chunks)
        with explained(self.path / RECORD):
            write_file(part / RECORD, [seal({"key": self.key, "record": record, "files": files})])
            sync_folder(part)

    def state(self) -> str:
        """'missing', 'complete' (every checksum holds) or 'damaged: <what>'."""
        try:
            self.verify()
        except Missing:
            return "missing"
        except Damaged as damage:
            return f"damaged: {damage}"
        return "complete"

    def verify(self) -> None:
        files = self._sealed_record()["files"]
        for name in FILES:
            self._verified(name, files)

    def has_record(self) -> bool:
        return (self.path / RECORD).exists()

    def record(self) -> dict[str, Any]:
        """The record that was written; what was None or not finite is NaN."""
        return dict(nan_for_null(self._sealed_record()["record"]))

    def spec(self) -> dict[str, Any]:
        found = json.loads(self._content("spec.json"))
        return found if isinstance(found, dict) else malformed("spec.json")

    def history(self) -> pd.DataFrame:
        text = self._content("history.csv")
        return pd.read_csv(io.BytesIO(text)) if text.strip() else pd.DataFrame()

    def weights(self) -> dict[str, np.ndarray]:
        return safetensors.numpy.load(self._content("weights.safetensors"))

    def row(self) -> dict[str, Any]:
        """See `describe`; the weights are not read."""
        try:
            return describe(self.key, self.spec(), self.record())
        except (ValueError, TypeError) as error:
            raise Damaged(str(error)) from error

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the record and with every evaluation."""
        return content_of_files([self.path / RECORD, *map(self.evaluation_path, self.evaluation_names())])

    def evaluation_path(self, name: str) -> Path:
        return self.path / "evaluations" / f"{name}.json"

    def evaluation_names(self) -> list[str]:
        return sorted(path.stem for path in self.path.glob("evaluations/[!.]*.json"))

    def write_evaluation(
        self, name: str, settings: Mapping[str, Any], rows: Sequence[tuple[float, float]], data: Mapping[str, str]
    ) -> None:
        """Replaces the evaluation `name`. Raises StoreError."""
        numbers = [[float(strength), float(accuracy)] for strength, accuracy in rows]
        document = {"key": self.key, "name": name, "settings": plain(settings), "rows": numbers}
        sealed = seal(document | {"data": data} if data else document)
        path = self.evaluation_path(name)
        with explained(path):
            path.parent.mkdir(exist_ok=True, parents=True)
            replace_file(path, [sealed])

    def evaluation(self, name: str) -> dict[str, Any]:
        """What was written: `settings`, `rows` of [strength, accuracy] with NaN where it is not finite, and `data` where given."""
        document = unseal(read_bytes(self.evaluation_path(name)))
        if (document.get("key"), document.get("name")) != (self.key, name):
            raise Damaged(f"it is evaluation {document.get('name')} of run {document.get('key')}")
        rows, data = document.get("rows"), document.get("data", {})
        if not (
            isinstance(rows, list) and all(map(is_row, rows)) and isinstance(data, dict) and "settings" in document
        ):
            malformed(f"evaluation {name}")
        return document | {"rows": nan_for_null(document["rows"])}

    def _sealed_record(self) -> dict[str, Any]:
        content = self._present(RECORD)
        try:
            document = unseal(content)
        except Damaged as damage:
            raise Damaged(f"{RECORD}: {damage}") from damage
        if document.get("key") != self.key:
            raise Damaged(f"{RECORD} is of run {document.get('key')}")
        record, files = document.get("record"), document.get("files")
        if not (isinstance(record, dict) and record.get("status") in STATUSES):
            malformed(f"{RECORD}: record")
        if not (isinstance(files, dict) and all(isinstance(files.get(name), dict) for name in FILES)):
            malformed(f"{RECORD}: files")
        return document

    def _content(self, name: str) -> bytes:
        return self._verified(name, self._sealed_record()["files"])

    def _verified(self, name: str, files: Mapping[str, Any]) -> bytes:
        content, written = self._present(name), files[name]
        if len(content) != written.get("size"):
            raise Damaged(f"{name} has {len(content)} bytes, {written.get('size')} were written")
        if hashlib.sha256(content).hexdigest() != written.get("sha256"):
            raise Damaged(f"{name}: its checksum is wrong")
        return content

    def _present(self, name: str) -> bytes:
        try:
            return read_bytes(self.path / name)
        except Missing as missing:
            if os.path.lexists(self.path):
                raise Damaged(f"{name} is missing") from missing
            raise
