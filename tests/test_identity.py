"""Runs that differ never share a label, and a number that a sweep meant is one number."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from noise_reg.artefacts.lines import lines
from noise_reg.artefacts.rows import Rows, read_rows
from noise_reg.config import read_evaluations
from noise_reg.decimals import as_meant, meant, shortest
from noise_reg.errors import UserError
from noise_reg.reevaluate import kinds
from noise_reg.spec import SpecError
from noise_reg.wanted import wanted_runs
from tests.composed import ROOT, composed, job
from tests.made_rows import AS_CLAIMED, made_rows

PARSER = OverridesParser.create()


@given(start=st.integers(0, 300), step=st.integers(1, 300), count=st.integers(1, 40), places=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_range_gives_the_decimals_that_were_meant(start: int, step: int, count: int, places: int) -> None:
    unit = Decimal(1).scaleb(-places)
    numbers = [start * unit, (start + count * step) * unit, step * unit]
    (override,) = PARSER.parse_overrides(
        [f"x=range({', '.join(f'{float(n)!r}' if n % 1 else f'{n:f}' for n in numbers)})"]
    )
    found = [meant(float(str(value))) for value in override.sweep_iterator()]
    assert found[:count] == [float((start + n * step) * unit) for n in range(count)]


@given(start=st.integers(1, 30), places=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_range_down_to_nothing_ends_at_exactly_nothing(start: int, places: int) -> None:
    unit = Decimal(1).scaleb(-places)
    (override,) = PARSER.parse_overrides([f"x=range({float(start * unit)!r},{-float(unit) / 2!r},{-float(unit)!r})"])
    assert [meant(float(str(value))) for value in override.sweep_iterator()][-1] == 0


@given(digits=st.integers(1, 10**14 - 1), exponent=st.integers(-30, 10))
def test_a_number_that_was_written_stays(digits: int, exponent: int) -> None:
    value = float(f"{digits}e{exponent}")
    assert meant(value) == value and meant(-value) == -value


@given(st.floats(1e-12, 1e12))
def test_what_is_meant_is_near_and_meant_once(value: float) -> None:
    found = meant(value)
    assert math.isclose(found, value, rel_tol=1e-13) and meant(found) == found


def test_numbers_of_stored_runs_are_no_ranges() -> None:
    for value in (0.8333333333333334, 88.6002, 51.8, 1 / 3, 2**-0.5, math.pi, 1e-16, 1e-7):
        assert meant(value) == value
    assert as_meant({"a": [0.1 + 0.2, 1, "0.30000000000000004"], "b": None}) == {
        "a": [0.3, 1, "0.30000000000000004"],
        "b": None,
    }


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_two_numbers_never_share_a_text(one: float, other: float) -> None:
    assume(one != other)
    assert shortest(one) != shortest(other) and float(shortest(one)) == one


@given(st.floats(1e-9, 100), st.floats(1, 1 + 1e-5))
def test_two_strengths_never_share_a_methods_name(sigma: float, factor: float) -> None:
    names = {}
    for value in (meant(sigma), meant(sigma * factor)):
        names[value] = f"in_ninr_{shortest(value)}"
    assert len(set(names.values())) == len(names)


def test_a_range_and_a_decimal_are_one_run_under_one_name() -> None:
    given_, made = (
        job("dataset=digits", "arch=fc_small", "regularizer=in_ninr", f"regularizer.sigma={s}")
        for s in ("0.3", "0.30000000000000004")
    )
    assert given_.spec == made.spec and given_.method == made.method == "in_ninr_0.3"
    near = job("dataset=digits", "arch=fc_small", "regularizer=in_ninr", "regularizer.sigma=0.3000001")
    assert near.method == "in_ninr_0.3000001"


def test_runs_that_old_stores_name_alike_are_told_apart_by_their_strengths() -> None:
    one = job("dataset=digits", "arch=fc_small", "regularizer=in_ninr", "regularizer.sigma=0.3")
    spec = one.spec.replace(strengths={**vars(one.spec.strengths), "nin_input": 0.1 + 0.2}, seed=1)
    other = type(one)(spec, one.method, one.evaluations, one.runtime)
    told = kinds([one, other])
    assert told["strengths.nin_input"].tolist() == ["0.3", "0.30000000000000004"]
    assert "strengths.nin_input" not in kinds([one, job("dataset=digits", "arch=fc_small", "regularizer=l2")])


@pytest.mark.parametrize("grid", ["[0,0.5,0.5]", "[0.3,0.30000000000000004]", "[0.0,-0.0]"])
def test_a_strength_is_evaluated_once(grid: str) -> None:
    with composed("reproduce", f"corruption.grid={grid}") as cfg, pytest.raises(SpecError, match="each once"):
        read_evaluations(cfg, ["corruption"])


def test_an_evaluation_named_twice_is_one_and_two_of_one_name_are_refused() -> None:
    with composed("reproduce", "+attack.again='${attack.pgd}'") as cfg:
        assert len(read_evaluations(cfg, ["pgd", "pgd", "again"])) == 1
        cfg.attack.again = {**cfg.attack.pgd, "steps": 3}
        with pytest.raises(SpecError, match="two of them are stored as pgd"):
            read_evaluations(cfg, ["pgd", "again"])


def labels(*methods: str) -> list[tuple[str, str, int]]:
    chosen = f"artefact.methods=[{','.join(methods)}]"
    with composed(
        "reproduce", "artefact=demo", "preset=demo", "artefact.second_readings=[]", "preset.panels.fc.seeds=2", chosen
    ) as cfg:
        return [(w.job.method, w.reading, w.job.spec.seed) for w in wanted_runs(cfg)]


def test_lines_of_an_artefact_that_differ_are_labelled_by_what_differs() -> None:
    found = labels(
        "['regularizer=l2']", "['regularizer=l2','optimizer.learning_rate=0.1']", "['regularizer=l2','arch.widths=[8]']"
    )
    assert [label for label in found if label[2] == 0] == [
        ("l2", "", 0), ("l2", "optimizer.learning_rate 0.1", 0), ("l2", "arch.widths (8,)", 0)
    ]  # fmt: skip
    assert len(set(found)) == 6


def test_a_line_given_twice_is_one() -> None:
    assert labels("['regularizer=l2']", "['regularizer=l2']") == [("l2", "", 0), ("l2", "", 1)]


def test_one_run_under_two_labels_is_refused() -> None:
    second = "artefact.second_readings=[{panel: fc, reading: again, overrides: ['regularizer=l2']}]"
    with (
        composed("reproduce", "artefact=demo", "preset=demo", second) as cfg,
        pytest.raises(SpecError, match="'L2' and 'L2, again' of fc are one run"),
    ):
        wanted_runs(cfg)


@pytest.mark.parametrize(
    ("column", "value"), [("precision", "bf16"), ("max_epochs", 7), ("optimizer.learning_rate", "0.1")]
)
def test_runs_that_differ_in_more_than_their_seed_are_never_one_line(column: str, value: Any) -> None:
    rows = made_rows({"none": AS_CLAIMED["none"]}, archs=("fc",))
    runs = rows.runs.assign(**{"optimizer.learning_rate": "0.05"}).astype({"max_epochs": object})
    assert len(lines(Rows(runs, rows.evaluations))) == 1
    runs.loc[runs["seed"] == 1, column] = value
    with pytest.raises(UserError, match=f"{column} = "):
        lines(Rows(runs, rows.evaluations))


def test_a_preset_asks_for_the_runs_whose_rows_are_committed() -> None:
    """Numbers of the committed runs are read as they were: no key has moved."""
    with composed("reproduce", "artefact=fig3", "preset=cpu") as cfg:
        assert {w.job.spec.key for w in wanted_runs(cfg)} == set(read_rows(ROOT / "results" / "fig3").runs["key"])
