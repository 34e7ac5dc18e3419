"""Runs a script of the project as its users do, but in a fork of the tests' process: torch is imported already, which takes a new
process most of its time."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.global_hydra import GlobalHydra

from tests.composed import ROOT

SECONDS = 300  # after which the script is killed


class Running:
    """A script that runs: a small `subprocess.Popen`."""

    def __init__(
        self,
        name: str,
        *overrides: str,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        first: Callable[[], object] | None = None,
    ) -> None:
        """`python scripts/<name> <overrides>`; `first` is called in the new process before it."""
        self.call = [str(ROOT / "scripts" / name), *overrides]
        self.out, self.err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(self.out.fileno(), 1)
            os.dup2(self.err.fileno(), 2)
            become(self.call, cwd, env, first)

    def poll(self) -> int | None:
        return self.wait(os.WNOHANG)

    def wait(self, options: int = 0) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def finish(self) -> subprocess.CompletedProcess[str]:
        status = self.wait()
        assert status is not None
        texts = []
        for file in (self.out, self.err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        return subprocess.CompletedProcess(self.call, status, *texts)


def run_script(name: str, *overrides: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return Running(name, *overrides, **how).finish()


def become(call: list[str], cwd: Path, env: Mapping[str, str] | None, first: Callable[[], object] | None) -> NoReturn:
    status: Any = 1
    try:
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        GlobalHydra.instance().clear()
        sys.argv, sys.path[0] = call, str(ROOT / "scripts")
        if first:
            first()
        runpy.run_path(call[0], run_name="__main__")
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:  # noqa: BLE001  whatever it is, the fork must not go on as the tests
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
