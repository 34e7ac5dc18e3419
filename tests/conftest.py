"""Fixtures of all tests."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

# Several test processes share the cores: a thread that waits must not keep one busy. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which takes most of the time of a test that looks at verdicts."""

    def savefig(self: Figure, file: BytesIO, **how: Any) -> None:
        file.write(b"not rendered")

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which `file` is a file and `loop` a link to itself."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path
