"""From a composed configuration to a checked job: the specification of a run, its method's name, and where it runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from noise_reg.atomic import at_home
from noise_reg.decimals import as_meant, shortest
from noise_reg.evaluation_spec import (
    AttackSpec,
    CertificateSpec,
    CorruptionSpec,
    EvaluationSpec,
    PerturbationSpec,
    ShiftSpec,
    ValidationSpec,
)
from noise_reg.plugins import load_plugins
from noise_reg.spec import DATASETS, RunSpec, SpecError, Strengths, checked, number, one_of, parse

STRENGTHS = tuple(f.name for f in dataclasses.fields(Strengths))
REGULARIZER_KEYS = {"name", "sigma", "takes_sigma", "default", *STRENGTHS}
RUN_KEYS = (
    "dataset",
    "arch",
    "optimizer",
    "reading",
    "distribution",
    "max_epochs",
    "stop_accuracy",
    "precision",
    "seed",
)


def auto_or_whole(value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return None if value == "auto" or whole else "auto or a whole number of at least 1"


def device_check(value: str) -> str | None:
    kind, _, number_ = value.partition(":")
    known = kind in ("auto", "cpu", "cuda") and (not number_ or (kind == "cuda" and number_.isdigit()))
    return None if known else "one of auto, cpu, cuda, cuda:<number>"


def is_path(value: str) -> bool:
    """Whether the system takes `value` as a path's name."""
    try:
        return bool(value) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Runtime:
    """Where and how runs are made; none of it enters a run's key."""

    device: str = checked(device_check)
    store: str = checked(lambda value: None if is_path(value) else "the folder of the store")
    data_dir: str | None = checked(lambda value: None if is_path(value) else "a folder, or null")
    download: bool = checked(one_of(True, False))
    stack_size: Any = checked(auto_or_whole)
    workers: Any = checked(auto_or_whole)
    checkpoint_seconds: float = checked(number(0))
    wandb: str = checked(one_of("offline", "online", "disabled"))
    wandb_project: str = checked(lambda value: None if value else "a project's name")


def read_study(cfg: DictConfig) -> dict[str, Any]:
    """A study's settings with those of its preset put in; `preset` is then the preset's name. Raises SpecError."""
    if cfg.preset.name not in cfg.presets:
        raise SpecError(f"preset = {cfg.preset.name}: must be one of {', '.join(map(str, cfg.presets))}")
    try:
        plain: Any = as_meant(OmegaConf.to_container(cfg, resolve=True))
    except InterpolationKeyError as error:
        raise SpecError(f"{error.full_key}: preset {cfg.preset.name} does not say it, so it must be given") from error
    return {**plain, "preset": plain["preset"]["name"]}


@dataclass(frozen=True)
class Job:
    spec: RunSpec
    method: str
    evaluations: tuple[EvaluationSpec, ...]
    runtime: Runtime


