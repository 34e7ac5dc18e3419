"""Counter-based random streams: the same numbers for a replica whatever its stack, its place in it, or the device.

Philox4x32-10 (Salmon et al. 2011, 'Parallel random numbers: as easy as 1, 2, 3') in integer tensor operations. The key is
(seed, purpose), the counter is (block, lane, step, epoch), so every number has an address and no generator has a state.

Axes: R replicas, N numbers.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noise_reg.spec import DistributionSpec

MASK = 0xFFFFFFFF
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
GROWING = 3  # rounds until every word of a block depends on both row and block, and has the shape of all
PLACE_BITS = 30  # of the places in an epoch, beside a word's 32
CHUNK = 1 << 20  # blocks drawn at once: the temporaries of a larger draw would not stay in cache or memory


class Purpose(IntEnum):
    """What a stream is for: streams of different purposes share no number."""

    WEIGHTS = 1
    NOISE_WEIGHTS = 2
    SHUFFLE = 3
    CDT = 4
    DROPOUT = 5
    NODE = 6
    CORRUPTION = 7
    NODE_SIGN = 8
    ATTACK = 9
    ARCH_DROPOUT = 10
    WEIGHT_NOISE = 11
    DIRECTION = 12
    OCCLUSION = 13


def philox(
    seeds_R: Tensor, purpose: int, first: int, blocks: int, lane: int, step: int | Tensor, epoch: int | Tensor
) -> list[Tensor]:
    """Four (R, blocks) int64 tensors of independent words in [0, 2^32): blocks `first` to `first + blocks - 1`.

    `step` is one number, (1,) or (R,) int64, one a row; `epoch` one number or (1,) int64.
    """
    device = seeds_R.device
    step_R = step if isinstance(step, Tensor) else torch.full((1,), step, dtype=torch.int64, device=device)
    c0, c2 = torch.arange(first, first + blocks, device=device)[None], step_R[:, None] & MASK
    c1, c3 = (
        value.view(1, 1) & MASK
        if isinstance(value, Tensor)
        else torch.full((1, 1), value & MASK, dtype=torch.int64, device=device)
        for value in (lane, epoch)
    )
    key_0, key_1 = seeds_R[:, None], purpose
    spare: list[Tensor] = []  # in the later rounds: two buffers that hold nothing any more
    for turn in range(ROUNDS):
        # Products of 32-bit words wrap in int64 with the right bits. What stands above a word's 32 bits, the shift's sign or
        # a product's high half, is masked away before the next product.
        if turn < GROWING:
            product_0, product_1 = c0 * MULTIPLIER_0, c2 * MULTIPLIER_1
            high_0, high_1 = (product_0 >> 32) ^ c3 ^ key_1, (product_1 >> 32) ^ c1 ^ key_0
        else:
            product_0, product_1 = c0.mul_(MULTIPLIER_0), c2.mul_(MULTIPLIER_1)
            into_0, into_1 = spare or (torch.empty_like(c0), torch.empty_like(c0))
            high_0 = torch.bitwise_right_shift(product_0, 32, out=into_0).bitwise_xor_(c3).bitwise_xor_(key_1)
            high_1 = torch.bitwise_right_shift(product_1, 32, out=into_1).bitwise_xor_(c1).bitwise_xor_(key_0)
            spare = [c3, c1]
        c0, c1, c2, c3 = high_1.bitwise_and_(MASK), product_1, high_0.bitwise_and_(MASK), product_0
        key_0, key_1 = (key_0 + WEYL_0) & MASK, (key_1 + WEYL_1) & MASK
    return [c0, c1.bitwise_and_(MASK), c2, c3.bitwise_and_(MASK)]


def uniform(seeds_R: Tensor, purpose: int, count: int, *, lane: int, step: int | Tensor, epoch: int | Tensor) -> Tensor:
    """(R, count) float32 in (0, 1], from 32 bits each."""
    blocks = -(-count // 4)
    words = torch.cat(philox(seeds_R, purpose, 0, blocks, lane, step, epoch), dim=1)[:, :count]
    return open_unit(words)


def open_unit(words: Tensor) -> Tensor:
    return words.to(torch.float32).add_(0.5).mul_(2.0**-32)


def normal(seeds_R: Tensor, purpose: int, count: int, *, lane: int, step: int | Tensor, epoch: int | Tensor) -> Tensor:
    """(R, count) float32 standard normal numbers by Box and Muller (1958)."""
    blocks = -(-count // 4)
    out = torch.empty(len(seeds_R), 4, blocks, device=seeds_R.device)
    for first in range(0, blocks, CHUNK):
        size = min(CHUNK, blocks - first)
        words = philox(seeds_R, purpose, first, size, lane, step, epoch)
        part = out[:, :, first : first + size]
        for pair in (0, 1):
            radius = open_unit(words[2 * pair]).log_().mul_(-2).clamp_(min=0).sqrt_()
            angle = words[2 * pair + 1].to(torch.float32).mul_(2 * math.pi * 2.0**-32)
            torch.mul(radius, angle.cos(), out=part[:, 2 * pair])
            torch.mul(radius, angle.sin_(), out=part[:, 2 * pair + 1])
    return out.flatten(1)[:, :count]


def drawn(
    distribution: DistributionSpec, seeds_R: Tensor, count: int, *, lane: int, step: int | Tensor, epoch: int | Tensor
) -> Tensor:
    """(R, count) float32 of a distribution of NINR's noise, in units of sigma_epsilon; see DistributionSpec."""
    address: dict[str, Any] = {"lane": lane, "step": step, "epoch": epoch}

    def first() -> Tensor:
        return uniform(seeds_R, Purpose.NODE, count, **address)

    def second() -> Tensor:
        return uniform(seeds_R, Purpose.NODE_SIGN, count, **address)

    if distribution.name in ("uniform", "uniform_matched"):
        return first().mul_(2).sub_(1).mul_(1.0 if distribution.name == "uniform" else math.sqrt(3))
    if distribution.name == "laplace":  # an exponential size of scale 1/sqrt(2), and a sign
        return first().log_().mul_(-math.sqrt(0.5)) * torch.where(second() <= 0.5, 1.0, -1.0)
    if distribution.name == "student_t":  # Bailey (1994), 'Polar generation of random variates with the t-distribution'
        df = distribution.df
        size = first().log_().mul_(-2 / df).expm1_().mul_(df).clamp_(min=0).sqrt_()
        return size * second().mul_(2 * math.pi).cos_() * math.sqrt((df - 2) / df)
    z = normal(seeds_R, Purpose.NODE, count, **address)
    if distribution.name == "double_gaussian":
        return z.mul_(distribution.width) + torch.where(second() <= distribution.weight, 1.0, -1.0)
    return z


