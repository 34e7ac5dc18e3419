"""Settings whose work would never end are refused, with how long it would take, before any of it is begun."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noise_reg import jacobian_study, meter_study, nj_questions, nj_study, weight_noise_study
from noise_reg.config import read_evaluations, read_job, read_study
from noise_reg.errors import SpecError
from noise_reg.evaluation_spec import CertificateSpec
from noise_reg.limits import REPEATED, check_count
from noise_reg.wanted import wanted_runs
from tests.composed import composed

HUGE = 10**11
TOO_LONG = r"must be at most \d+; at a second each it would take 3169 years"


@pytest.mark.parametrize(
    ("config", "field", "read"),
    [
        ("evaluate", "corruption.draws", lambda cfg: read_evaluations(cfg, ["corruption"])),
        ("evaluate", "attack.pgd.steps", lambda cfg: read_evaluations(cfg, ["pgd"])),
        ("evaluate", "attack.pgd.images", lambda cfg: read_evaluations(cfg, ["pgd"])),
        ("evaluate", "attack.certificate.steps", lambda cfg: read_evaluations(cfg, ["certificate"])),
        ("evaluate", "attack.certificate.images", lambda cfg: read_evaluations(cfg, ["certificate"])),
        ("train", "reading.jacobian_directions", read_job),
        ("train", "max_epochs", read_job),
        ("reproduce", "preset.panels.fc.seeds", wanted_runs),
        ("nj", "seeds", lambda cfg: nj_study.check(read_study(cfg))),
        ("nj_questions", "cost.repeats", lambda cfg: nj_questions.check(read_study(cfg))),
        ("nj_expansion", "draws", lambda cfg: jacobian_study.check(read_study(cfg))),
        ("meters", "vectors", lambda cfg: meter_study.check(read_study(cfg))),
        ("weight_noise", "directions", lambda cfg: weight_noise_study.check(read_study(cfg))),
    ],
)
def test_work_without_end_is_refused(config: str, field: str, read: Callable[[Any], object]) -> None:
    name = field.replace("preset.panels.fc.", "").replace("attack.pgd.", "").replace("attack.certificate.", "")
    with composed(config, f"{field}={HUGE}") as cfg, pytest.raises(SpecError, match=f"{name} = {HUGE}: {TOO_LONG}"):
        read(cfg)


@given(st.integers(-(10**29), 10**29))
def test_a_count_is_taken_within_its_limits_alone(value: int) -> None:
    if 1 <= value <= REPEATED:
        check_count("draws", value)
        return
    least_or_most = "must be a whole number of at least 1" if value < 1 else f"must be at most {REPEATED}"
    with pytest.raises(SpecError, match=f"draws = {re.escape(str(value))}: {least_or_most}"):
        check_count("draws", value)


@pytest.mark.parametrize("value", [10**400, 10**5000, True, 2.0, "3", None], ids=range(6))
def test_what_is_no_count_is_named_too(value: object) -> None:
    with pytest.raises(SpecError, match="draws = "):
        check_count("draws", value)


def test_a_certificate_of_more_images_than_there_are_counts_those_there_are() -> None:
    asked = CertificateSpec(0.02, 0.3, 20, 0.125, 100_000, 0)
    assert asked.passes(200) == 5000
