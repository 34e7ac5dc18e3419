"""The streams are Philox4x32-10, have the distributions they claim, and give a replica its own numbers in any company.

Axes: R replicas, N numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from noise_reg import streams
from noise_reg.spec import MAX_SEED, DistributionSpec
from noise_reg.streams import Purpose, drawn, keep_mask, normal, permutation, philox, uniform

ONES = 0xFFFFFFFF
KNOWN = {  # counter, key, words: Random123's kat_vectors, philox4x32 with 10 rounds
    "zeros": ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    "ones": ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}
SEEDS = st.integers(0, MAX_SEED)
ADDRESS: dict[str, Any] = {"lane": 3, "step": 5, "epoch": 7}
Draw = Callable[[Tensor], Tensor]
DRAWS: dict[str, Callable[[int], Draw]] = {  # by how many numbers; each takes the seeds
    "uniform": lambda count: lambda seeds: uniform(seeds, Purpose.CDT, count, **ADDRESS),
    "normal": lambda count: lambda seeds: normal(seeds, Purpose.CDT, count, **ADDRESS),
    "keep_mask": lambda count: lambda seeds: keep_mask(seeds, torch.full((len(seeds),), 0.3), count, **ADDRESS),
    "permutation": lambda count: lambda seeds: permutation(seeds, count, epoch=7),
}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def slow_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Salmon et al. 2011, section 3.3, one block in Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * c0, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def slow_words(seed: int, purpose: int, blocks: int, lane: int, step: int, epoch: int) -> NDArray[np.int64]:
    """(4, blocks)."""
    return np.array([slow_philox((block, lane, step, epoch), (seed, purpose)) for block in range(blocks)]).T


def words(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    block, lane, step, epoch = counter
    found = philox(torch.tensor([key[0]]), key[1], block, 1, lane, step, epoch)
    return tuple(int(word) for word in found)


@pytest.mark.parametrize("name", KNOWN)
def test_philox_gives_the_published_known_answers(name: str) -> None:
    counter, key, answer = KNOWN[name]
    assert words(counter, key) == answer
    assert slow_philox(counter, key) == answer


@given(st.tuples(SEEDS, SEEDS, SEEDS, SEEDS), st.tuples(SEEDS, SEEDS))
@settings(deadline=None, max_examples=200)
def test_philox_equals_the_reference_for_any_counter_and_key(counter: tuple[int, ...], key: tuple[int, ...]) -> None:
    assert words(counter, key) == slow_philox(counter, key)


def test_every_number_has_its_address() -> None:
    seeds = (0, 12345, MAX_SEED)
    for r, seed in enumerate(seeds):
        expected = slow_words(seed, Purpose.CDT, 25, **ADDRESS)
        found = torch.stack(philox(torch.tensor(seeds), Purpose.CDT, 0, 25, **ADDRESS))[:, r]
        np.testing.assert_array_equal(found.numpy(), expected)
        (u,) = uniform(torch.tensor([seed]), Purpose.CDT, 98, **ADDRESS).numpy()
        np.testing.assert_allclose(u, ((expected + 0.5) / 2**32).ravel()[:98], rtol=1e-7)
        (z,) = normal(torch.tensor([seed]), Purpose.CDT, 98, **ADDRESS).numpy()
        np.testing.assert_allclose(z, box_muller(expected).ravel()[:98], atol=1e-4)


def box_muller(words_4N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Two pairs of words give two pairs of normal numbers, (4, N)."""
    rows = []
    for first, second in (words_4N[:2], words_4N[2:]):
        radius, angle = np.sqrt(-2 * np.log((first + 0.5) / 2**32)), 2 * np.pi * second / 2**32
        rows += [radius * np.cos(angle), radius * np.sin(angle)]
    return np.array(rows)


def test_uniform_numbers_are_uniform_in_the_half_open_unit_interval() -> None:
    u = uniform(torch.tensor([1, 2]), Purpose.CDT, 100_000, **ADDRESS).double().numpy()
    assert u.min() > 0 and u.max() <= 1
    for row in u:
        assert stats.kstest(row, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(u)[0, 1]) < 0.01
    assert (streams.open_unit(torch.tensor([0, ONES])) > 0).all()  # log(0) is never met


