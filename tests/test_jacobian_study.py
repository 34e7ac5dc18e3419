"""Claim R3: the terms of the expansion against explicit Hessians, the study's verdicts and its making."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from noise_reg.artefacts import EVERY, redraw
from noise_reg.jacobian_study import study
from noise_reg.spec import SpecError
from noise_reg.theory.jacobian import noisy_norm, second_order, second_order_whole, squared_jacobian
from tests.composed import composed

CONTEXT = {
    "preset": "test", "dataset": "usps", "below_paper_scale": "", "settings": {"images": 9, "draws": 4, "vectors": 3},
}  # fmt: skip
SMALL = [
    "~networks", ("+networks={tiny: {overrides: ['dataset=digits', 'arch.widths=[5]', 'optimizer.batch_size=32'], epochs: 2, whole: true}, "
    "other: {overrides: ['dataset=digits', 'arch.widths=[5,4]', 'optimizer.batch_size=32'], epochs: 1, whole: false}}"),
    "images=12", "draws=32", "vectors=3", "sigmas=[0.01,0.1,0.5]", "wandb=disabled",
]  # fmt: skip
D, K = 4, 3


def function() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(6, D, generator=generator, dtype=torch.float64)
    return first, torch.randn(K, 6, generator=generator, dtype=torch.float64)


def network(x: Tensor) -> Tensor:
    first, second = function()
    return torch.tanh(x @ first.T) @ second.T


def points(count: int = 5) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(x_D: Tensor) -> tuple[float, float, float]:
    """|J|^2, |H|^2 and sum_k grad F_k . grad Laplacian F_k of one sample, from explicit derivatives."""
    jacobian = torch.autograd.functional.jacobian(network, x_D)
    hessians = [torch.autograd.functional.hessian(lambda z, k=k: network(z)[k], x_D) for k in range(K)]
    slopes = []
    for k in range(K):
        columns = []
        for n in range(D):  # the third derivative along n, by central differences of the Laplacian

            def laplacian(z: Tensor, k: int = k) -> Tensor:
                return torch.autograd.functional.hessian(lambda t: network(t)[k], z).trace()

            step = 1e-5 * torch.eye(D, dtype=torch.float64)[n]
            columns.append(float(laplacian(x_D + step) - laplacian(x_D - step)) / 2e-5)
        slopes.append(torch.tensor(columns, dtype=torch.float64))
    cross = sum(float(jacobian[k] @ slopes[k]) for k in range(K))
    return float(jacobian.square().sum()), float(sum(h.square().sum() for h in hessians)), cross


def test_the_terms_are_those_of_explicit_derivatives() -> None:
    x = points()
    norm, (hessian, half) = squared_jacobian(network, x), second_order_whole(network, x)
    for b in range(len(x)):
        jacobian, of_hessian, cross = by_hand(x[b])
        assert norm[b].item() == pytest.approx(jacobian, rel=1e-10)
        assert hessian[b].item() == pytest.approx(of_hessian, rel=1e-10)
        assert (half - hessian)[b].item() == pytest.approx(cross, rel=1e-4)


def test_hutchinsons_estimates_have_no_bias() -> None:
    x, generator = points(2), torch.Generator().manual_seed(2)
    draws = [
        torch.stack(second_order(network, x, torch.randn(x.shape, generator=generator, dtype=torch.float64).sign()))
        for _ in range(600)
    ]
    found = torch.stack(draws)
    off = (found.mean(0) - torch.stack(second_order_whole(network, x))).abs()
    assert (off < 5 * found.std(0) / 600**0.5).all()


def test_what_small_noise_adds_is_the_whole_second_order_and_not_the_hessian_alone() -> None:
    x, sigma, generator = points(), 0.01, torch.Generator().manual_seed(3)
    draws = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in range(2000)]
    added = torch.stack([noisy_norm(network, x, sigma, draw) for draw in draws]) - squared_jacobian(network, x)
    mean, error = added.mean(0) / sigma**2, added.std(0) / sigma**2 / 2000**0.5
    hessian, half = second_order_whole(network, x)
    assert ((mean - half).abs() < 5 * error + 1e-2 * half.abs()).all()
    assert ((mean - hessian).abs() > 5 * error).any()


def table(added: float, second: float = 3.0) -> dict[str, pd.DataFrame]:
    """|H|^2 = 4 on one network, and what noise adds in units of sigma^2."""
    at = {
        "network": "made",
        "whole": False,
        "jacobian": 10.0,
        "hessian": 4.0,
        "hessian_error": 0.01,
        "second_error": 0.01,
    }
    rows = [
        {**at, "sigma": s, "second": second, "added": added * s**2, "added_error": 0.01 * s**2}
        for s in (0.01, 0.1, 0.5)
    ]
    return {"expansion": pd.DataFrame(rows)}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (3.0, ["contradicted", "reproduced"]),
        (4.0, ["reproduced", "contradicted"]),
        (3.51, ["inconclusive", "inconclusive"]),
        (9.0, ["contradicted", "contradicted"]),
    ],
)
def test_verdicts_follow_their_rules(added: float, expected: list[str], tmp_path: Path) -> None:
    verdicts = EVERY["nj_expansion"].build(table(added), CONTEXT, tmp_path)
    assert [v.verdict for v in verdicts] == expected
    assert redraw(tmp_path) == verdicts


def test_it_is_made_from_its_configuration(tmp_path: Path) -> None:
    with composed("nj_expansion", *SMALL, f"store={tmp_path}/store", f"results={tmp_path}", "name=small") as cfg:
        study(cfg)
    found = pd.read_csv(tmp_path / "nj_expansion-small" / "expansion.csv")
    assert found["network"].tolist() == ["tiny"] * 3 + ["other"] * 3
    tiny, other = found[found["whole"]], found[~found["whole"]]
    assert (tiny["hessian_error"] == 0).all() and (other["hessian_error"] > 0).all()
    assert (found["hessian"] > 0).all() and (found["jacobian"] > 0).all()
    near = tiny.iloc[0]
    assert near["added"] == pytest.approx(near["sigma"] ** 2 * near["second"], abs=5 * near["added_error"])
    assert str(tmp_path) not in (tmp_path / "nj_expansion-small" / "provenance.json").read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("draws=1", "draws = 1: must be a whole number of at least 2"),
        ("sigmas=[0.1,0.2]", "must be a rising list of at least three numbers above 0"),
        ("sigmas=[0.2,0.1,0.3]", "must be a rising list"),
        ("networks.tiny.epochs=-1", r"networks\.tiny\.epochs = -1: must be a whole number of at least 0"),
    ],
)
def test_impossible_settings_are_named(override: str, message: str, tmp_path: Path) -> None:
    overrides = [*SMALL, f"store={tmp_path}/store", override]
    with composed("nj_expansion", *overrides) as cfg, pytest.raises(SpecError, match=message):
        study(cfg)
