"""Batched products in which every replica has the bits that it has alone, on any number of threads.

A library chooses the kernel of a product by its whole size, and so by how many replicas stand in it, and splits one product over
threads in other ways than many: the sums of one replica are then rounded in another order beside companions than alone. What one
replica's product *is* stands in `alone`: its own two-dimensional product on one thread. The faster routes are tried once for each
kind of product (shapes, layout, alignment, types, threads), on numbers whose sums show the order in which they were taken, and
the first one with exactly the bits of `alone` is kept. On a GPU the library's batched product is taken as it is.

Axes: R replicas, M rows, K inner size, N columns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor], Tensor]  # (R, M, K), (R, K, N) -> (R, M, N)
Betas = tuple[float, ...]  # one a replica
# c (R, M, N), a, b, betas, alpha: c <- beta c + alpha a b, in place
Update = Callable[[Tensor, Tensor, Tensor, Betas, float], None]

ALIGNMENT = 64  # bytes; libraries take other paths to the first aligned number


@contextmanager
def one_thread() -> Iterator[None]:
    """Operations within it use the calling thread alone."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def each(a: Tensor, b: Tensor) -> Tensor:
    """One product after the other."""
    out = a.new_empty(len(a), a.shape[1], b.shape[2])
    for r in range(len(a)):
        torch.mm(a[r], b[r], out=out[r])
    return out


def own(matrix: Tensor) -> Tensor:
    """A copy that lies as a replica's matrix does when nothing stands beside it: dense, aligned, by rows unless it is transposed."""
    rows, columns = matrix.shape
    if matrix.stride(0) == 1 and rows > 1 and columns > 1:
        return matrix.new_empty(columns, rows).mT.copy_(matrix)
    return matrix.new_empty(rows, columns).copy_(matrix)


def doubled(a: Tensor, b: Tensor) -> Tensor:
    """A single product computed twice over, so that threads take whole products and none is cut."""
    return torch.bmm(a.expand(2, -1, -1), b.expand(2, -1, -1))[:1]


def alone(a: Tensor, b: Tensor) -> Tensor:
    """What the others are held against: each replica's product by itself, of factors of its own, on one thread."""
    with one_thread():
        return torch.stack([torch.mm(own(a[r]), own(b[r])) for r in range(len(a))])


def update_whole(c: Tensor, a: Tensor, b: Tensor, betas: Betas, alpha: float) -> None:
    c.baddbmm_(a, b, beta=betas[0], alpha=alpha)


def update_scaled(c: Tensor, a: Tensor, b: Tensor, betas: Betas, alpha: float) -> None:
    scale_(c, betas)
    c.baddbmm_(a, b, alpha=alpha)


def update_each(c: Tensor, a: Tensor, b: Tensor, betas: Betas, alpha: float) -> None:
    for r, beta in enumerate(betas):
        c[r].addmm_(a[r], b[r], beta=beta, alpha=alpha)


def update_alone(c: Tensor, a: Tensor, b: Tensor, betas: Betas, alpha: float) -> None:
    with one_thread():
        for r, beta in enumerate(betas):
            c[r].copy_(torch.addmm(own(c[r]), own(a[r]), own(b[r]), beta=beta, alpha=alpha))


def scale_(c: Tensor, betas: Betas) -> None:
    """c (R, ...) <- beta c, in place, in one call for each run of replicas of one beta."""
    first = 0
    for beta, alike in groupby(betas):
        until = first + len(list(alike))
        if beta != 1:
            c[first:until].mul_(beta)
        first = until


PRODUCTS: tuple[Product, ...] = (torch.bmm, doubled, each, alone)
UPDATES: tuple[Update, ...] = (update_whole, update_scaled, update_each, update_alone)
products: dict[Hashable, Product] = {}
updates: dict[Hashable, Update] = {}


def batched(a: Tensor, b: Tensor) -> Tensor:
    """The products (R, M, N) of a (R, M, K) and b (R, K, N), differentiable any number of times; of bf16 factors in fp32 (on a CPU by
    way of bf16)."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        out: Tensor = BatchedProduct.apply(a, b)
        return out
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32) if a.dtype == torch.bfloat16 else torch.bmm(a, b)
    key = kind(a, b)
    route = products.get(key)
    if route is None:
        route = products[key] = first_exact_product(a, b)
    return route(a, b).float() if a.dtype == torch.bfloat16 else route(a, b)


def add_batched_(c: Tensor, a: Tensor, b: Tensor, *, betas: Betas, alpha: float) -> None:
    """c (R, M, N) <- beta c + alpha a b, in place, beta one number a replica."""
    if c.is_cuda:
        return (update_whole if len(set(betas)) == 1 else update_scaled)(c, a, b, betas, alpha)
    key = (kind(c, a), kind(b, b), betas, alpha)
    route = updates.get(key)
    if route is None:
        route = updates[key] = first_exact_update(c, a, b, betas, alpha)
    return route(c, a, b, betas, alpha)


class BatchedProduct(torch.autograd.Function):
    """`batched`, whose gradients are such products too."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return batched(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad
        return (batched(grad, b.mT) if of_a else None), (batched(a.mT, grad) if of_b else None)


