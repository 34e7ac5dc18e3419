"""Artefacts one after another, for so many minutes: a program each, told to stop when the time is over; the store keeps the rest."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from noise_reg.compose import CONF
from noise_reg.errors import UserError
from noise_reg.spec import SpecError

ROOT = Path(__file__).parent.parent
LEAST = 5.0  # seconds: with less left nothing is begun
DONE, STOPPED, FAILED, NOT_BEGUN = "done", "stopped: time was over", "failed", "not begun"
UNFINISHED = 75  # exit status: nothing is wrong, call again (EX_TEMPFAIL)


def paper_scale(cfg: DictConfig) -> int:
    """Runs what `conf/paper_scale.yaml` lists; the exit status, 0 if all are drawn. UserError if some failed."""
    names, minutes = list(cfg.artefacts), cfg.minutes
    known = sorted(path.stem for path in (CONF / "artefact").glob("*.yaml"))
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise SpecError(f"artefacts = {names}: must be a list, each one of {', '.join(known)}")
    if not isinstance(minutes, int | float) or not minutes > 0:
        raise SpecError(f"minutes = {minutes}: must be a number above 0")
    overrides = [f"preset={cfg.preset.name}", *map(str, OmegaConf.to_object(cfg.overrides))]  # type: ignore[arg-type]
    deadline = time.monotonic() + 60 * minutes
    states = {name: one(name, overrides, deadline - time.monotonic(), cfg.grace) for name in names}
    for name, state in states.items():
        print(f"{name}: {state}")
    failed = [name for name, state in states.items() if state == FAILED]
    if failed:
        raise UserError(f"{', '.join(failed)}: failed, see what they say above; the others go on when called again")
    if all(state == DONE for state in states.values()):
        return 0
    print("call again to go on", flush=True)
    return UNFINISHED


def one(name: str, overrides: Sequence[str], seconds: float, grace: float) -> str:
    """How an artefact ended that had so many seconds."""
    if seconds < LEAST:
        return NOT_BEGUN
    print(f"{name}: {seconds / 60:.1f} minutes left", flush=True)
    call = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), f"artefact={name}", *overrides]
    process = subprocess.Popen(call)
    try:
        return DONE if process.wait(seconds) == 0 else FAILED
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return STOPPED
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
