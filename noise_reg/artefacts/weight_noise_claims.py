"""Claims W1 to W4 on weight noise: how the study's tables become verdicts, by rules fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from noise_reg.artefacts.statistics import (
    ALPHA,
    CONTRADICTED,
    INCONCLUSIVE,
    REPRODUCED,
    UNDER_POWERED,
    Interval,
    combine,
    paired,
    summarise,
    too_few,
)
from noise_reg.artefacts.verdicts import Part, Verdict, part, slope_part
from noise_reg.decimals import shortest

SMALL = (
    0.01  # the largest variance of a first pre-activation's noise, eta (|x|^2 + 1), at which the expansion is judged
)
AGREES = 10.0  # percent of eta P
RESOLVED = 4  # standard errors from 0 that a rest must be, to have a slope
ROUNDING = 1e-12  # of eta P
SLOPE_TOLERANCE = 0.1
SHARP_ENOUGH = 5.0  # percent, the widest half-width at which a mean is said to be what is claimed
ALIKE = 25.0  # percent of what both gain over plain training
SAMPLE, BATCH = "noise per sample", "noise per mini-batch"

W1_RULE = (
    "J̃ − J − η P as a share of η P at every η where the noise of a first pre-activation, η (|x|² + 1), has at most variance 0.01, "
    "with t intervals that hold jointly with 95 %: reproduced if all lie wholly within ±10 %, contradicted if one lies wholly "
    "outside, else inconclusive; shown is the η that is farthest off. The rest is averaged over draws after each draw's own terms, "
    "of known means P and L, are taken off."
)
W1_SECOND_RULE = (
    "J̃ − J − η (P + L), L = E[(y − t) Δ_W y] in closed form, at the same η: reproduced if it is 0 to rounding (10⁻¹² of η P), or the "
    "slope of its logarithm against that of η, minus 2, lies with its 95 % t interval wholly within ±0.1; contradicted if wholly "
    "outside, else inconclusive; under-powered if fewer than 3 η have a rest of 4 standard errors."
)
W1_KINKS_RULE = "As W1, with the units' mean shift over their kinks, in closed form for one hidden ReLU layer, taken off beside η P."
W2_RULE = (
    "What noise of the training's own η adds to the loss of a solution, on the same directions for every run; differences are "
    "paired by seed, with 95 % t intervals. Flatter: reproduced if the interval of noise (or penalty) − plain lies below 0, contradicted "
    "if above, else inconclusive. Alike: noise − penalty as a share of what the two gain over plain on average: reproduced if wholly "
    "within ±25 %, contradicted if wholly outside, else inconclusive."
)
MEAN_RULE = (
    "The mean over draws of all weights' noise, with t intervals that hold jointly with 95 %: reproduced if every one contains 0 and "
    "reaches at most 5 % to either side, contradicted if one does not contain it, else under-powered. a = y − t, b = εᵀ∇_W y, and v "
    "is the gradient of an output for an image, both sides summed over all of these."
)


def moments(table: pd.DataFrame) -> list[tuple[str, int, pd.DataFrame]]:
    """(network, epoch, rows) in the table's order."""
    return [
        (str(name), int(str(epoch)), rows) for (name, epoch), rows in table.groupby(["network", "epoch"], sort=False)
    ]


def joint(mean: float, error: float, draws: int, count: int) -> Interval:
    """The t interval of a mean over `draws`, one of `count` that hold jointly with 95 % (Bonferroni)."""
    reach = float(stats.t.ppf(1 - ALPHA / (2 * count), draws - 1)) * error
    return Interval(mean, mean - reach, mean + reach, float("nan"), (draws, draws), True)


