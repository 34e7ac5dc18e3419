"""A leading `~` in any path that a command takes is the home folder."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from noise_reg import entry
from tests.composed import composed


@pytest.mark.parametrize(
    ("script", "name"),
    [("train", "store"), ("train", "data_dir"), ("evaluate", "store"), ("evaluate", "data_dir"), ("reproduce", "store"),
     ("reproduce", "data_dir"), ("reproduce", "results"), ("precision", "results"), ("study", "results"),
     ("report", "results"), ("report", "out"), ("drawings", "results")],
)  # fmt: skip
def test_home_is_meant_in_every_path(script: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [f"{script}.py"])
    with composed(script, f"{name}='~/here'") as cfg:
        task = entry.told(lambda given: given[name])
        assert task(copy.deepcopy(cfg)) == f"{tmp_path}/here"


def test_a_multirun_means_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with composed("train", "store='~/here'", "data_dir='~'") as cfg:

        def task(configs: list[DictConfig]) -> list[str]:
            return [str(one[name]) for one in configs for name in ("store", "data_dir")]

        assert entry.told(task)([cfg]) == [f"{tmp_path}/here", str(tmp_path)]
