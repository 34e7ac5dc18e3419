"""What every script shares: a user's mistake ends in one line on stderr and exit status 2, an interrupt in 130."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from noise_reg.errors import UserError

Result = TypeVar("Result")
INTERRUPTED = (
    "interrupted: finished runs are stored, the others go on from their last checkpoint: run the same command again"
)


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a Hydra entry point as a program."""
    signal.signal(signal.SIGTERM, terminated)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us, and a user's mistake is shown without a traceback
    try:
        main()
    except UserError as error:
        leave(str(error), 2)
    except BrokenPipeError:  # whoever read our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        leave(INTERRUPTED, 130)
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("hydra", "omegaconf"):
            raise
        leave(
            with_known_keys(str(error)), 2
        )  # a configuration that does not compose: Hydra's message names it and what is there
    sys.exit(0)


def told(task: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """The task, which ends the program on a user's mistake itself: Hydra would put a line of its own before the message."""

    @functools.wraps(task)
    def tells(cfg: DictConfig) -> Result:
        try:
            check_added()
            return task(cfg)
        except UserError as error:
            leave(str(error), 2)

    return tells


def check_added() -> None:
    """Raises UserError for a key that was added with '+' and that nobody would read."""
    chosen = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    added = [override.lstrip("+").partition("=")[0] for override in chosen if override.startswith("+")]
    if not added:
        return
    known = base_config()
    for key in added:
        if key.partition(".")[0] not in known:
            raise UserError(f"+{key}: unknown key; known are {', '.join(sorted(map(str, known)))}")


def base_config() -> DictConfig:
    """The configuration of this script without any override."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
            return compose(Path(sys.argv[0]).stem)
    finally:
        GlobalHydra.instance().hydra = running


def with_known_keys(message: str) -> str:
    """Hydra's message on a key that is not there, with those that are instead of its advice to add it."""
    found = re.match(r"Could not override '([^']+)'", message)
    if found is None:
        return message
    group, _, name = found[1].rpartition(".")
    whole = base_config()
    cfg = OmegaConf.select(whole, group) if group else whole
    if isinstance(cfg, DictConfig) and name in cfg:  # it stands for another node
        now = ", ".join(f"{key!s}: {cfg[key]}" for key in cfg)
        return f"{found[1]}: {group} is set as a whole: give all of it, as in '{group}={{{now}}}'"
    known = ", ".join(sorted(map(str, cfg))) if isinstance(cfg, DictConfig) else "none"
    return f"{found[1]}: unknown key{f' of {group}' if group else ''}; known are {known}"


def terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def leave(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(status)
