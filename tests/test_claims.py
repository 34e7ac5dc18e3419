"""Claims N1 to N5: rows made to fit, to oppose and to leave open each claim get the verdict they must."""

import pandas as pd
import pytest

from noise_reg.artefacts.claims import judge_claims
from noise_reg.artefacts.lines import lines
from noise_reg.artefacts.rows import Rows
from noise_reg.artefacts.verdicts import Part, Verdict, from_json, to_json
from noise_reg.errors import UserError
from tests.made_rows import AS_CLAIMED, diverge, made_rows, with_reading

CLAIMS = ("N1", "N2", "N3", "N4", "N5")


def judged(rows: Rows) -> dict[str, Verdict]:
    return {verdict.claim: verdict for verdict in judge_claims(lines(rows), rows.history)}


def words(rows: Rows) -> dict[str, str]:
    return {claim: verdict.verdict for claim, verdict in judged(rows).items()}


def part(verdict: Verdict, arch: str, beginning: str) -> Part:
    return next(p for p in verdict.numbers if p.arch == arch and p.comparison.startswith(beginning))


def changed(
    method: str, clean: float = 0, middle: float = 0, large: float = 0
) -> dict[str, tuple[float, float, float]]:
    """The rows' truth with one method's accuracies shifted, in points."""
    a, b, c = AS_CLAIMED[method]
    return {**AS_CLAIMED, method: (a + clean, b + middle, c + large)}


def test_rows_as_the_paper_claims_reproduce_every_claim() -> None:
    assert words(made_rows()) == dict.fromkeys(CLAIMS, "reproduced")


def test_each_claim_names_its_rule_and_the_numbers_behind_it() -> None:
    for verdict in judged(made_rows()).values():
        assert verdict.rule
        assert {p.arch for p in verdict.numbers} == {"fc", "cnn"}
        assert all(p.paired and p.n == (4, 4) for p in verdict.numbers)
    best = part(judged(made_rows())["N1"], "fc", "in-NINR (catapult) − CDT 0.4")
    assert best.difference == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize(
    ("claim", "rows"),
    [
        ("N1", made_rows(changed("in_ninr_catapult", large=-40))),
        ("N1", made_rows(changed("full_ninr_catapult", large=10))),
        ("N2", made_rows(changed("in_ninr_decay", large=-10))),
        ("N2", made_rows(changed("full_ninr_decay", clean=-4))),
        ("N2", made_rows(changed("cdt", clean=2.5))),  # CDT has no clean loss that decay could spare
        ("N3", made_rows(changed("in_ninr_catapult", middle=-5))),
        ("N3", made_rows(changed("cdt", clean=4))),
        ("N4", made_rows(changed("dropout", clean=-4))),
        ("N5", made_rows(early_loss=1.0, late_loss=3.0)),
    ],
)
def test_rows_that_oppose_a_claim_contradict_it(claim: str, rows: Rows) -> None:
    assert words(rows)[claim] == "contradicted"


@pytest.mark.parametrize(
    ("claim", "rows"),
    [
        ("N1", made_rows(changed("full_ninr_catapult", large=5))),  # as good as in-NINR's, within a narrow interval
        ("N2", made_rows(changed("in_ninr_decay", large=-3))),  # about the margin of one point below CDT
        ("N3", made_rows(changed("in_ninr_decay", middle=1))),
        ("N4", made_rows(changed("l2", clean=0.6), size=0.1)),  # significant, but within the margin
        ("N5", made_rows(early_loss=2.0, late_loss=2.0)),
        ("N5", made_rows(early_loss=-1.0, late_loss=-2.0)),  # shrinks, but there never was a loss
    ],
)
def test_rows_that_settle_nothing_are_inconclusive(claim: str, rows: Rows) -> None:
    assert words(rows)[claim] == "inconclusive"


@pytest.mark.parametrize("claim", CLAIMS)
def test_too_few_seeds_are_under_powered_and_a_missing_network_is_not_judged(claim: str) -> None:
    assert words(made_rows(n=2))[claim] == "under-powered"
    no_cnn = judged(made_rows(archs=("fc",)))[claim]
    assert no_cnn.verdict == "not judged" and "no rows for this architecture (cnn)" in no_cnn.note
    assert {p.verdict for p in no_cnn.numbers if p.arch == "fc"} == {"reproduced"}
    assert [p.remark for p in no_cnn.numbers if p.arch == "cnn"] == ["no rows for this architecture"]


@pytest.mark.parametrize("claim", CLAIMS)
def test_wide_scatter_is_under_powered_or_at_least_never_reproduced(claim: str) -> None:
    rows = made_rows(size=12, early_loss=None)
    assert words(rows)[claim] != "reproduced"


@pytest.mark.parametrize(
    ("claim", "method"),
    [("N1", "l2"), ("N2", "cdt"), ("N3", "in_ninr_decay"), ("N4", "none"), ("N5", "full_ninr_catapult")],
)
def test_a_missing_method_is_named_not_raised(claim: str, method: str) -> None:
    verdict = judged(made_rows({m: v for m, v in AS_CLAIMED.items() if m != method}))[claim]
    assert verdict.verdict == "not judged"
    assert any("no rows for" in p.remark for p in verdict.numbers)


def test_missing_history_leaves_n5_under_powered_with_the_reason() -> None:
    verdict = judged(made_rows(early_loss=None))["N5"]
    assert verdict.verdict == "under-powered"
    assert {p.remark for p in verdict.numbers} == {"no history of test accuracy in the rows"}


def test_a_catapult_that_never_trained_longer_does_not_count_for_n5() -> None:
    rows = made_rows()
    assert rows.history is not None
    short = Rows(rows.runs, rows.evaluations, rows.history[rows.history["epoch"] <= 10])
    assert words(short)["N5"] == "under-powered"


def test_diverged_runs_are_named_in_the_remark_and_leave_the_pairs() -> None:
    found = part(judged(diverge(made_rows(), "cdt", range(1)))["N1"], "fc", "in-NINR (catapult) − CDT")
    assert (found.n, found.remark) == ((3, 3), "CDT 0.4: 1 of 4 diverged")


def test_claims_judge_the_default_reading_alone() -> None:
    rows = made_rows()
    beside = with_reading(rows, "in_ninr_catapult", "exact loss")
    again = beside.runs["reading"] != ""
    worse = beside.evaluations["key"].isin(beside.runs.loc[again, "key"])
    evaluations = beside.evaluations.assign(accuracy=beside.evaluations["accuracy"].where(~worse, 0.1))
    assert words(Rows(beside.runs, evaluations, rows.history)) == words(rows)


def test_large_noise_is_averaged_over_strengths_that_all_methods_share() -> None:
    rows = made_rows()
    cdt = rows.runs.loc[rows.runs["method"] == "cdt", "key"]
    extra = pd.DataFrame({"key": cdt, "evaluation": "corruption", "strength": 0.7, "accuracy": 0.99})
    more = Rows(rows.runs, pd.concat([rows.evaluations, extra]), rows.history)
    assert judged(more)["N1"] == judged(rows)["N1"]


def test_a_verdict_survives_json_and_a_foreign_one_is_refused() -> None:
    verdict = judged(made_rows(n=2))["N1"]
    assert from_json(to_json(verdict)) == verdict
    with pytest.raises(UserError, match="not a verdict: 'maybe'"):
        from_json({**to_json(verdict), "verdict": "maybe"})
