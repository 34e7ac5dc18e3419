"""Which runs an artefact needs, from its configuration: panels x methods x seeds, and second readings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from noise_reg.artefacts.methods import label
from noise_reg.config import Job, read_evaluations, read_job, read_runtime
from noise_reg.evaluation_spec import AttackSpec, CertificateSpec, EvaluationSpec
from noise_reg.limits import check_count
from noise_reg.spec import RunSpec, SpecError, flatten


@dataclass(frozen=True)
class Wanted:
    """A run that an artefact needs, the label of its reading ('' for the default), and the panel it belongs to."""

    job: Job
    reading: str
    panel: str = ""


def wanted_runs(cfg: DictConfig) -> list[Wanted]:
    """The runs of `artefact` at `preset`: panels x methods x seeds, then the second readings."""
    runtime = read_runtime(cfg)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    figure, preset = plain["artefact"], plain["preset"]
    missing = [scale_of(panel) for panel in figure["panels"] if scale_of(panel) not in preset["panels"]]
    if missing:
        there = ", ".join(preset["panels"])
        raise SpecError(
            f"preset = {preset['name']}: says nothing of the panel {missing[0]} of {figure['name']}, only of {there}"
        )
    evaluations = {panel: evaluations_of(cfg, panel) for panel in figure["panels"]}
    readings, most = figure.get("readings", {}), figure.get("seeds", math.inf)
    scales, again = {panel: preset["panels"][scale_of(panel)] for panel in figure["panels"]}, preset["second_readings"]

    def overrides_of(panel: str, own: list[str]) -> list[str]:
        return [*figure["overrides"], *figure["panels"][panel], *own, *scales[panel]["overrides"]]

    lines: list[tuple[str, list[str], str, int]] = [
        (panel, overrides_of(panel, own), readings.get(panel.partition("_")[2], ""), scales[panel]["seeds"])
        for panel in figure["panels"]
        for own in figure["methods"]
    ]
    for second in figure["second_readings"]:
        panel = second["panel"]
        chosen = [*overrides_of(panel, second["overrides"]), *again.get("overrides", {}).get(panel, [])]
        lines.append((panel, chosen, second["reading"], second.get("seeds", again["seeds"])))
    wanted = []
    for panel, overrides, reading, seeds in lines:
        check_count(f"preset {preset['name']}: seeds", seeds)
        job = read_job(hydra.compose("train", overrides=overrides))
        for seed in range(min(seeds, most)):
            spec = job.spec.replace(seed=seed)
            wanted.append(Wanted(Job(spec, job.method, of_all(evaluations[panel]), runtime), reading, panel))
    return told_apart(wanted)


def told_apart(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Each run once. Where two differ in more than their seed and have one label, the later one's reading names what differs.
    Raises SpecError for one run under two labels."""
    first: dict[tuple[str, str, str], RunSpec] = {}
    found: dict[str, Wanted] = {}
    for w in wanted:
        spec, reading = w.job.spec, w.reading
        usual = first.setdefault((spec.arch.name, w.job.method, reading), spec)
        changes = differences_of(spec, usual)
        reading = ", ".join(filter(None, [reading, *(f"{name} {value}" for name, value in changes.items())]))
        twin = found.setdefault(spec.key, dataclasses.replace(w, reading=reading))
        if (twin.job.method, twin.reading) != (w.job.method, reading):
            raise SpecError(
                f"artefact: {label(twin.job.method, twin.reading)!r} and {label(w.job.method, reading)!r} of {spec.arch.name} are one "
                "run; leave one out, or give what sets it apart"
            )
    return list(found.values())


def differences_of(spec: RunSpec, other: RunSpec) -> dict[str, Any]:
    """The fields but the seed in which `spec` differs from `other`, with its values."""
    mine, others = (flatten(dataclasses.asdict(one)) for one in (spec, other))
    return {name: value for name, value in mine.items() if name != "seed" and value != others[name]}


def scale_of(panel: str) -> str:
    """The name under which presets hold a panel's scale: 'fc' for 'fc_uniform', Fig. 2's network in a variant."""
    return panel.partition("_")[0]


def evaluations_of(cfg: DictConfig, panel: str) -> tuple[EvaluationSpec, ...]:
    """What the artefact evaluates, which may be nothing; a preset may attack fewer images of a panel (`attack_images`, a number
    or one an attack)."""
    names = cfg.artefact.get("evaluations", ["corruption"])
    found = read_evaluations(cfg, names) if len(names) else ()
    scale = cfg.preset.panels[scale_of(panel)]
    images = scale.get("attack_images", {})

    def at_scale(settings: EvaluationSpec) -> EvaluationSpec:
        if not isinstance(settings, AttackSpec):
            return settings
        count = images if isinstance(images, int) else images.get(settings.label, settings.images)
        return dataclasses.replace(settings, images=int(count))

    kept = [s for s in found if certified_lines(cfg, panel) or not isinstance(s, CertificateSpec)]
    return tuple(at_scale(settings) for settings in kept)


def certified_lines(cfg: DictConfig, panel: str) -> float:
    """How many lines of a panel have the certificate: all, or as many as the preset's `certificate` says (false: none)."""
    asked = cfg.preset.panels[scale_of(panel)].get("certificate", True)
    return math.inf if asked is True else int(asked)


def of_all(evaluations: Sequence[EvaluationSpec]) -> tuple[EvaluationSpec, ...]:
    """Without the certificate, which is of one run of each line."""
    return tuple(settings for settings in evaluations if not isinstance(settings, CertificateSpec))
