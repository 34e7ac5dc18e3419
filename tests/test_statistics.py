"""Intervals agree with scipy's tests, and every rule reaches every verdict it can give."""

import math

import pytest
from scipy import stats

from noise_reg.artefacts.paper import paper_numbers, printed
from noise_reg.artefacts.statistics import (
    CONTRADICTED,
    INCONCLUSIVE,
    REPRODUCED,
    UNDER_POWERED,
    Interval,
    Summary,
    combine,
    difference,
    holm,
    judge_alike,
    judge_equivalent,
    judge_greater,
    judge_lower,
    judge_not_lower,
    judge_unchanged,
    paired,
    summarise,
    verdict_of_number,
    welch,
)

A, B = [88.1, 87.6, 88.9, 88.0, 87.2], [86.0, 86.9, 85.1, 87.7]


def interval(low: float, high: float, p: float = 0.01, n: int = 5) -> Interval:
    return Interval((low + high) / 2, low, high, p, (n, n), paired=True)


def test_welch_from_summaries_is_scipys_unequal_variance_interval() -> None:
    theirs = stats.ttest_ind(A, B, equal_var=False)
    ours = welch(summarise(A), summarise(B))
    low, high = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high, ours.p) == pytest.approx((low, high, theirs.pvalue), rel=1e-12)


def test_paired_interval_is_scipys_related_samples_interval() -> None:
    theirs = stats.ttest_rel(A[:4], B)
    ours = paired([a - b for a, b in zip(A[:4], B, strict=True)])
    low, high = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high, ours.p) == pytest.approx((low, high, theirs.pvalue), rel=1e-12)


def test_an_interval_at_another_level_is_that_of_scipy_and_of_a_table() -> None:
    low, high = stats.ttest_rel(A[:4], B).confidence_interval(0.9)
    ours = paired([a - b for a, b in zip(A[:4], B, strict=True)], level=0.9)
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-12)
    by_hand = paired([0.1, 0.2, 0.3], level=0.9)  # mean 0.2, sd 0.1, t(0.95; 2) = 2.919986
    assert by_hand.half_width == pytest.approx(2.919986 * 0.1 / math.sqrt(3), rel=1e-6)


def test_difference_pairs_by_seed_where_three_seeds_are_shared() -> None:
    a, b = dict(enumerate(A)), dict(enumerate(B))
    assert difference(a, b) == paired([a[seed] - b[seed] for seed in range(4)])
    few_shared = {seed + 3: value for seed, value in b.items()}
    assert difference(a, few_shared) == welch(summarise(A), summarise(B))


def test_a_sample_without_spread_gives_a_point_and_one_run_no_interval() -> None:
    assert (welch(Summary(2, 0, 3), Summary(1, 0, 3)).low, paired([1.0, 1.0]).high) == (1, 1)
    assert math.isnan(welch(summarise([88.0]), Summary(87, 1, 10)).low)
    assert summarise([float("nan"), 88.0, 90.0]).n == 2


def test_holm_steps_down_and_keeps_what_is_undefined() -> None:
    adjusted = holm([0.01, 0.04, math.nan, 0.03, 0.005])
    assert adjusted[:2] + adjusted[3:] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert math.isnan(adjusted[2])


PAPER = Summary(mean=88.0, sd=0.5, n=10)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (Summary(88.2, 0.5, 10), REPRODUCED),  # contains 0
        (Summary(87.4, 0.1, 10), REPRODUCED),  # excludes 0, inside the margin
        (Summary(87.0, 0.3, 10), INCONCLUSIVE),  # excludes 0, astride the margin
        (Summary(85.0, 0.3, 10), CONTRADICTED),
        (Summary(88.0, 0.1, 2), UNDER_POWERED),  # two runs
        (Summary(88.0, 3.5, 10), UNDER_POWERED),  # half-width 2.5 around 0
        (Summary(80.0, 3.5, 10), CONTRADICTED),  # as wide, but wholly outside twice the margin
    ],
)
def test_a_number_reaches_every_verdict(ours: Summary, verdict: str) -> None:
    assert verdict_of_number(ours, PAPER) == verdict


def test_a_number_is_contradicted_when_most_runs_diverged() -> None:
    nothing = summarise([])
    assert verdict_of_number(nothing, PAPER, runs=10, diverged=10) == CONTRADICTED
    assert verdict_of_number(summarise([88.0] * 5), PAPER, runs=10, diverged=5) == REPRODUCED
    assert verdict_of_number(nothing, PAPER, runs=2, diverged=2) == UNDER_POWERED