def test_normal_numbers_are_standard_normal_and_independent() -> None:
    z = normal(torch.tensor([1, 2]), Purpose.CDT, 100_000, **ADDRESS).double().numpy()
    for row in z:
        assert stats.kstest(row, "norm").pvalue > 0.01
        moments = [(row**k).mean() for k in (1, 2, 3, 4)]
        np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.08)
    quarters = z.reshape(8, -1)  # the four words of a block, in both replicas
    np.testing.assert_allclose(np.corrcoef(quarters), np.eye(8), atol=0.03)
    np.testing.assert_allclose(np.corrcoef(quarters**2), np.eye(8), atol=0.03)
    assert abs(np.corrcoef(z[0, 1:], z[0, :-1])[0, 1]) < 0.02


def test_normal_numbers_are_finite_for_the_extreme_words(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = [torch.tensor([[0, ONES, 0, ONES]]), torch.tensor([[0, 0, ONES, ONES]])]
    monkeypatch.setattr(streams, "philox", lambda *args: [word.clone() for word in extremes * 2])
    z = normal(torch.tensor([1]), Purpose.CDT, 16, **ADDRESS)
    assert torch.isfinite(z).all() and z.abs().max() < 7


def test_a_mask_decides_by_sixteen_bits_and_drops_at_the_given_rate() -> None:
    drop_R = torch.tensor([0.0, 0.2, 0.5, 0.9])
    keep = keep_mask(torch.full((4,), 9), drop_R, 100_000, **ADDRESS)
    np.testing.assert_allclose(1 - keep.double().mean(1), drop_R, atol=0.005)
    assert keep[0].all()
    words_N = slow_words(9, Purpose.DROPOUT, 5, **ADDRESS).ravel()
    bits = np.concatenate([words_N & 0xFFFF, words_N >> 16])
    small = keep_mask(torch.tensor([9]), torch.tensor([0.2]), 37, **ADDRESS)
    np.testing.assert_array_equal(small[0].numpy(), (bits >= round(0.2 * 65536))[:37])
    halves = keep[2].view(2, -1).double().numpy()  # decided by the low and by the high bits of the same words
    np.testing.assert_allclose(np.corrcoef(halves), np.eye(2), atol=0.02)


def noise(name: str, **fields: float) -> DistributionSpec:
    return DistributionSpec(name, **{"width": 0.0, "weight": 0.5, "df": 0.0, **fields})


DOUBLE = {"width": 0.1, "weight": 0.75}
DISTRIBUTION_LAWS: dict[str, tuple[DistributionSpec, Any]] = {  # beside scipy's own
    "gaussian": (noise("gaussian"), stats.norm()),
    "uniform": (noise("uniform"), stats.uniform(-1, 2)),
    "uniform_matched": (noise("uniform_matched"), stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))),
    "double_gaussian": (noise("double_gaussian", width=0.1), stats.Mixture([stats.Normal(mu=m, sigma=0.1) for m in (-1, 1)])),
    "asymmetric": (
        noise("double_gaussian", **DOUBLE),
        stats.Mixture([stats.Normal(mu=m, sigma=0.1) for m in (-1, 1)], weights=[0.25, 0.75]),
    ),
    "laplace": (noise("laplace"), stats.laplace(scale=math.sqrt(0.5))),
    "student_t": (noise("student_t", df=5.0), stats.t(5, scale=math.sqrt(3 / 5))),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTION_LAWS)
def test_a_distribution_follows_its_law_with_its_mean_and_variance(name: str) -> None:
    distribution, law = DISTRIBUTION_LAWS[name]
    for row in drawn(distribution, torch.tensor([1, 2]), 100_000, **ADDRESS).double().numpy():
        assert stats.kstest(row, law.cdf).pvalue > 0.001
        mean, variance = (law.mean(), law.var()) if hasattr(law, "var") else (law.mean(), law.variance())
        assert row.mean() == pytest.approx(mean, abs=0.015)
        assert row.var() == pytest.approx(variance, rel=0.05)
        assert np.isfinite(row).all()
        assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 0.015


@pytest.mark.parametrize("name", DISTRIBUTION_LAWS)
def test_a_distribution_gives_a_replica_the_same_numbers_in_any_company(name: str) -> None:
    distribution, _ = DISTRIBUTION_LAWS[name]
    together = drawn(distribution, torch.tensor([5, 9, 2]), 301, **ADDRESS)
    assert torch.equal(together[1], drawn(distribution, torch.tensor([9]), 301, **ADDRESS)[0])


