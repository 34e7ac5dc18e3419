"""Worker processes: their messages arrive, and no way in which one can end goes unnoticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from noise_reg.errors import UserError
from noise_reg.workers import Send, Task, run_in_workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


def sleeper(started: Path) -> Task:
    def task(send: Send) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        started.write_text(str(os.getpid()))
        time.sleep(60)

    return task


def unexpected(number: int) -> None:
    pytest.fail(f"a worker was killed by signal {number}")


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_workers_train_with_one_thread_and_send_in_order() -> None:
    before = torch.get_num_threads()

    def task(send: Send) -> None:
        weight = torch.ones(300, 300, requires_grad=True)
        (weight @ weight).sum().backward()  # threads and autograd work in a fork
        for n in range(3):
            send((os.getpid(), n, torch.get_num_threads()))

    (torch.ones(300, 300, requires_grad=True) @ torch.ones(300, 300)).sum().backward()
    found: dict[int, list[Any]] = {}
    run_in_workers([task, task], lambda m: found.setdefault(m[0], []).append(m[1:]), unexpected)
    assert list(found.values()) == [[(0, 1), (1, 1), (2, 1)]] * 2
    assert os.getpid() not in found
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("raised", "seen", "words"),
    [
        (UserError("no space"), UserError, "no space"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (ValueError("odd"), RuntimeError, r"(?s)a worker process failed:.*ValueError: odd"),
    ],
    ids=["mistake", "interrupt", "bug"],
)
def test_what_a_worker_raises_is_raised_here_and_the_others_end(
    raised: BaseException, seen: type[BaseException], words: str, tmp_path: Path
) -> None:
    def task(send: Send) -> None:
        wait_for(tmp_path / "started")
        raise raised

    with pytest.raises(seen, match=words):
        run_in_workers([sleeper(tmp_path / "started"), task], lambda message: None, unexpected)
    assert not is_alive(wait_for(tmp_path / "started"))


def test_a_killed_worker_is_counted_and_the_others_finish() -> None:
    found: list[Any] = []

    def killed(send: Send) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def task(send: Send) -> None:
        time.sleep(1)
        send("done")

    run_in_workers([killed, task], found.append, found.append)
    assert found == [signal.SIGKILL, "done"]  # said at once, not at the end


def test_a_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from noise_reg.workers import run_in_workers

def task(send):
    Path({str(tmp_path / "started")!r}).write_text(str(os.getpid()))
    while True:
        send("epoch")
        time.sleep(0.05)

run_in_workers([task], lambda message: None, print)
"""
    root = Path(__file__).parent.parent
    parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)})
    worker = wait_for(tmp_path / "started")
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)
