"""What a script would say and how it would end, without a process of its own."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from noise_reg import entry
from tests.composed import SMALL, composed

TINY = [
    *SMALL,
    "arch.widths=[3]",
    "max_epochs=1",
    "optimizer.batch_size=50",
    "corruption.grid=[0.5]",
    "corruption.draws=1",
]
TINY += ["workers=1", "device=cpu", "download=false"]


def ending(action: Callable[[], object], *, composing: bool = False) -> tuple[int, str]:
    """Exit status and stderr of a program that does `action`."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            action()
        except SystemExit as left:
            return int(str(left.code)), err.getvalue()
        except Exception as error:  # noqa: BLE001 - as `entry.run` does
            try:
                entry.leave_with(error, composing=composing)
            except SystemExit as left:
                return int(str(left.code)), err.getvalue()
    return 0, err.getvalue()


def assert_told(action: Callable[[], object], *, composing: bool = False) -> int:
    status, err = ending(action, composing=composing)
    assert status in (0, 2), traceback_of(err)
    assert "Traceback" not in err
    return status


def traceback_of(err: str) -> str:
    """What `err` says, and what stands in the file that it names."""
    words = [word.rstrip(";") for word in err.split() if "noise_reg-traceback-" in word]
    return err + "".join(Path(word).read_text() for word in words if Path(word).exists())


def base(script: str, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> DictConfig:
    monkeypatch.setattr(sys, "argv", [f"{script}.py"])
    with composed(script, *overrides) as cfg:
        return copy.deepcopy(cfg)


def changed(cfg: DictConfig, field: str, value: Any) -> DictConfig:
    new = copy.deepcopy(cfg)
    OmegaConf.update(new, field, value, merge=False, force_add=True)
    return new
