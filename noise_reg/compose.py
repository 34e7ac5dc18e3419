"""Where the configuration folder conf/ is, and how it is composed outside a script, as Hydra does within one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from noise_reg import sweep_folder  # noqa: F401 - conf/ names its resolver
from noise_reg.errors import UserError
from noise_reg.faults import one_line


def conf_folder() -> Path:
    """conf/ within the installed package, else beside the package in a checkout."""
    package = Path(str(resources.files("noise_reg")))
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


CONF = conf_folder()


@contextmanager
def composed(name: str, overrides: Iterable[str] = ()) -> Iterator[DictConfig]:
    """The configuration conf/`name`.yaml with `overrides`; further ones may be composed within.

    A Hydra that is running already (of a script, of the caller's own application) is left as it was. Raises UserError for overrides
    that cannot be composed.
    """
    running, base = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            try:
                cfg = compose(name, overrides=list(overrides))
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(one_line(error)) from error
            yield cfg
    finally:
        GlobalHydra.instance().hydra = running
        VersionBase.instance().version_base = base
