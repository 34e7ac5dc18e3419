"""The weight noise study: its quantities against brute force, verdicts by their rules, a smoke run, bad settings named.

Axes: V directions, B samples, K outputs, W all weights and biases in one row.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from noise_reg.artefacts import EVERY, redraw
from noise_reg.artefacts.weight_noise_claims import compared, gains, joint, judge
from noise_reg.nn import ACTIVATIONS
from noise_reg.spec import SpecError
from noise_reg.theory.weight_noise import Directions, Network
from noise_reg.weight_noise_study import CHUNK, expansion, flatness, penalty, study
from tests.composed import composed

I, K, B = 4, 3, 2
DEPTHS: dict[str, list[int]] = {"none": [], "one": [5], "two": [5, 6]}
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def network(widths: list[int], activation: str, batch: int = B) -> Network:
    generator = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = [I, *widths, K]
    weights = tuple(made(o, i) * i**-0.5 for i, o in itertools.pairwise(sizes))
    biases = tuple(0.3 * made(o) for o in sizes[1:])
    return Network(weights, biases, activation, made(batch, I), made(batch, K))


def rows(of: Network | Directions) -> Tensor:
    """(W,) of a network, (V, W) of directions."""
    parts = (*of.weights, *of.biases)
    return torch.cat([p.flatten(1) if isinstance(of, Directions) else p.flatten() for p in parts], dim=-1)


def outputs(of: Network, weights_W: Tensor) -> Tensor:
    """(B K,) by torch's own layers, at other weights."""
    place, found, x = 0, [], of.x_BI
    for one in (*of.weights, *of.biases):
        found.append(weights_W[place : place + one.numel()].view_as(one))
        place += one.numel()
    depth = len(of.weights)
    for n in range(depth):
        x = torch.nn.functional.linear(x, found[n], found[depth + n])
        x = ACTIVATIONS[of.activation](x) if n < depth - 1 else x
    return x.flatten()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_jets_laplacian_and_penalty_are_those_of_whole_derivatives(depth: str, activation: str) -> None:
    of = network(DEPTHS[depth], activation)
    at, a = rows(of), of.errors()
    first_kW: Any = jacobian(lambda w: outputs(of, w), at)
    second_kWW = torch.stack([hessian(lambda w, k=k: outputs(of, w)[k], at) for k in range(B * K)])
    torch.testing.assert_close(of.laplacian().flatten(), second_kWW.diagonal(dim1=1, dim2=2).sum(1), **EXACT)
    torch.testing.assert_close(penalty(of), first_kW.square().sum(1).view(B, K).sum(1), **EXACT)
    gradient = (2 * a.flatten()[:, None] * first_kW).sum(0) / B
    assert of.gradient_norm() == pytest.approx(float(gradient.norm()), rel=1e-10)
    directions = of.directions(3, torch.Generator().manual_seed(1))
    xi_VW = rows(directions)
    one_VBK, two_VBK = directions.jet()
    torch.testing.assert_close(one_VBK.flatten(1), xi_VW @ first_kW.mT, **EXACT)
    torch.testing.assert_close(two_VBK.flatten(1), torch.einsum("vi,kij,vj->vk", xi_VW, second_kWW, xi_VW), **EXACT)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_a_pair_adds_is_the_difference_of_the_losses(activation: str) -> None:
    of, t = network([5, 6], activation), 0.3
    directions = of.directions(4, torch.Generator().manual_seed(1))
    xi_VW = rows(directions)

    def loss(weights_W: Tensor) -> float:
        return float((outputs(of, weights_W).view(B, K) - of.targets_BK).square().sum(1).mean())

    up, down = ([loss(rows(of) + sign * t * xi) for xi in xi_VW] for sign in (1, -1))
    expected = [(a + b) / 2 - loss(rows(of)) for a, b in zip(up, down, strict=True)]
    shift, spread = directions.added([t])
    np.testing.assert_allclose((shift + spread)[0], expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(directions.losses([t, -t]), [up, down], rtol=1e-10)


def test_the_kinks_of_a_relu_network_shift_its_error_as_their_closed_form_says() -> None:
    of, eta = network([5], "relu", batch=20), 0.01
    shift, _ = of.directions(40_000, torch.Generator().manual_seed(2)).added([math.sqrt(eta)])
    expected, error = float(of.kinks(eta).mean()), float(shift[0].std()) / 200
    assert abs(expected) > 10 * error, "the test would see nothing"
    assert float(shift[0].mean()) == pytest.approx(expected, abs=4 * error)


PLAIN: dict[str, Any] = {"draws": 4000, "etas": [1e-6, 1e-5, 1e-4, 1e-3], "probes": [1e-3], "probe_draws": 50}


def test_the_expansion_ends_for_one_linear_layer_and_goes_on_for_others() -> None:
    _, rows_ = expansion(network([], "identity"), PLAIN)
    assert all(abs(r["rest_1"]) < 1e-12 * r["penalty"] for r in rows_)
    for activation in ("identity", "tanh"):
        moment, rows_ = expansion(network([5], activation, 20), PLAIN)
        rests = np.abs([r["rest_2"] for r in rows_])
        np.testing.assert_allclose(np.log10(rests[1:] / rests[:-1]), 2, atol=0.05)
        assert abs(moment["curvature_drawn"] - moment["curvature"]) < 4 * moment["curvature_drawn_error"]
        assert abs(moment["square"] - 1) < 4 * moment["square_error"] < 0.1
        assert abs(moment["cross"]) < 4 * moment["cross_error"] < 0.1
        for r in rows_:
            assert abs(r["added"] - r["penalty"] - r["curvature"] - r["rest_2"]) < 4 * r["added_error"]


def test_flatness_is_of_as_many_draws_as_asked_for() -> None:
    of, count = network([5], "tanh"), int(PLAIN["probe_draws"])
    assert count % CHUNK, "a last chunk that is not full"
    generator = torch.Generator().manual_seed(0)
    chunks = [of.directions(n, generator) for n in [CHUNK] * (count // CHUNK) + [count % CHUNK]]
    values = torch.cat([torch.stack(one.added([1e-3**0.5])).sum(0)[0] for one in chunks])
    (row,) = flatness(of, PLAIN)
    assert row["added"] == pytest.approx(float(values.mean()), rel=1e-10) and len(values) == count
    assert row["added_error"] == pytest.approx(float(values.std()) / count**0.5, rel=1e-10)


SETTINGS = {
    "draws": 100, "images": 10, "probe_draws": 8, "directions": 2, "seeds": 3, "overrides": ["dataset=mnist"],
    "trainings": {"small steps": ["max_epochs=2"]},
}  # fmt: skip
CONTEXT: dict[str, Any] = {"preset": "smoke", "dataset": "mnist", "below_paper_scale": "", "settings": SETTINGS}
ADDED = {"plain": 1.0, "penalty": 0.7, "noise per sample": 0.7, "noise per mini-batch": 0.7}


def tables(
    *,
    share: float = 0.0,
    error: float = 1e-8,
    order: float = 2.0,
    kinks: float = 0.0,
    cross: float = 0.0,
    square: float = 1.0,
    mean_error: float = 0.001,
    seeds: int = 4,
    **added: float,
) -> dict[str, pd.DataFrame]:
    """Made up: `share` of eta P left after the penalty, O(eta^`order`) after both terms, what the noise adds by method."""
    at = {"network": "ReLU", "epoch": 0}
    levels = ADDED | {name.replace("_", " ").replace("mini ", "mini-"): value for name, value in added.items()}
    runs: list[dict[str, Any]] = [
        {"training": "small steps", "method": method, "eta": 0.0 if method == "plain" else 0.001, "seed": seed}
        for method in levels
        for seed in range(seeds)
    ]
    flat = [
        {**r, "probe": probe, "added": levels[r["method"]] * probe * (1 + 0.01 * r["seed"])}
        for r in runs
        for probe in (0.001, 0.01)
    ]
    numbers = dict.fromkeys(("loss", "penalty", "curvature", "gradient_norm", "test_error"), 1.0)
    return {
        "expansion": pd.DataFrame(
            [
                {
                    **at, "eta": e, "z_variance": 100 * e, "added": e, "added_error": e / 10, "penalty": e, "curvature": 0.0, "shift": 0.0,
                    "shift_error": 0.0, "kinks": kinks * e, "rest_1": share * e, "rest_2": e**order, "rest_2_error": error * e, "draws": 100,
                }
                for e in (1e-6, 1e-5, 1e-4, 1e-2)
            ]
        ),
        "moments": pd.DataFrame(
            [
                {
                    **at, "parameters": 9, "loss": 1.0, "penalty": 1.0, "curvature": 0.0, "curvature_drawn": 0.0, "curvature_drawn_error": 0.1,
                    "square": square, "square_error": mean_error, "cross": cross, "cross_error": mean_error, "draws": 100,
                }
            ]
        ),
        "runs": pd.DataFrame([{**r, "key": "k", "status": "completed", "epochs": 1, **numbers} for r in runs]),
        "flatness": pd.DataFrame(flat),
        "lines": pd.DataFrame(
            [
                {"training": "small steps", "method": m, "eta": e, "seed": 0, "direction": v, "t": t, "loss": 1 + t * t}
                for m, e in (("plain", 0.0), ("penalty", 0.001), ("noise per sample", 0.001))
                for v in (0, 1)
                for t in (-0.1, 0.0, 0.1)
            ]
        ),
    }  # fmt: skip


BATCH = "W2, a draw a mini-batch"
FINE = dict.fromkeys(("W1", "W1, second order", "W1, kinks", "W2", BATCH, "W3", "W4"), "reproduced")


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({}, {}),
        ({"share": 0.3}, {"W1": "contradicted", "W1, kinks": "contradicted"}),
        ({"share": 0.3, "kinks": 0.3}, {"W1": "contradicted"}),
        (
            {"share": 0.11, "error": 0.01},
            {"W1": "inconclusive", "W1, kinks": "inconclusive", "W1, second order": "under-powered"},
        ),
        ({"order": 1.0}, {"W1, second order": "contradicted"}),
        ({"order": 20.0}, {}),  # nothing left but rounding
        ({"cross": 0.02}, {"W3": "contradicted"}),
        ({"square": 1.02}, {"W4": "contradicted"}),
        ({"mean_error": 0.1}, {"W3": "under-powered", "W4": "under-powered"}),
        ({"penalty": 1.2}, {"W2": "contradicted", BATCH: "contradicted"}),
        ({"noise_per_sample": 0.5}, {"W2": "contradicted"}),
        ({"noise_per_sample": 0.78}, {"W2": "contradicted"}),
        ({"noise_per_mini_batch": 0.5}, {BATCH: "contradicted"}),
        ({"seeds": 2}, {"W2": "under-powered", BATCH: "under-powered"}),
    ],
)
def test_verdicts_follow_their_rules(changes: dict[str, Any], different: dict[str, str]) -> None:
    assert {v.claim: v.verdict for v in judge(tables(**changes))} == FINE | different


@pytest.mark.usefixtures("unrendered")
def test_it_is_drawn_where_nothing_is_left(tmp_path: Path) -> None:
    verdicts = EVERY["weight_noise"].build(tables(order=20.0), CONTEXT, tmp_path)
    assert redraw(tmp_path) == verdicts == judge(tables(order=20.0))


def test_an_interval_that_settles_nothing_leaves_w2_inconclusive() -> None:
    flat = tables()["flatness"]
    flat.loc[(flat["method"] == "noise per sample") & (flat["seed"] == 0), "added"] *= 3
    found = [p.verdict for p in compared(flat, "small steps", "noise per sample", 0.001)]
    assert found == ["reproduced", "inconclusive", "inconclusive"]


def test_differences_are_paired_by_seed_and_in_percent_of_plain() -> None:
    (of,) = [interval for _, method, _, interval in gains(tables()["flatness"]) if method == "penalty"]
    assert (
        of.difference == pytest.approx(-30) and of.n == (4, 4) and of.half_width < 1
    )  # unpaired seeds alone differ by 3 %


def test_joint_intervals_widen_with_their_number() -> None:
    assert joint(1.0, 0.1, 100, 1).half_width == pytest.approx(0.1984, abs=1e-4)  # t of 99 degrees of freedom
    assert joint(1.0, 0.1, 100, 10).half_width == pytest.approx(0.2871, abs=1e-3)


SMALL = [
    "epochs=[0,1]", "images=40", "draws=20", "strengths=[1.0e-3]", "seeds=3", "probes=[1.0e-3,1.0e-2]", "probe_draws=8",
    "directions=3", "points=5", "wandb=disabled", "workers=1",
]  # fmt: skip
DIGITS = ["dataset=digits", "optimizer.learning_rate=0.01", "optimizer.batch_size=50", "reading.loss=squared"]
WHOLE: dict[str, Any] = {  # in place of a whole entry, which Hydra would merge
    "overrides": [*DIGITS, "reading.standardize=none", "stop_accuracy=1.0"],
    "networks": {"linear": ["arch=fc", "arch.widths=[]"], "ReLU": ["arch=fc", "arch.widths=[6]"]},
    "trainings": {"small": ["arch=tanh_mlp", "arch.widths=[6]", "max_epochs=1"]},
}


def test_it_is_made_from_its_configuration(tmp_path: Path) -> None:
    with composed("weight_noise", *SMALL, f"store={tmp_path}/store", f"results={tmp_path}", "name=small") as cfg:
        OmegaConf.set_struct(cfg, False)
        cfg.update(WHOLE)
        study(cfg)
    out = tmp_path / "weight_noise-small"
    found = {name: pd.read_csv(out / f"{name}.csv") for name in ("expansion", "moments", "runs", "flatness", "lines")}
    assert found["moments"]["network"].tolist() == ["linear", "linear", "ReLU", "ReLU"]
    assert found["moments"]["loss"][1] < found["moments"]["loss"][0], "trained"
    linear = found["expansion"][found["expansion"]["network"] == "linear"]
    assert ((linear["rest_1"] / linear["penalty"]).abs() < 1e-12).all() and linear["kinks"].isna().all()
    assert (
        len(found["runs"]) == 4 * 3
        and found["runs"]["key"].is_unique
        and (found["runs"]["status"] == "completed").all()
    )
    at_0 = found["lines"][found["lines"]["t"] == 0].set_index("method")["loss"]
    own = found["runs"][found["runs"]["seed"] == 0].set_index("method")["loss"]
    assert all(at_0[method].tolist() == pytest.approx([own[method]] * 3) for method in own.index)
    assert str(tmp_path) not in (out / "provenance.json").read_text()
    drawn = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"weight_noise.png", "weight_noise.svg", "weight_noise.md", "verdicts.json"} <= drawn.keys()
    redraw(out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == drawn


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("draws=7", "draws = 7: must be a whole number of at least 8"),
        ("probe_draws=1", "probe_draws = 1: must be a whole number of at least 8"),
        ("seeds=2", "seeds = 2: must be a whole number of at least 3"),
        ("images=true", "images = True: must be a whole number of at least 2"),
        (
            "etas=[0.0,1e-3,1e-2,1e-1]",
            r"etas = \[0.0, .*\]: must be a rising list of at least 4 finite numbers above 0",
        ),
        ("etas=[1e-3,1e-2]", "must be a rising list of at least 4"),
        ("strengths=[]", r"strengths = \[\]: must be a rising list of at least 1 finite numbers above 0"),
        ("strengths=[-1e-3]", r"strengths = \[-0.001\]: must be a rising list"),
        ("strengths=[2e-3]", r"probes = .*: must hold 0.002, one of strengths"),
        ("probes=[1e-3,.inf]", r"probes = .*: must be a rising list of at least 2 finite numbers"),
        ("epochs=[]", r"epochs = \[\]: must be a rising list of whole numbers"),
        ("epochs=[0.5]", r"epochs = \[0.5\]: must be a rising list of whole numbers"),
        ("reach=0", "reach = 0: must be a finite number above 0"),
        ("networks=null", "networks: at least one must be given"),
        ("trainings=null", "trainings: at least one must be given"),
        ("overrides=['reading.loss=exact']", "reading.loss = exact: must be squared"),
        ("networks.tanh=['arch=cnn']", "arch.name = cnn: must be a dense network"),
    ],
)
def test_impossible_settings_are_named_before_any_work(override: str, message: str, tmp_path: Path) -> None:
    with (
        composed("weight_noise", override, f"store={tmp_path}/store", "wandb=disabled") as cfg,
        pytest.raises(SpecError, match=message),
    ):
        study(cfg)
    assert not list(tmp_path.iterdir())
