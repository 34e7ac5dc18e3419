"""Where a multirun keeps what Hydra and its sweepers write: in the store, which may be one that can only be read."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def sweep_folder(store: Any) -> str:
    """`<store>/hydra`, or a temporary folder where nothing can be written: with everything stored nothing needs to be, and a store
    that is no folder is refused with its own message."""
    if isinstance(store, str) and store and "\0" not in store:
        try:
            folder = Path(store).expanduser().absolute() / "hydra"
            there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
            with tempfile.TemporaryFile(dir=there):
                return str(folder)
        except (OSError, ValueError, RuntimeError):  # the last: no home for '~'
            return temporary_folder()
    return temporary_folder()


@functools.cache
def temporary_folder() -> str:
    """One a process, removed at its end."""
    folder = tempfile.mkdtemp(prefix="noise_reg-sweep-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