def judge(tables: Mapping[str, pd.DataFrame]) -> list[Verdict]:
    small = tables["expansion"][tables["expansion"]["z_variance"] <= SMALL]
    bent = small[small["kinks"].notna()]
    first = [first_order(name, epoch, rows, len(small), "") for name, epoch, rows in moments(small)]
    second = [second_order(name, epoch, rows) for name, epoch, rows in moments(small)]
    kinks = [first_order(name, epoch, rows, len(bent), " − kinks") for name, epoch, rows in moments(bent)]
    found = [
        verdict("W1", "For small η the loss under weight noise is J + η E|∇_W y|².", first, W1_RULE),
        verdict("W1, second order", "With η E[(y − t) Δ_W y] too, what is left is O(η²).", second, W1_SECOND_RULE),
    ]
    if kinks:
        words = "What is left for a ReLU network is its units' shift over their kinks."
        found.append(verdict("W1, kinks", words, kinks, W1_KINKS_RULE))
    means = joint_means(tables["moments"])
    cross = [mean_part(at, "E[ab] / √(E[a²] E[b²])", interval) for at, interval, _ in means]
    square = [mean_part(at, "E[(εᵀv)²] / (σ² |v|²) − 1", interval) for at, _, interval in means]
    return [
        *found,
        *solutions(tables["flatness"]),
        verdict("W3", "The cross term vanishes: E[ab] = 0.", cross, MEAN_RULE),
        verdict("W4", "E[(εᵀv)²] = σ² |v|².", square, MEAN_RULE),
    ]


def verdict(claim: str, statement: str, parts: Sequence[Part], rule: str) -> Verdict:
    return Verdict(claim, statement, combine([p.verdict for p in parts]), tuple(parts), rule)


def first_order(network: str, epoch: int, rows: pd.DataFrame, count: int, known: str) -> Part:
    """The share of eta P by which it is off, in percent; `known`, as it is named, is what else is taken off."""
    shares = [
        joint(
            100 * (r["rest_1"] - (r["kinks"] if known else 0)) / r["penalty"],
            100 * r["rest_2_error"] / r["penalty"],
            int(r["draws"]),
            count,
        )
        for r in rows.to_dict("records")
    ]
    worst = int(np.argmax([abs(s.difference) for s in shares]))
    outside = any(s.wholly_outside(AGREES) for s in shares)
    inside = all(s.wholly_inside(AGREES) for s in shares)
    words = f"{network}, epoch {epoch}: (J̃ − J − ηP{known}) / ηP in %, at η = {shortest(rows['eta'].iloc[worst])}"
    found = CONTRADICTED if outside else REPRODUCED if inside else INCONCLUSIVE
    return part(network, words, shares[worst], found, f"{len(shares)} values of η")


def second_order(network: str, epoch: int, rows: pd.DataFrame) -> Part:
    """The order in eta of what is left after both terms."""
    at, rest = f"{network}, epoch {epoch}", rows["rest_2"].abs()
    largest = float((rest / rows["penalty"]).max())
    n = (int(rows["draws"].iloc[0]),) * 2
    if largest <= ROUNDING:
        words = f"{at}: the rest is 0 to rounding, at most {largest:.0e} of ηP"
        return Part(network, words, None, None, None, n, True, REPRODUCED)
    seen = rows[rest > RESOLVED * rows["rest_2_error"]]
    if len(seen) < 3:
        words = f"{at}: a rest of {RESOLVED} standard errors at {len(seen)} of {len(rows)} η"
        return Part(network, words, None, None, None, n, True, UNDER_POWERED)
    remark = f"{len(seen)} of {len(rows)} values of η"
    return slope_part(
        network, f"{at}: rest", "η", seen["eta"].tolist(), seen["rest_2"].abs().tolist(), 2.0, SLOPE_TOLERANCE, remark
    )


def joint_means(table: pd.DataFrame) -> list[tuple[str, Interval, Interval]]:
    """(network and epoch, the cross term, the square less 1) in percent, with intervals that hold jointly for each of the two."""
    return [
        (
            f"{r['network']}, epoch {r['epoch']}",
            joint(100 * r["cross"], 100 * r["cross_error"], r["draws"], len(table)),
            joint(100 * (r["square"] - 1), 100 * r["square_error"], r["draws"], len(table)),
        )
        for r in table.to_dict("records")
    ]


