"""Whether a composed configuration has the shape of its files in conf/: groups are mappings, numbers are numbers.

What a value may be beyond that is checked by whoever uses it (`spec.parse`, each study's own checks).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from noise_reg.spec import SpecError

NAMED_BY_FILE = ("artefact", "preset", "study")  # groups whose shape is that of the file of their name


def check_shape(cfg: DictConfig, conf: Path, script: str) -> None:
    """Raises SpecError for the first value of another kind than conf/`script`.yaml has there."""
    written = file_of(conf / f"{script}.yaml")
    if written is None:
        return
    check_references(cfg)
    for group, optional in groups_of(written):
        value = value_of(cfg, group)
        if value is None and optional:
            continue
        if not isinstance(value, Mapping):
            file = file_that_holds(value, group)
            if file is not None:
                raise SpecError(f"{file}: must hold a mapping, as the files in conf/{group}/ do, and holds {value!r}")
            known = ", ".join(sorted(file.stem for file in (conf / group).glob("*.yaml")))
            raise SpecError(f"{group} = {value!r}: must be one of {known}")
        own_file = file_of(conf / group / f"{value.get('name')}.yaml") if group in NAMED_BY_FILE else None
        if own_file is not None:
            check_alike(value, OmegaConf.to_container(own_file), group)
    own = OmegaConf.create({key: written._get_node(key) for key in written if key not in ("defaults", "hydra")})
    if "presets" in own and isinstance(cfg.get("preset"), DictConfig):
        own.preset = cfg.preset
    for key in own:
        if key != "preset" and leads_somewhere(cfg, key):
            check_alike(value_of(cfg, str(key)), value_of(own, str(key)), str(key))


@functools.cache
def file_of(path: Path) -> DictConfig | None:
    """A configuration file of ours, read once; None where there is none of that name."""
    try:
        found = OmegaConf.load(path)
    except OSError:
        return None
    assert isinstance(found, DictConfig)
    return found


def groups_of(written: DictConfig) -> Iterator[tuple[str, bool]]:
    """The groups that a primary configuration has as mappings, and whether each may be left out."""
    for entry in written.get("defaults", []):
        if not isinstance(entry, DictConfig):
            continue
        choices: Any = OmegaConf.to_container(entry, resolve=False)
        for name, choice in choices.items():
            words = str(name).split()
            if "override" not in words and "@" not in str(name):
                yield words[-1], "optional" in words or choice is None


def file_that_holds(value: Any, group: str) -> Path | None:
    """The file of a configuration group that is all `value`, as only a user's can be where that is no mapping."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() and value is not None else []
    for source in sources:
        for file in sorted((Path(source.path) / group).glob("*.yaml")) if source.schema == "file" else []:
            if OmegaConf.load(file) == value:
                return file
    return None


def check_references(cfg: DictConfig | ListConfig, where: str = "") -> None:
    """Raises SpecError for a reference that goes in a circle or whose resolver fails; one to a key that is not there is explained
    by whoever reads it, as it may say what is missing."""
    keys: Any = cfg if isinstance(cfg, DictConfig) else range(len(cfg))
    for key in keys:
        node, name = cfg._get_node(key), f"{where}{key}"
        if isinstance(node, DictConfig | ListConfig) and not (
            node._is_none() or node._is_missing() or node._is_interpolation()
        ):
            check_references(node, f"{name}.")
            continue
        try:
            cfg[key]
        except (InterpolationKeyError, MissingMandatoryValue):
            continue
        except (OmegaConfBaseException, RecursionError) as error:
            written = node._value() if isinstance(node, Node) else node
            what = str(error).splitlines()[0]
            raise SpecError(
                f"{name} = {written}: this reference cannot be followed: {what}. Remedy: give {name} a value of its own"
            ) from error


def value_of(cfg: DictConfig, key: Any) -> Any:
    """`cfg[key]` in Python's own types, references followed; a mapping lacks the values whose references lead nowhere."""
    try:
        node = cfg[key]
        if isinstance(node, DictConfig):
            return {name: value_of(node, name) for name in node if leads_somewhere(node, name)}
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except (OmegaConfBaseException, RecursionError):  # whoever reads it says what is wrong with it
        return None


def leads_somewhere(cfg: DictConfig, key: Any) -> bool:
    try:
        cfg[key]
    except (OmegaConfBaseException, RecursionError):
        return False
    return True


def check_alike(value: Any, known: Any, where: str) -> None:
    """Raises SpecError where `value` is of another kind than `known`; null, 'auto' and text that may be a reference say nothing."""
    if value is known or known is None or known == "auto":
        return
    if isinstance(known, str) and "${" in known:
        return
    if not is_alike(value, known):
        raise SpecError(f"{where} = {value!r}: must be {noun(known)}")
    if isinstance(known, Mapping):
        for name in known:
            if name in value:
                check_alike(value[name], known[name], f"{where}.{name}")
    elif isinstance(known, list) and known and all(is_alike(item, known[0]) for item in known):
        for item in value:
            if not is_alike(item, known[0]):
                raise SpecError(f"{where} = {value!r}: must be a list, each {noun(known[0])}")


def is_alike(value: Any, known: Any) -> bool:
    if isinstance(known, bool | str | Mapping | list):
        kind = next(kind for kind in (bool, str, Mapping, list) if isinstance(known, kind))
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or (isinstance(known, float) and math.isfinite(value))


def noun(known: Any) -> str:
    if isinstance(known, bool):
        return "true or false"
    if isinstance(known, str):
        return "text"
    if isinstance(known, Mapping):
        return "a mapping, as {" + ", ".join(f"{name}: ..." for name in known) + "}"
    return "a list" if isinstance(known, list) else "a whole number" if isinstance(known, int) else "a finite number"