def read_job(cfg: DictConfig) -> Job:
    """The checked job of a composed `conf/train.yaml`. Raises SpecError naming field, value and what is allowed."""
    load_plugins(cfg.get("plugins", []))
    regularizer = read_regularizer(cfg)
    try:
        tree = as_meant(OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        raise SpecError(
            f"{error.full_key}: {str(error).splitlines()[0]}. Remedy: give {error.full_key} a value of its own"
        ) from error
    assert isinstance(tree, dict)
    known = {
        *RUN_KEYS,
        *(f.name for f in dataclasses.fields(Runtime)),
        "regularizer",
        "noise",
        "corruption",
        "objective",
        "plugins",
    }
    for key in map(str, tree):
        if key not in known:
            raise SpecError(f"{key}: unknown key; known are {', '.join(sorted(known))}")
    by_sigma = tied(cfg)
    strengths = {name: regularizer[name] for name in STRENGTHS}
    if strengths["jacobian"] == 0 and "jacobian_noise" in by_sigma:
        strengths["jacobian_noise"] = 0.0  # N+J of strength 0 is the plain network, so that a sweep may begin there
    plain = {key: tree.get(key) for key in RUN_KEYS}
    spec = parse(RunSpec, {**plain, "dataset": identified(tree.get("dataset")), "strengths": strengths})
    runtime = read_runtime(cfg)
    corruption = parse(CorruptionSpec, tree["corruption"], "corruption.")
    return Job(spec, method_label(regularizer, spec.strengths, by_sigma), (corruption,), runtime)


def identified(dataset: Any) -> Any:
    """The group `dataset`; of a user's own data its content and number of classes stand where its path stood. Raises UserError."""
    if not isinstance(dataset, Mapping):
        return dataset
    for field in ("content", "classes"):
        if field in dataset:
            raise SpecError(f"dataset.{field}: is read off the data and must not be given")
    name = dataset.get("name")
    if "path" not in dataset and (name in DATASETS or not isinstance(name, str)):
        return dataset
    from noise_reg.data import own  # not at the head: it imports torch, which takes seconds

    if "path" in dataset:
        path = dataset["path"]
        if not isinstance(path, str) or not is_path(path):
            raise SpecError(f"dataset.path = {path!r}: must be the path of an npz archive, as dataset.path=mine.npz")
        found = own.load_file(path)
    elif name in own.LOADERS:
        found = own.load_registered(name)
    else:
        known = ", ".join([*DATASETS, *own.LOADERS])
        raise SpecError(
            f"dataset.name = {name}: must be one of {known}; images of your own: dataset=npz dataset.path=<file>, or plugins=[<module>]"
        )
    named = {field: value for field, value in dataset.items() if field != "path"}
    return {**named, "content": own.content_of(found), "classes": found.classes}


def read_evaluations(cfg: DictConfig, names: Sequence[str]) -> tuple[EvaluationSpec, ...]:
    """The evaluations `names`: 'corruption', 'validation', or those of `attack`, `shift`, `perturbation`. Raises SpecError for an unknown one."""
    if isinstance(names, str) or not names:
        raise SpecError(f"evaluations = {names}: must be a list of at least one, as evaluations=[fgsm,pgd]")
    attacks, shifts, changes = (group(cfg, name) for name in ("attack", "shift", "perturbation"))
    found: list[EvaluationSpec] = []
    for name in names:
        if name == "corruption":
            found.append(parse(CorruptionSpec, as_meant(OmegaConf.to_container(cfg.corruption)), "corruption."))
        elif name == "validation":
            found.append(ValidationSpec())
        elif name in attacks:
            kind: type[AttackSpec | CertificateSpec] = CertificateSpec if name == "certificate" else AttackSpec
            found.append(parse(kind, attacks[name], f"attack.{name}."))
        elif name in shifts:
            found.append(parse(ShiftSpec, shifts[name], f"shift.{name}."))
        elif name in changes:
            found.append(parse(PerturbationSpec, changes[name], f"perturbation.{name}."))
        else:
            known = ", ".join(["corruption", "validation", *attacks, *shifts, *changes])
            raise SpecError(f"evaluations = {name}: unknown; known are {known}")
    found = list(dict.fromkeys(found))
    shown = [name for settings in found for _, _, name in settings.stored()]
    twice = sorted({name for name in shown if shown.count(name) > 1})
    if twice:
        raise SpecError(
            f"evaluations = {list(names)}: two of them are stored as {twice[0]}, with other settings; give one"
        )
    return tuple(found)


def group(cfg: DictConfig, name: str) -> dict[str, Any]:
    """The evaluations of one configuration group, by name."""
    found: dict[str, Any] = as_meant(OmegaConf.to_container(cfg[name], resolve=True))
    return found


def read_runtime(cfg: DictConfig) -> Runtime:
    """Where and how runs are made; `~` in a path is the home folder."""
    plain = {f.name: cfg.get(f.name) for f in dataclasses.fields(Runtime)}
    return parse(Runtime, plain | {name: at_home(plain[name]) for name in ("store", "data_dir")})


def read_regularizer(cfg: DictConfig) -> dict[str, Any]:
    """The resolved group `regularizer`, whose strengths may refer to its sigma and to the paper's sigma_epsilon."""
    name = cfg.regularizer.get("name")
    try:
        regularizer = as_meant(OmegaConf.to_container(cfg.regularizer, resolve=True))
    except InterpolationKeyError as error:
        if "'noise." not in str(error):
            raise SpecError(
                f"{error.full_key}: {str(error).splitlines()[0]}. Remedy: give {error.full_key} a value of its own"
            ) from error
        raise SpecError(
            f"regularizer = {name}: the paper gives no sigma_epsilon for arch.name = {cfg.arch.get('name')}, arch.widths = "
            f"{cfg.arch.get('widths')} with optimizer.name = {cfg.optimizer.get('name')}. Remedy: regularizer=in_ninr regularizer.sigma=<number> "
            f"(or full_ninr), or a regularizer whose sigma_epsilon it gives: {printed(cfg)}"
        ) from error
    assert isinstance(regularizer, dict)
    lacking = sorted(key for key in REGULARIZER_KEYS if key not in regularizer)
    if lacking:
        raise SpecError(
            f"regularizer.{lacking[0]}: must be given for regularizer = {name}; a file of your own takes what it does not say from "
            "conf/regularizer/none.yaml when it begins with the line 'defaults: [none]'"
        )
    unknown = [str(key) for key in regularizer if key not in REGULARIZER_KEYS]
    if unknown:
        raise SpecError(f"regularizer.{unknown[0]}: unknown key; known are {', '.join(sorted(REGULARIZER_KEYS))}")
    check_default(regularizer["default"])
    for key, kind, noun in (("name", str, "text"), ("takes_sigma", bool, "true or false")):
        if not isinstance(regularizer[key], kind):
            raise SpecError(f"regularizer.{key} = {regularizer[key]!r}: must be {noun}")
    if regularizer["sigma"] is None:
        raise SpecError(
            f"regularizer.sigma: must be given for regularizer = {name}, the standard deviation of its noise"
        )
    is_number = isinstance(regularizer["sigma"], int | float) and not isinstance(regularizer["sigma"], bool)
    problem = number(0)(regularizer["sigma"]) if is_number else "a number"
    if problem:
        raise SpecError(f"regularizer.sigma = {regularizer['sigma']}: must be {problem}")
    if regularizer["sigma"] and not regularizer["takes_sigma"]:
        raise SpecError(
            f"regularizer.sigma = {regularizer['sigma']}: must be 0 for regularizer = {name}, in which nothing depends on it; its "
            f"strength is given as regularizer.{', regularizer.'.join(regularizer['default']) or '<strength>'}"
        )
    for field in ("sigma", *STRENGTHS):
        if regularizer[field] is None:
            raise SpecError(f"regularizer.{field}: must be given")
    parse(
        Strengths, {key: regularizer[key] for key in STRENGTHS}, "regularizer."
    )  # names the field as the user wrote it
    return {str(key): value for key, value in regularizer.items()}


def check_default(default: Any) -> None:
    """Raises SpecError unless it is the strengths that a method's name stands for."""
    right = isinstance(default, Mapping) and all(
        name in STRENGTHS and isinstance(value, int | float) and not isinstance(value, bool)
        for name, value in default.items()
    )
    if not right:
        raise SpecError(
            f"regularizer.default = {default!r}: must be the strengths that its name stands for, as {{cdt: 0.4}}; known are "
            f"{', '.join(STRENGTHS)}"
        )


def printed(cfg: DictConfig) -> str:
    """The regularizers whose sigma_epsilon the paper gives for this architecture and optimiser."""
    there = cfg.get("noise") or {}
    names = {"in_decay": "in_ninr_decay", "in_catapult": "in_ninr_catapult"}
    names |= {"full_decay": "full_ninr_decay", "full_catapult": "full_ninr_catapult"}
    return ", ".join(names[str(name)] for name in there if str(name) in names) or "none"


def tied(cfg: DictConfig) -> frozenset[str]:
    """The strengths that are `regularizer.sigma`, and not numbers of their own."""
    written: Any = OmegaConf.to_container(cfg.regularizer, resolve=False)
    return frozenset(name for name in STRENGTHS if written[name] == "${regularizer.sigma}")


def method_label(regularizer: Mapping[str, Any], strengths: Strengths, by_sigma: Collection[str]) -> str:
    """The method's name, with the strengths that differ from its default: 'cdt', 'cdt_0.2', 'in_ninr_51.8+dropout_0.5'.

    `by_sigma`: the strengths that are the regulariser's sigma. Of a regulariser that has one, a number without a name is it:
    'nj_0.2', 'nj+jacobian_0.001'. Without any strength every method is 'none'.
    """
    default, values = regularizer["default"], dataclasses.asdict(strengths)
    if not any(values.values()):
        return "none"
    differs = {n: v for n, v in values.items() if v != default.get(n, 0.0)}
    label, nameless = str(regularizer["name"]), set(default) if not by_sigma else set()
    if any(n in by_sigma for n in differs):
        label += f"_{shortest(regularizer['sigma'])}"
    rest = {n: v for n, v in differs.items() if n not in by_sigma}
    label += "".join(f"_{shortest(v)}" for n, v in rest.items() if n in nameless)
    return label + "".join(f"+{n}_{shortest(v)}" for n, v in rest.items() if n not in nameless)
