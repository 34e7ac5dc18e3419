"""Modules of users, imported by name for what they register."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noise_reg.errors import UserError


def load_plugins(names: Any) -> None:
    """Imports each module, from the current folder too. Raises UserError for one that is not there or fails."""
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UserError(f"plugins = {names}: must be a list of modules, as plugins=[my_module]")
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        try:
            importlib.import_module(name)
        except UserError as error:
            raise UserError(f"plugins = {list(names)}: {name}: {error}") from error
        except ModuleNotFoundError as error:
            if error.name is not None and name.split(".")[: error.name.count(".") + 1] == error.name.split("."):
                raise UserError(
                    f"plugins = {list(names)}: there is no module {error.name}, neither in {here} nor installed"
                ) from error
            raise UserError(f"plugins = {list(names)}: {name} imports {error.name}, which is not installed") from error
        except (Exception, SystemExit) as error:  # the user's code: whatever it raises is theirs to mend
            raise UserError(f"plugins = {list(names)}: {name} failed: {type(error).__name__}: {error}") from error