def test_a_double_gaussian_stands_on_its_upper_peak_by_its_weight() -> None:
    for weight in (0.0, 0.3, 1.0):
        row = drawn(noise("double_gaussian", width=0.05, weight=weight), torch.tensor([1]), 50_000, **ADDRESS)[0]
        assert (row > 0).double().mean().item() == pytest.approx(weight, abs=0.01)


@given(seed=SEEDS, count=st.integers(1, 200), epoch=st.integers(0, 500))
@settings(deadline=None, max_examples=50)
def test_a_permutation_holds_every_index_once(seed: int, count: int, epoch: int) -> None:
    (order,) = permutation(torch.tensor([seed]), count, epoch=epoch)
    assert sorted(order.tolist()) == list(range(count))


def test_permutations_differ_by_epoch_and_seed() -> None:
    orders = [permutation(torch.tensor([1, 2]), 100, epoch=epoch) for epoch in (0, 1)]
    rows = torch.cat(orders).double()
    assert len({tuple(row.tolist()) for row in rows}) == 4
    assert (torch.corrcoef(torch.cat([rows, torch.arange(100.0)[None].double()])) - torch.eye(5)).abs().max() < 0.3


def test_equal_words_keep_their_order_in_a_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    equal = torch.zeros(1, 5000, dtype=torch.int64)
    monkeypatch.setattr(streams, "philox", lambda *args: [equal] * 4)
    assert permutation(torch.tensor([1]), 20_000, epoch=0)[0].tolist() == list(range(20_000))


@pytest.mark.parametrize("draw", DRAWS)
@given(seeds=st.lists(SEEDS, min_size=1, max_size=6), place=st.integers(0, 5), seed=SEEDS, count=st.integers(1, 300))
@settings(deadline=None, max_examples=60)
def test_a_replica_s_numbers_do_not_depend_on_its_company(
    draw: str, seeds: list[int], place: int, seed: int, count: int
) -> None:
    place = min(place, len(seeds))
    together = DRAWS[draw](count)(torch.tensor([*seeds[:place], seed, *seeds[place:]]))
    assert torch.equal(together[place], DRAWS[draw](count)(torch.tensor([seed]))[0])


def test_streams_of_other_purposes_lanes_steps_epochs_or_seeds_share_no_number() -> None:
    addresses = itertools.product((0, 1, 7), list(Purpose)[:3], (0, 1, 2), (0, 1, 2), (0, 1, 2))
    found = [
        torch.cat(philox(torch.tensor([seed]), purpose, 0, 2, lane, step, epoch), dim=1)
        for seed, purpose, lane, step, epoch in addresses
    ]
    everything = torch.cat(found).flatten().tolist()  # 1944 words of 32 bits: two alike by chance in 1 of 2000 cases
    assert len(set(everything)) == len(everything)
    assert len(set(Purpose)) == len(Purpose.__members__)


def test_a_draw_in_chunks_is_the_draw_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = DRAWS["normal"](1003)
    whole = draw(torch.tensor([1, 2, 3]))
    for chunk in (1, 7, 64, 250):
        monkeypatch.setattr(streams, "CHUNK", chunk)
        assert torch.equal(draw(torch.tensor([1, 2, 3])), whole)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("draw", ["keep_mask", "permutation"])
def test_cuda_draws_the_same_masks_and_orders(draw: str) -> None:
    seeds = torch.tensor([0, 1, MAX_SEED])
    assert torch.equal(DRAWS[draw](10_001)(seeds.cuda()).cpu(), DRAWS[draw](10_001)(seeds))


@pytest.mark.cuda
@needs_cuda
def test_cuda_draws_the_same_integers() -> None:
    seeds = torch.tensor([0, 1, MAX_SEED])
    on_cpu, on_cuda = (philox(s, Purpose.NODE, 5, 10_000, 3, ONES, ONES) for s in (seeds, seeds.cuda()))
    assert torch.equal(torch.stack(on_cuda).cpu(), torch.stack(on_cpu))


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_cuda_draws_the_same_floats_to_rounding(draw: str) -> None:
    seeds = torch.tensor([0, 1, MAX_SEED])
    torch.testing.assert_close(
        DRAWS[draw](10_001)(seeds.cuda()).cpu(), DRAWS[draw](10_001)(seeds), rtol=1e-5, atol=1e-5
    )
