"""Which runs an artefact needs, from its configuration: panels x methods x seeds, and second readings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from noise_reg.config import Job, read_evaluations, read_job, read_runtime
from noise_reg.evaluation_spec import AttackSpec, CertificateSpec, EvaluationSpec
from noise_reg.spec import SpecError


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
    lists: list[tuple[Any, ...]] = [
        (panel, overrides, readings.get(panel.partition("_")[2], ""), preset["panels"][scale_of(panel)]["seeds"])
        for panel in figure["panels"]
        for overrides in figure["methods"]
    ]
    lists += [
        (
            second["panel"],
            second["overrides"],
            second["reading"],
            second.get("seeds", preset["second_readings"]["seeds"]),
            *preset["second_readings"].get("overrides", {}).get(second["panel"], []),
        )
        for second in figure["second_readings"]
    ]
    wanted = []
    for panel, overrides, reading, seeds, *last in lists:
        if not isinstance(seeds, int) or seeds < 1:
            raise SpecError(f"preset {preset['name']}: seeds = {seeds}: must be a whole number of at least 1")
        chosen = [
            *figure["overrides"],
            *figure["panels"][panel],
            *overrides,
            *preset["panels"][scale_of(panel)]["overrides"],
            *last,
        ]
        job = read_job(hydra.compose("train", overrides=chosen))
        for seed in range(min(seeds, most)):
            spec = job.spec.replace(seed=seed)
            wanted.append(Wanted(Job(spec, job.method, of_all(evaluations[panel]), runtime), reading, panel))
    return wanted


def scale_of(panel: str) -> str:
    """The name under which presets hold a panel's scale: 'fc' for 'fc_uniform', Fig. 2's network in a variant."""
    return panel.partition("_")[0]


def evaluations_of(cfg: DictConfig, panel: str) -> tuple[EvaluationSpec, ...]:
    """What the artefact evaluates; a preset may attack fewer images of a panel."""
    found = read_evaluations(cfg, cfg.artefact.get("evaluations", ["corruption"]))
    images = cfg.preset.panels[scale_of(panel)].get("attack_images")
    if images is None:
        return found
    return tuple(dataclasses.replace(s, images=int(images)) if isinstance(s, AttackSpec) else s for s in found)


def of_all(evaluations: Sequence[EvaluationSpec]) -> tuple[EvaluationSpec, ...]:
    """Without the certificate, which is of one run of each line."""
    return tuple(settings for settings in evaluations if not isinstance(settings, CertificateSpec))
