"""Worker processes for the CPU: a single-threaded process a core takes small operations further than threads that share one.

They are forked, so they start at once and share data in memory. A child runs one thread: OpenMP's threads do not survive
a fork, and as DataLoader's workers do, a child that asks for no others needs none.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

import torch

from noise_reg.errors import UserError
from noise_reg.faults import explanation

Send = Callable[[Any], None]
Task = Callable[[Send], None]


def can_fork(device: torch.device) -> bool:
    """Whether processes that compute on `device` can be forked from this one: not from one that may hold CUDA's context."""
    return sys.platform == "linux" and device.type == "cpu" and not torch.cuda.is_available()


def possible_workers(device: torch.device) -> int:
    """How many worker processes suit this machine: one a thread that torch would use, or 1 where forking is no option."""
    return torch.get_num_threads() if can_fork(device) and not multiprocessing.current_process().daemon else 1


def run_in_workers(tasks: Sequence[Task], receive: Callable[[Any], None], lost: Callable[[int], None]) -> None:
    """Runs each task in a process of its own and hands what they send to `receive`, in this process; `lost` is told the signal that
    killed a worker, if one did, and the others go on.

    What `faults.explanation` can explain of a task's exceptions is raised here as a UserError, a KeyboardInterrupt as itself, any
    other exception as a RuntimeError with its traceback; then the other workers are terminated, as they are by an interrupt of this
    process.
    """
    workers: dict[Connection, ForkProcess] = {}
    try:
        for task in tasks:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            workers[ours] = start_fork(serve, task, theirs, os.getpid())
            theirs.close()
        open_ends = list(workers)
        while open_ends:
            for end in wait(open_ends):
                assert isinstance(end, Connection)
                try:
                    kind, value = end.recv()
                except EOFError:
                    open_ends.remove(end)
                    workers[end].join()
                    if (code := workers[end].exitcode or 0) < 0:
                        lost(-code)
                    continue
                if kind == "failed":
                    raise value
                receive(value)
    finally:
        for end, process in workers.items():
            if process.is_alive():
                process.terminate()
            process.join()
            end.close()


def start_fork(target: Callable[..., None], *arguments: Any) -> ForkProcess:
    """A running daemon process."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)
    with warnings.catch_warnings():  # from 3.12 on Python warns of forks beside threads; see above
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def serve(task: Task, end: Connection, parent: int) -> None:
    """A worker's life. It ends with its parent's: at the first message that finds another parent."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # an interrupt from the keyboard reaches the parent, which passes it on
    torch.set_num_threads(1)

    def send(value: Any) -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt
        end.send(("message", value))

    try:
        task(send)
        return
    except BrokenPipeError:
        return
    except KeyboardInterrupt:
        failure: BaseException = KeyboardInterrupt()
    except Exception as error:  # noqa: BLE001 - it is raised again, in the parent
        message = explanation(error, composing=False)
        failure = RuntimeError(f"a worker process failed:\n{traceback.format_exc()}")
        failure = UserError(message) if message is not None else failure
    with suppress(BrokenPipeError):
        end.send(("failed", failure))
