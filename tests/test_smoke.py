"""Every artefact's smoke preset ends within a minute of one core, called as a user would: `python scripts/... preset=smoke`.

All are in `make test-all`; `make test` takes a third of them, another one each day.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

import noise_reg.pipeline
from noise_reg.data import Dataset
from noise_reg.data.dataset import IMAGE_SHAPES, build
from tests.composed import CONF
from tests.forked import run_script

SECONDS = 60.0  # of one core, from process start to exit
START = 8.0  # of them, for what a fork of these tests has imported already
IMAGES = {"usps": (7291, 2007), "cifar10": (50000, 10000)}  # for training and for test, where not as many as MNIST's
DRAWN = ["drawings.py"], ["study.py", "study=toy"]  # seconds at their only scale
GUARDED = ["guard=false"]  # other tests run beside this one, so that times say little here

ARTEFACTS = [["reproduce.py", f"artefact={path.stem}"] for path in sorted((CONF / "artefact").glob("*.yaml"))]
STUDIES = [[f"{path.stem}.py"] for path in sorted(CONF.glob("*.yaml")) if "\npresets:" in path.read_text()]
CALLS = [*([*call, "preset=smoke"] for call in (*ARTEFACTS, *STUDIES)), *DRAWN]


def todays(calls: list[list[str]]) -> list[object]:
    """All calls, those that are not today's third marked as slow."""
    day = datetime.datetime.now(datetime.UTC).date().toordinal()
    marks = [() if (place + day) % 3 == 0 else (pytest.mark.slow,) for place in range(len(calls))]
    return [pytest.param(call, marks=mark, id=" ".join(call)) for call, mark in zip(calls, marks, strict=True)]


def made(name: str, *_: object) -> Dataset:
    """A data set of the real one's size and name whose classes can be learned: a pattern each, mostly dark, under noise."""
    rng = np.random.default_rng(0)
    channels, height, width = IMAGE_SHAPES[name]
    pattern = rng.integers(0, 256, (10, height, width, channels)) * (rng.random((10, height, width, 1)) < 0.2)
    arrays: dict[str, np.ndarray] = {}
    for part, count in zip(("train", "test"), IMAGES.get(name, (60000, 10000)), strict=True):
        labels = rng.integers(0, 10, 1000)
        images = (0.6 * pattern[labels] + 0.1 * rng.integers(0, 256, (1000, height, width, channels))).astype(np.uint8)
        again = np.arange(count) % 1000
        arrays |= {f"{part}_images": images[again].squeeze(-1) if channels == 1 else images[again]}
        arrays |= {f"{part}_labels": labels[again].astype(np.uint8)}
    return build(name, arrays, "made", {"source": "made", "file": "none", "sha256": {}, "note": ""})


def on_one_core_with_made_data() -> None:
    torch.set_num_threads(1)
    load = noise_reg.pipeline.load
    noise_reg.pipeline.load = lambda name, *where: load(name, *where) if name == "digits" else made(name)


@pytest.mark.parametrize("call", todays(CALLS))
def test_a_smoke_preset_takes_seconds(call: list[str], tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    settings = GUARDED if "benchmark.py" in call else []
    env = {**os.environ, "NOISE_REG_DATA_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = run_script(*call, *settings, cwd=tmp_path, env=env, first=on_one_core_with_made_data)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-2000:]
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds + START < SECONDS
    written = list((tmp_path / "results").glob("*/provenance.json"))
    assert written or "benchmark.py" in call
    if "preset=smoke" in call:
        assert all(json.loads(path.read_text())["preset"] == "smoke" for path in written)
