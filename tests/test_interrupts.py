"""An interrupt ends a script in one line and exit status 130, whenever it comes, and is never called the user's mistake."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from tests.composed import ROOT
from tests.forked import run_script
from tests.told import TINY

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_during_the_imports_is_one_line(script: str, number: signal.Signals) -> None:
    class Interrupted:
        """Finds no module; the signal comes when hydra is looked for."""

        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "hydra":
                os.kill(os.getpid(), number)

    def first() -> None:
        del sys.modules["hydra"]
        sys.meta_path.insert(0, Interrupted())

    done = run_script(script, first=first)
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("swallowed", [False, True])
def test_an_interrupt_during_the_composing_is_not_a_mistake_in_the_configuration(
    number: signal.Signals, swallowed: bool
) -> None:
    def load(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if swallowed:
                raise AttributeError("'NoneType' object has no attribute 'x'") from None
            raise
        raise AssertionError("no signal came")

    def first() -> None:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]

    done = run_script("train.py", *TINY, first=first)
    assert done.returncode == 130 and done.stderr.startswith("interrupted: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_while_a_task_imports_torch_is_one_line(number: signal.Signals, tmp_path: Path) -> None:
    """torch's C++ ends the process with a page of its own on a KeyboardInterrupt in the middle of its import."""

    def first() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
            del sys.modules[name]
        for name in [name for name in sys.modules if name.startswith("noise_reg.")]:
            del sys.modules[name]
        (tmp_path / "torch.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
        sys.path.insert(1, str(tmp_path))

    done = run_script("train.py", *TINY, f"store={tmp_path}", first=first)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    def first() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        load = ConfigLoaderImpl.load_configuration

        def interrupted(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return load(self, *args, **kwargs)

        ConfigLoaderImpl.load_configuration = interrupted  # type: ignore[method-assign]

    done = run_script("train.py", "seed=-1", *TINY, first=first)
    assert done.returncode == 2 and done.stderr.startswith("seed = -1: "), done.stderr
