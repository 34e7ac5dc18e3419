"""What Ctrl-C and SIGTERM do to a script: one line on stderr and exit status 130, whenever they come.

A script calls `leave_at_once` before its slow imports, `entry.run` then `raise_interrupt`. Nothing here takes time to import.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

STATUS = 130
received = False  # whether a signal has come since `raise_interrupt`; a library may have made another exception of it


def leave_at_once() -> None:
    """From now on an interrupt ends the process there and then: for the time in which nothing is begun yet, or all is in order."""
    handle_by(left)


def raise_interrupt() -> None:
    """From now on an interrupt is a KeyboardInterrupt, so that what was begun is put in order."""
    handle_by(raised)


def handle_by(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell script
            signal.signal(number, handler)


def left(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(STATUS)


def raised(number: int, frame: FrameType | None) -> NoReturn:
    """A KeyboardInterrupt; while torch is being imported, whose C++ aborts on one, the end there and then."""
    global received
    received = True
    if getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False):
        left(number, frame)
    raise KeyboardInterrupt