@pytest.mark.parametrize(
    ("judge", "reproduced", "contradicted", "inconclusive", "under_powered"),
    [
        (lambda i: judge_greater(i, i.p), (0.1, 9), (-9, -0.1), None, None),
        (judge_lower, (-9, -0.1), (0.1, 9), (-1.2, 0.1), (-5, 0.1)),
        (judge_lower, (-0.3, -0.1), (-0.9, 0.9), (-1.1, 0.5), (-4, 1)),
        (judge_not_lower, (-0.9, 9), (-9, -1.1), (-1.5, 0.5), (-5, 5)),
        (judge_alike, (-0.9, 0.9), (1.1, 9), (-0.5, 1.5), (-5, 5)),
    ],
)
def test_a_claims_rule_reaches_every_verdict(judge, reproduced, contradicted, inconclusive, under_powered) -> None:  # type: ignore[no-untyped-def]
    def word(ends: tuple[float, float], p: float = 0.01, n: int = 5) -> str:
        return judge(interval(*ends, p, n))

    assert word(reproduced) == REPRODUCED
    assert word(contradicted) == CONTRADICTED
    assert word(inconclusive or (-1, 1), p=0.5) == INCONCLUSIVE
    assert word(under_powered or (-5, 5), p=0.5) == UNDER_POWERED
    assert word(reproduced, n=2) == UNDER_POWERED


@pytest.mark.parametrize(
    ("ends", "n", "verdict"),
    [
        ((-0.3, 0.3), 5, REPRODUCED),  # the margin itself is inside
        ((0.1, 0.2), 5, REPRODUCED),  # excludes 0, but too small to matter
        ((-0.1, 0.31), 5, UNDER_POWERED),
        ((0.31, 0.5), 5, CONTRADICTED),
        ((-0.5, -0.31), 5, CONTRADICTED),
        ((-0.1, 0.1), 2, UNDER_POWERED),
        ((math.nan, math.nan), 5, UNDER_POWERED),
    ],
)
def test_equivalent_means_wholly_inside_the_margin(ends: tuple[float, float], n: int, verdict: str) -> None:
    assert judge_equivalent(interval(*ends, n=n), 0.3) == verdict


def test_unchanged_means_not_significant_after_holm() -> None:
    assert judge_unchanged(interval(-0.5, 1.5), 0.2) == REPRODUCED
    assert judge_unchanged(interval(0.5, 1.5), 0.01) == CONTRADICTED
    assert judge_unchanged(interval(0.2, 0.6), 0.01) == INCONCLUSIVE
    assert judge_unchanged(interval(-5, 5), 0.9) == UNDER_POWERED


def test_one_contradicted_part_decides_then_power_then_doubt() -> None:
    assert combine([REPRODUCED, UNDER_POWERED, CONTRADICTED]) == CONTRADICTED
    assert combine([REPRODUCED, INCONCLUSIVE, UNDER_POWERED]) == UNDER_POWERED
    assert combine([REPRODUCED, INCONCLUSIVE]) == INCONCLUSIVE
    assert combine([REPRODUCED, REPRODUCED]) == REPRODUCED
    assert combine([]) == UNDER_POWERED


def test_the_papers_error_is_two_standard_deviations_on_its_own_data_set() -> None:
    assert printed("table_2", "fc", "none", "fmnist") == Summary(87.7, 1.3, 10)
    assert printed("table_2", "cnn", "cdt", "fmnist") == Summary(84.1, 3.2, 10)
    assert printed("table_2", "fc", "none", "digits") is None
    assert printed("table_2", "fc", "in_ninr_12.5", "fmnist") is None


def test_the_papers_noise_keeps_rate_times_variance_across_optimisers() -> None:
    """A slip in copying Fig. 2's caption or Table 3 breaks eta * sigma_epsilon^2 = const."""
    ninr = paper_numbers()["ninr"]
    rates = {"rmsprop": {"fc": 1e-4, "cnn": 1e-3}, "adam": {"fc": 0.01, "cnn": 0.01}}
    compared = 0
    for table in ("table_3", "table_3_inferred"):
        for optimizer, by_arch in ninr[table]["sigma_epsilon"].items():
            for arch, by_method in by_arch.items():
                for method, sigma in by_method.items():
                    sgd = 0.05 * ninr["figure_2"]["sigma_epsilon"][arch][method] ** 2
                    assert rates[optimizer][arch] * sigma**2 == pytest.approx(sgd, rel=0.07)  # 0.9 is rounded
                    compared += 1
    assert compared == 16
