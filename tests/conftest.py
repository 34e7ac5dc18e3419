"""Fixtures of all tests."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which takes most of the time of a test that looks at verdicts."""

    def savefig(self: Figure, file: BytesIO, **how: Any) -> None:
        file.write(b"not rendered")

    monkeypatch.setattr(Figure, "savefig", savefig)
