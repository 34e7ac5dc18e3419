"""Promise 2 to the bit: a replica's numbers do not depend on how many stand beside it, on their fate, or on the number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from noise_reg import sums
from noise_reg.data import Dataset
from noise_reg.evaluation_spec import AttackSpec, CorruptionSpec, PerturbationSpec
from noise_reg.evaluations.adversarial import attacked_accuracy
from noise_reg.evaluations.corruption import corruption_accuracy
from noise_reg.evaluations.perturbation import perturbed_accuracy
from noise_reg.nn import CLEAN, products
from noise_reg.precision import arithmetic, low_type
from noise_reg.prepare import TrainingData, prepare
from noise_reg.spec import RunSpec, parse
from noise_reg.train import Outcome, new_stack, train
from tests.plain import OFF, OPTIMIZERS, READING

Geometry = tuple[tuple[int, int, int], dict[str, Any]]  # of the images (C, H, W); the fields of the architecture

METHODS: dict[str, dict[str, float]] = {
    "none": {}, "l2": {"weight_decay": 5e-4}, "dropout": {"dropout": 0.5}, "cdt": {"cdt": 0.4},
    "in_ninr": {"nin_input": 5.0}, "full_ninr": {"nin_input": 3.0, "nin_hidden": 2.0}, "input_noise": {"input_noise": 0.1},
    "weight_noise": {"weight_noise": 1e-4}, "label_smoothing": {"label_smoothing": 0.1},
    "jacobian": {"jacobian": 0.01}, "nj": {"jacobian": 0.01, "jacobian_noise": 0.1}, "weight_penalty": {"weight_penalty": 1e-4},
}  # fmt: skip
OF_DENSE = ("jacobian", "nj", "weight_penalty")


def dense(name: str, *widths: int) -> dict[str, Any]:
    return {"name": name, "widths": list(widths), "filters": [], "kernel": 0, "padding": "none"}


def cnn(width: int, *filters: int) -> dict[str, Any]:
    return {"name": "cnn", "widths": [width], "filters": list(filters), "kernel": 2, "padding": "same"}


def vgg(width: int, *filters: int) -> dict[str, Any]:
    dropouts = [0.2, 0.3, 0.4][: len(filters)]
    own = {"dropouts": dropouts, "conv_decay": 1e-4}
    return {"name": "vgg", "widths": [width], "filters": list(filters), "kernel": 3, "padding": "same", **own}


SMALL: dict[str, Geometry] = {
    "fc": ((1, 8, 8), dense("fc", 64, 64)),
    "fc_odd": ((1, 5, 7), dense("fc", 50, 33)),
    "tanh_mlp": ((1, 9, 9), dense("tanh_mlp", 40, 24)),
    "linear": ((1, 8, 8), dense("linear", 64)),
    "cnn": ((1, 8, 8), cnn(64, 8, 16)),
    "cnn_odd": ((3, 12, 12), cnn(30, 5, 7)),
    "vgg": ((3, 8, 8), vgg(20, 6, 9)),
}
REAL: dict[str, Geometry] = {
    "fc": ((1, 28, 28), dense("fc", 1024, 1024, 1024)),
    "tanh_mlp": ((1, 28, 28), dense("tanh_mlp", 256)),
    "tanh_mlp_2": ((1, 16, 16), dense("tanh_mlp", 256, 256)),
    "linear": ((1, 28, 28), dense("linear", 1024)),
    "cnn": ((1, 28, 28), cnn(2048, 32, 64)),
    "vgg": ((3, 32, 32), vgg(500, 32, 64, 128)),
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def spec_of(geometry: Geometry, method: str, seed: int, batch: int, **changes: Any) -> RunSpec:
    optimizer = changes.pop("optimizer", "sgd")
    rate = {"sgd": 0.05}.get(optimizer, 1e-3)
    own = {"name": optimizer, "learning_rate": rate, "batch_size": batch, **OPTIMIZERS[optimizer]}
    tree = {
        "dataset": {"name": "digits", "split_seed": 0}, "arch": geometry[1], "strengths": OFF | METHODS[method],
        "optimizer": own, "reading": READING | {"loss": "exact"} | changes.pop("reading", {}), "max_epochs": 1,
        "stop_accuracy": 1.0, "precision": "fp32", "seed": seed,
    }  # fmt: skip
    return parse(RunSpec, tree | changes)


def data_of(geometry: Geometry, spec: RunSpec, steps: int) -> TrainingData:
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        images = rng.integers(0, 256, (count, *geometry[0])).astype(np.uint8)
        return torch.from_numpy(images), torch.from_numpy(rng.integers(0, 10, count))

    (images, labels), (test_images, test_labels) = draw(steps * spec.optimizer.batch_size), draw(70)
    provenance = {"source": "made", "file": "none"}
    dataset = Dataset("made", images, test_images, labels, test_labels, 10, provenance)
    return prepare(dataset, spec, torch.device("cpu"))


def trained(specs: Sequence[RunSpec], data: TrainingData, threads: int) -> dict[str, Outcome]:
    torch.set_num_threads(threads)
    return {outcome.spec.key: outcome for ended in train(new_stack(specs, data), data) for outcome in ended}


def differences(found: Outcome, expected: Outcome) -> list[str]:
    """The weights, and the columns of the history, that are not equal to the bit."""
    weights = [n for n, v in expected.weights.items() if not np.array_equal(found.weights[n], v, equal_nan=True)]
    rows = [
        name
        for row, wanted in zip(found.history, expected.history, strict=True)
        for name in wanted
        if not np.array_equal(row[name], wanted[name], equal_nan=True)
    ]
    return weights + rows


def assert_company_does_not_matter(
    geometry: Geometry, specs: Sequence[RunSpec], *, steps: int = 2, some: int = 3
) -> None:
    """Trains the stack on 1 thread and on 2, `some` of its replicas alone on 1 and the first on 2, and compares all bits."""
    data = data_of(geometry, specs[0], steps)
    found = {f"of the stack on {count} threads": trained(specs, data, count) for count in (1, 2)}
    found["alone on 2 threads"] = trained(specs[:1], data, 2)
    for place in sorted({round(n * (len(specs) - 1) / max(some - 1, 1)) for n in range(some)}):
        spec = specs[place]
        alone = trained([spec], data, 1)[spec.key]
        for name, outcomes in found.items():
            if spec.key in outcomes:
                assert not differences(outcomes[spec.key], alone), f"replica {place} of {len(specs)}, {name}"


def methods_of(geometry: Geometry) -> list[str]:
    return [m for m in METHODS if geometry[1]["name"] not in ("cnn", "vgg") or m not in OF_DENSE]


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("sgd", "fp32"), ("sgd", "bf16"), ("adam", "fp32"), ("rmsprop", "fp32")]
)
@pytest.mark.parametrize("arch", SMALL)
def test_every_method_has_the_bits_that_it_has_alone(arch: str, optimizer: str, precision: str) -> None:
    geometry = SMALL[arch]
    methods = methods_of(geometry)
    batch = {"sgd": 33, "adam": 32, "rmsprop": 9}[optimizer]
    reading = {"l2_on": "all", "dropout_input": True}
    changes = {"optimizer": optimizer, "precision": precision, "reading": reading}
    every = (optimizer, precision) == ("sgd", "fp32")
    methods = methods * 2 if every else methods  # so that a method's replicas do not stand together
    specs = [spec_of(geometry, m, seed, batch, **changes) for seed, m in enumerate(methods)]
    assert_company_does_not_matter(geometry, specs, some=len(specs) // 2 if every else 2)


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(sorted(SMALL)), st.integers(1, 6), st.sampled_from([1, 2, 7, 32, 100, 128]), st.sampled_from(sorted(METHODS)),
    st.sampled_from(["sgd", "adam", "rmsprop"]), st.sampled_from(["fp32", "bf16"]), st.integers(0, 2**32 - 100),
)  # fmt: skip
def test_any_stack_of_one_method_has_the_bits_of_its_runs(
    arch: str, replicas: int, batch: int, method: str, optimizer: str, precision: str, seed: int
) -> None:
    geometry = SMALL[arch]
    if method not in methods_of(geometry) or (batch == 1 and arch == "vgg"):
        method, batch = "full_ninr", max(batch, 2)
    changes = {"optimizer": optimizer, "precision": precision}
    specs = [spec_of(geometry, method, seed + n, batch, **changes) for n in range(replicas)]
    assert_company_does_not_matter(geometry, specs, some=2)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("arch", "optimizer"), [*itertools.product(REAL, ["sgd"]), ("fc", "adam"), ("cnn", "rmsprop")])
def test_real_shapes_have_the_bits_that_they_have_alone(arch: str, optimizer: str, precision: str) -> None:
    geometry = REAL[arch]
    big = arch == "vgg"
    for batch, replicas in ((32, 3), (128, 2)) if big else ((1, 2), (32, 5), (100, 3), (128, 2), (1000, 2)):
        for method in (
            ("full_ninr",)
            if big
            else ("none", "full_ninr", "dropout", *(["nj"] if "nj" in methods_of(geometry) else []))
        ):
            changes = {"optimizer": optimizer, "precision": precision}
            specs = [spec_of(geometry, method, seed, batch, **changes) for seed in range(replicas)]
            assert_company_does_not_matter(geometry, specs, steps=1 if big else 2, some=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["none", "full_ninr", "cdt", "dropout"])
def test_ninety_small_networks_have_the_bits_that_they_have_alone(method: str) -> None:
    for batch in (32, 100):
        specs = [spec_of(SMALL["fc"], method, seed, batch) for seed in range(90)]
        assert_company_does_not_matter(SMALL["fc"], specs, some=5)


def attack(steps: int) -> AttackSpec:
    step = 1.0 if steps == 1 else 0.3
    return AttackSpec((0.0, 0.01, 0.03, 0.1), "pixel", True, "exact", steps, step, True, False, 0, 0)


@pytest.mark.parametrize("arch", ["fc_odd", "cnn_odd"])
def test_evaluations_have_the_bits_that_they_have_alone(arch: str) -> None:
    geometry = SMALL[arch]
    specs = [spec_of(geometry, "none", seed, 32) for seed in range(5)]
    data = data_of(geometry, specs[0], 3)
    model = new_stack(specs, data).model.requires_grad_(False)
    test = (data.test_pixels, data.test_y, data.standardizer)
    found: dict[int, list[Tensor]] = {}
    with arithmetic("fp32", torch.device("cpu")):
        for count in (1, 2):
            torch.set_num_threads(count)
            for name, one in (("stack", model), ("alone", model.replica(3))):
                rows = [
                    one(data.test_x.expand(len(next(one.parameters())), -1, -1), CLEAN),
                    corruption_accuracy(one, *test, CorruptionSpec((0.0, 0.3, 0.7), 2, "pixel", 0)),
                    *attacked_accuracy(one, *test, attack(1)),
                    *attacked_accuracy(one, *test, attack(4)),
                    perturbed_accuracy(one, *test, PerturbationSpec("rotation", (0.0, 20.0), 0)),
                ]
                found[len(found)] = [row[3] if name == "stack" else row[0] for row in rows]
    for others in list(found.values())[1:]:
        assert all(torch.equal(one, first) for one, first in zip(others, found[0], strict=True))


SIZES = st.sampled_from([1, 2, 3, 7, 10, 32, 33, 64, 100, 128, 784])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 7), SIZES, SIZES, SIZES, st.booleans(), st.booleans(), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]), st.sampled_from([1, 2])
)  # fmt: skip
def test_a_batched_product_has_the_bits_of_each_replicas_own_and_takes_nothing_of_an_ill_one(
    replicas: int, rows: int, inner: int, columns: int, left: bool, right: bool, dtype: torch.dtype, count: int
) -> None:
    generator = torch.Generator().manual_seed(rows * inner + columns)

    def factor(height: int, width: int, transposed: bool) -> Tensor:
        shape = (replicas, width, height) if transposed else (replicas, height, width)
        made = torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)
        return made.mT if transposed else made

    a, b = factor(rows, inner, left), factor(inner, columns, right)
    c = torch.randn(replicas, rows, columns, generator=generator).to(dtype)
    ill = replicas // 2 if replicas > 1 else -1
    if ill >= 0:
        a[ill], b[ill], c[ill] = torch.nan, torch.inf, -torch.inf
    betas = tuple([0.9, 1.0, 0.9, 0.9, 1.0, 0.75, 1.0][:replicas])
    torch.set_num_threads(1)
    own = [products.batched(a[r : r + 1].clone(), b[r : r + 1].clone())[0] for r in range(replicas)]
    stepped = [c[r : r + 1].clone() for r in range(replicas)]
    for r, one in enumerate(stepped):
        products.add_batched_(one, a[r : r + 1].clone(), b[r : r + 1].clone(), betas=(betas[r],), alpha=-0.1)
    torch.set_num_threads(count)
    found = products.batched(a, b)
    products.add_batched_(c, a, b, betas=betas, alpha=-0.1)
    for r in set(range(replicas)) - {ill}:
        assert torch.equal(found[r], own[r]) and torch.equal(c[r], stepped[r][0])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 7),
    st.sampled_from([1, 2, 7, 31, 100, 1000, 40_000]),
    st.sampled_from([1, 2, 10, 33, 64]),
    st.sampled_from([1, 2]),
)
def test_a_total_has_the_bits_of_each_replicas_own(replicas: int, terms: int, columns: int, count: int) -> None:
    x = torch.randn(replicas, terms, columns, generator=torch.Generator().manual_seed(terms))
    torch.set_num_threads(1)
    own = torch.cat([sums.total(x[r : r + 1].clone()) for r in range(replicas)])
    torch.set_num_threads(count)
    assert torch.equal(sums.total(x), own)
    assert torch.equal(sums.total(x.mT.contiguous().mT), own)
    assert torch.allclose(own.double(), x.double().sum(1), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("fault", ["rounding", "leak"])
def test_a_library_that_lets_company_matter_is_found_out_and_not_used(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def faulty(a: Tensor, b: Tensor) -> Tensor:
        """Rounds otherwise in company, or reads beyond a replica's last row (oneDNN issue 5717)."""
        if fault == "rounding":
            split = a.shape[2] // 2 if len(a) > 1 else 0
            return torch.bmm(a[..., :split], b[:, :split]) + torch.bmm(a[..., split:], b[:, split:])
        out = torch.bmm(a, b)
        out[:-1, -1] += 0 * a[1:, :1, 0]
        return out

    monkeypatch.setattr(products, "PRODUCTS", (faulty, products.each, products.alone))
    monkeypatch.setattr(products, "products", {})
    a, b = torch.randn(4, 9, 100), torch.randn(4, 100, 11)
    expected = torch.bmm(a, b)
    a[2] = torch.nan
    found = products.batched(a, b)
    assert faulty not in products.products.values()
    assert found[[0, 1, 3]].isfinite().all()
    torch.testing.assert_close(found[[0, 1, 3]], expected[[0, 1, 3]])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("arch", ["fc_odd", "fc", "cnn_odd"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_ill_replica_leaves_its_neighbours_bits_alone_in_every_precision(
    arch: str, precision: str, value: float
) -> None:
    geometry = SMALL[arch]
    specs = [spec_of(geometry, "full_ninr", seed, 33, precision=precision) for seed in range(3)]
    data = data_of(geometry, specs[0], 3)
    stack = new_stack(specs, data)
    with torch.no_grad():
        for parameter in stack.model.parameters():
            parameter[1] = value
    found = {outcome.spec.key: outcome for ended in train(stack, data) for outcome in ended}
    assert found[specs[1].key].record["status"] == "diverged"
    assert low_type(precision, torch.device("cpu")) in (None, torch.bfloat16)
    for spec in (specs[0], specs[2]):
        assert not differences(found[spec.key], trained([spec], data, torch.get_num_threads())[spec.key])