def mean_part(at: str, what: str, interval: Interval) -> Part:
    found = CONTRADICTED if not interval.contains_zero() else REPRODUCED
    if found == REPRODUCED and interval.half_width > SHARP_ENOUGH:
        found = UNDER_POWERED
    return part(at.partition(",")[0], f"{at}: {what} in %", interval, found)


def solutions(flatness: pd.DataFrame) -> list[Verdict]:
    """W2 for each way of training and of drawing the noise: the first and a draw a sample, as the text has it, is the claim itself."""
    found = []
    for n, training in enumerate(dict.fromkeys(flatness["training"])):
        of = flatness[flatness["training"] == training]
        for noise in (SAMPLE, BATCH):
            parts = [p for eta in sorted(set(of["eta"]) - {0.0}) for p in compared(of, str(training), noise, eta)]
            other = [str(training)] * (n > 0) + ["a draw a mini-batch"] * (noise == BATCH)
            words = "Noise and penalty find solutions of like flatness, both flatter than plain training's"
            statement = f"{words} ({', '.join(other)})." if other else f"{words}."
            found.append(verdict(", ".join(["W2", *other]), statement, parts, W2_RULE))
    return found


def added_at(table: pd.DataFrame, method: str, eta: float, probe: float) -> dict[int, float]:
    """By seed what noise of variance `probe` adds to the loss of the runs of `method`."""
    of = table[(table["method"] == method) & np.isclose(table["eta"], eta) & np.isclose(table["probe"], probe)]
    return {int(seed): float(added) for seed, added in zip(of["seed"], of["added"], strict=True)}


def less(first: Mapping[int, float], second: Mapping[int, float], unit: float) -> Interval:
    """first - second, paired by seed, in percent of `unit`."""
    return paired([100 * (first[seed] - second[seed]) / unit for seed in sorted(first.keys() & second.keys())])


def compared(table: pd.DataFrame, training: str, noise: str, eta: float) -> list[Part]:
    """Penalty and noise against plain, and against each other."""
    plain, penalty, noisy = (
        added_at(table, method, own, eta) for method, own in (("plain", 0.0), ("penalty", eta), (noise, eta))
    )
    mean = {name: summarise(list(s.values())).mean for name, s in (("plain", plain), ("p", penalty), ("n", noisy))}
    parts = []
    for name, of in (("penalty", penalty), (noise, noisy)):
        interval = less(of, plain, mean["plain"])
        words = f"{training}, η = {shortest(eta)}: {name} − plain, in % of plain"
        parts.append(part("tanh", words, interval, judge_flatter(interval)))
    gain = mean["plain"] - (mean["p"] + mean["n"]) / 2
    words = f"{training}, η = {shortest(eta)}: {noise} − penalty, in % of their gain over plain"
    if not gain > 0:
        return [
            *parts,
            Part("tanh", words, None, None, None, (len(noisy), len(penalty)), True, UNDER_POWERED, "no gain"),
        ]
    interval = less(noisy, penalty, gain)
    return [*parts, part("tanh", words, interval, judge_like(interval))]


def gains(flatness: pd.DataFrame) -> list[tuple[str, str, float, Interval]]:
    """(training, method, eta, flatness at that eta less plain training's, in percent of it)."""
    found = []
    for r in flatness[["training", "method", "eta"]].drop_duplicates().to_dict("records"):
        if r["eta"]:
            of = flatness[flatness["training"] == r["training"]]
            plain, own = added_at(of, "plain", 0.0, r["eta"]), added_at(of, r["method"], r["eta"], r["eta"])
            interval = less(own, plain, summarise(list(plain.values())).mean)
            found.append((r["training"], r["method"], r["eta"], interval))
    return found


def judge_flatter(interval: Interval) -> str:
    if too_few(interval):
        return UNDER_POWERED
    return REPRODUCED if interval.high < 0 else CONTRADICTED if interval.low > 0 else INCONCLUSIVE


def judge_like(interval: Interval) -> str:
    if too_few(interval):
        return UNDER_POWERED
    if interval.wholly_inside(ALIKE):
        return REPRODUCED
    return CONTRADICTED if interval.wholly_outside(ALIKE) else INCONCLUSIVE