def keep_mask(
    seeds_R: Tensor,
    drop_R: Tensor,
    count: int,
    *,
    lane: int,
    step: int | Tensor,
    epoch: int | Tensor,
    dtype: torch.dtype = torch.bool,
    purpose: Purpose = Purpose.DROPOUT,
) -> Tensor:
    """(R, count), 0 with probability `drop_R` (R,), to the nearest 1/65536, else 1: 16 random bits decide each."""
    blocks = -(-count // 8)
    threshold_R1 = (drop_R.double() * 65536).round().clamp(max=65535).long()[:, None]
    keep = torch.empty(len(seeds_R), 8, blocks, dtype=dtype, device=seeds_R.device)
    for place, word in enumerate(philox(seeds_R, purpose, 0, blocks, lane, step, epoch)):
        torch.ge(word, threshold_R1 << 16, out=keep[:, 4 + place])  # by its high 16 bits
        torch.ge(word.bitwise_and_(0xFFFF), threshold_R1, out=keep[:, place])
    return keep.flatten(1)[:, :count]


def permutation(seeds_R: Tensor, count: int, *, epoch: int) -> Tensor:
    """(R, count) int64: an order of `count` samples for each replica and epoch."""
    blocks = -(-count // 4)
    words = torch.cat(philox(seeds_R, Purpose.SHUFFLE, 0, blocks, 0, 0, epoch), dim=1)[:, :count]
    # The order of the words, of equal words that of their places: each carries its place in bits of its own.
    keys = (words << PLACE_BITS) | torch.arange(count, device=words.device)
    ordered = (
        keys.sort(dim=1).values if keys.is_cuda else torch.from_numpy(np.sort(keys.numpy(), axis=1))
    )  # 10x torch's
    return ordered.bitwise_and_((1 << PLACE_BITS) - 1)