def kind(a: Tensor, b: Tensor) -> Hashable:
    """What a library's choice of a kernel can depend on."""
    layouts = (a.shape, a.stride(), a.data_ptr() % ALIGNMENT, b.shape, b.stride(), b.data_ptr() % ALIGNMENT)
    return (*layouts, a.dtype, torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]


def first_exact_product(a: Tensor, b: Tensor) -> Product:
    for route in PRODUCTS[:-1]:
        if route is doubled and len(a) > 1:
            continue
        if all(trial.agrees(route(trial.a, trial.b), alone(*trial.own)) for trial in trials(a, b)):
            return route
    return alone


def first_exact_update(c: Tensor, a: Tensor, b: Tensor, betas: Betas, alpha: float) -> Update:
    start = torch.randn(c[:1].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(c.dtype)

    def result(route: Update, place: Tensor, factors: tuple[Tensor, Tensor], scales: Betas) -> Tensor:
        place.copy_(start)
        route(place, *factors, scales, alpha)
        return place

    def is_exact(route: Update, trial: Trial) -> bool:
        found = result(route, like(c), (trial.a, trial.b), betas)
        expected = {beta: result(update_alone, start.clone(), trial.own, (beta,))[0] for beta in set(betas)}
        return all(torch.equal(found[r], expected[betas[r]]) for r in range(len(betas))[trial.healthy])

    for route in UPDATES[:-1]:
        if route is update_whole and len(set(betas)) > 1:
            continue
        if all(is_exact(route, trial) for trial in trials(a, b)):
            return route
    return update_alone


@dataclass(frozen=True)
class Trial:
    """Factors a and b laid out as those of a product are, in which every replica has the numbers of `own` (1, ...), but for the replicas
    outside `healthy`, which have none that is finite."""

    a: Tensor
    b: Tensor
    own: tuple[Tensor, Tensor]
    healthy: slice

    def agrees(self, found: Tensor, expected: Tensor) -> bool:
        """Whether every healthy replica's result is `expected` (1, ...), to the bit."""
        return bool((found[self.healthy] == expected).all())


def trials(a: Tensor, b: Tensor) -> Iterator[Trial]:
    """What tells two ways of taking a product apart.

    First any numbers. Then numbers whose products cancel but for what rounding leaves: its bits tell the order of the sums even after
    a rounding to bf16. Last, where there are companions, every other replica without a finite number: a kernel that reads beyond a
    row's end (oneDNN issue 5717: inner sizes that are no multiple of 32, in bf16) takes them up into the sums of the others.
    """
    generator = torch.Generator().manual_seed(0)
    half = a.shape[2] // 2
    for cancelling, ill in ((False, None), (True, None), (False, 0), (False, 1)):
        if ill is not None and len(a) == 1:
            continue
        left, right = (torch.randn(t[:1].shape, dtype=torch.float64, generator=generator) for t in (a, b))
        if cancelling and half:
            place = torch.randperm(half, generator=generator)
            left[:, :, half : 2 * half] = -left[:, :, place]
            right[:, half : 2 * half] = right[:, place]
            left[:, :, 2 * half :] = 0
        every = like(a).copy_(left), like(b).copy_(right)
        if ill is not None:
            for factor in every:
                factor[ill::2] = torch.nan
        first = 1 if ill == 0 else 0
        own = every[0][first : first + 1], every[1][first : first + 1]
        yield Trial(*every, own, slice(None) if ill is None else slice(first, None, 2))


def like(t: Tensor) -> Tensor:
    """A tensor of the same shape, strides and alignment, but with a place of its own for each number."""
    if 0 in t.stride():  # of an expanded tensor
        return t.new_empty(t.shape)
    first = t.data_ptr() % ALIGNMENT // t.element_size()
    span = 1 + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return t.new_zeros(span + first).as_strided(t.shape, t.stride(), first)
