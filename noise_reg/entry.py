"""What every script shares: a mistake in what was asked for, or something amiss around it, ends in one message on stderr and
exit status 2, an interrupt in 130, a fault of the program in 1 with its traceback kept in a file.

NOISE_REG_TRACEBACK=1 shows every traceback.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from noise_reg import interrupts
from noise_reg.atomic import at_home
from noise_reg.compose import CONF, composed
from noise_reg.errors import UserError
from noise_reg.faults import explanation, is_of_configuration
from noise_reg.shape import check_shape, value_of

Result = TypeVar("Result")
PATHS = ("store", "data_dir", "results", "out")  # settings in which a leading ~ is the home folder
INTERRUPTED = (
    "interrupted: finished runs are stored, the others go on from their last checkpoint: run the same command again"
)


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a Hydra entry point as a program."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal that has no sigma
    try:
        interrupts.raise_interrupt()
        main()
        sys.stdout.flush()  # a full disk under our output is told here, not by the interpreter's end
    except BrokenPipeError:  # whoever read our output has left, as `| head` does
        silence(sys.stdout)
        sys.exit(1)
    except KeyboardInterrupt:
        leave(INTERRUPTED, interrupts.STATUS)
    except Exception as error:  # noqa: BLE001 - whatever Hydra meets before the task begins
        leave_with(error, composing=True)
    interrupts.leave_at_once()
    sys.exit(0)


def told(task: Callable[..., Result]) -> Callable[..., Result]:
    """The task, which ends the program on an exception itself: Hydra would put lines of its own before the message."""

    @functools.wraps(task)
    def tells(*args: Any) -> Result:
        try:
            check_added()
            for cfg in [args[0]] if isinstance(args[0], DictConfig) else args[0]:
                mean_home(cfg)
            if isinstance(args[0], DictConfig):
                check(args[0])  # the jobs of a sweep: `sweep.read_jobs`, which names the mistakes of all of them
            return task(*args)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - explained, or kept in a file
            leave_with(error, composing=False)

    return tells


def check(cfg: DictConfig) -> None:
    """Raises SpecError for a value of another kind than the file of the running script in conf/ has there."""
    check_shape(cfg, CONF, Path(sys.argv[0]).stem)


def mean_home(cfg: DictConfig) -> None:
    """A leading `~` in a path of `cfg` becomes the home folder."""
    for name in PATHS:
        value = value_of(cfg, name)
        if isinstance(value, str):
            cfg[name] = at_home(value)


def leave_with(error: Exception, *, composing: bool) -> NoReturn:
    """Ends the program: status 2 where the input or the machine is to blame, 1 where the program is, 130 where it is an interrupt's."""
    if interrupts.received:  # on its way here a library made another exception of it
        leave(INTERRUPTED, interrupts.STATUS)
    text = "".join(traceback.format_exception(error))
    if os.environ.get("NOISE_REG_TRACEBACK") not in (None, "", "0"):
        print(text, file=sys.stderr)
    message = ((wrong_choice(error) or wrong_sweep(error)) if composing else None) or explanation(
        error, composing=composing
    )
    if message is not None:
        leave(with_known_keys(message) if is_of_configuration(error) else message, 2)
    leave(
        f"unexpected {type(error).__name__}: {error}\nThis is a fault of noise_reg, not of what was asked for. {kept(text)}; nothing "
        "already stored is lost. Remedy: report it with that traceback, or change what was asked for.",
        1,
    )


def wrong_sweep(error: Exception) -> str | None:
    """Which override it was, where its values cannot be listed, as those of range(0,1,0)."""
    for argument in sys.argv[1:]:
        try:
            parsed = OverridesParser.create().parse_override(argument)
            if parsed.is_sweep_override():
                next(iter(parsed.sweep_iterator()), None)
        except Exception as same:  # noqa: BLE001 - is it the one?
            if type(same) is type(error) and str(same) == str(error) and not is_of_configuration(error):
                return f"{argument}: has no values: {error}. Remedy: mend it, or list the values, as seed=0,1,2"
    return None


def wrong_choice(error: Exception) -> str | None:
    """Which override it was, where Hydra only says that a group is chosen by text."""
    if not (isinstance(error, ValueError) and str(error).startswith("Config group override must be")):
        return None
    for key, _, value in (argument.lstrip("+~").partition("=") for argument in sys.argv[1:]):
        known = sorted(file.stem for file in (CONF / key).glob("*.yaml")) if key and (CONF / key).is_dir() else []
        if known and value not in known:
            return f"{key} = {value}: must be one of {', '.join(known)}"
    return None


def kept(text: str) -> str:
    """Where the traceback `text` is written down."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="noise_reg-traceback-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
        return f"The traceback is in {file.name}"
    except OSError:
        return "The traceback could not be written: NOISE_REG_TRACEBACK=1 shows it"


def check_added() -> None:
    """Raises UserError for a key that was added with '+' and that nobody would read."""
    chosen: Any = OmegaConf.to_container(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    added = [override.lstrip("+").partition("=")[0] for override in chosen if override.startswith("+")]
    if not added:
        return
    known = base_config()
    for key in added:
        if key.partition(".")[0] not in known:
            raise UserError(f"+{key}: unknown key; known are {', '.join(sorted(map(str, known)))}")


def base_config() -> DictConfig:
    """The configuration of this script without any override."""
    with composed(Path(sys.argv[0]).stem) as cfg:
        return cfg


def with_known_keys(message: str) -> str:
    """Hydra's message on a key that is not there, with those that are instead of its advice to add it."""
    found = re.match(r"Could not override '([^']+)'", message)
    if found is None:
        return message
    group, _, name = found[1].rpartition(".")
    whole = base_config()
    cfg = OmegaConf.select(whole, group, throw_on_missing=False) if group else whole
    if isinstance(cfg, DictConfig) and name in cfg:  # it stands for another node
        now = ", ".join(f"{key!s}: {cfg[key]}" for key in cfg)
        return f"{found[1]}: {group} is set as a whole: give all of it, as in '{group}={{{now}}}'"
    known = ", ".join(sorted(map(str, cfg))) if isinstance(cfg, DictConfig) else "none"
    return f"{found[1]}: unknown key{f' of {group}' if group else ''}; known are {known}"


def leave(message: str, status: int) -> NoReturn:
    interrupts.leave_at_once()  # a second one
    try:
        sys.stdout.flush()
    except OSError:  # the same trouble again
        silence(sys.stdout)
    print(message, file=sys.stderr)
    sys.exit(status)


def silence(stream: Any) -> None:
    """Nothing more is written to `stream`, which nobody can read."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
