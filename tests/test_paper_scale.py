"""Artefacts in pieces: stopped when time is over, gone on with, failures named."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.composed import ROOT
from tests.forked import run_script


def called(*overrides: str) -> subprocess.CompletedProcess[str]:
    return run_script("paper_scale.py", *overrides, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_pieces_stop_in_time_and_go_on_to_the_end(tmp_path: Path) -> None:
    overrides = [
        "device=cpu",
        "wandb=disabled",
        "workers=1",
        "preset.panels.fc.seeds=1",
        f"store={tmp_path}/runs",
        f"results={tmp_path}",
        "name=small",
    ]
    settings = ["preset=demo", "artefacts=[demo]", f"overrides={json.dumps(overrides)}"]
    first = called(*settings, "minutes=0.12")
    assert first.returncode == 75, first.stderr
    assert "demo: stopped: time was over" in first.stdout and "call again to go on" in first.stdout
    assert "run the same command again" in first.stderr and not (tmp_path / "demo-small").exists()
    last = called(*settings, "minutes=4")
    assert last.returncode == 0, last.stderr
    assert "demo: done" in last.stdout and (tmp_path / "demo-small" / "fig2.png").exists()


def test_what_fails_is_named_and_the_others_are_tried(tmp_path: Path) -> None:
    overrides = json.dumps([f"data_dir={tmp_path}", "download=false"])
    found = called("preset=smoke", "artefacts=[fig3,fig9]", f"overrides={overrides}")
    assert found.returncode == 2
    assert "fig3: failed" in found.stdout and "fig9: failed" in found.stdout
    assert "fig3, fig9: failed, see what they say above" in found.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("artefacts=[fig20]", "artefacts = ['fig20']: must be a list, each one of demo, fig2"),
        ("minutes=0", "minutes = 0: must be a number above 0"),
    ],
)
def test_impossible_settings_are_named_before_any_work(override: str, message: str) -> None:
    found = called(override)
    assert (found.returncode, found.stdout) == (2, "")
    assert message in found.stderr
