"""FGSM and PGD against slow loops over exported networks, and against foolbox.

Axes: R replicas, N test images, S strengths.
"""

from __future__ import annotations

import copy
from typing import Any

import foolbox
import pytest
import torch
from torch import Tensor, nn

from noise_reg.evaluation_spec import AttackSpec, CertificateSpec
from noise_reg.evaluations import adversarial, certificate
from noise_reg.evaluations.adversarial import attacked_accuracy
from noise_reg.evaluations.certificate import certify
from noise_reg.evaluations.clean import clean_scores
from noise_reg.nn import CLEAN, StackedModel
from noise_reg.precision import arithmetic
from noise_reg.prepare import TrainingData
from noise_reg.spec import SpecError, parse
from noise_reg.streams import Purpose, uniform
from tests.plain import IMAGE, TEST_IMAGES
from tests.trained import exported, trained

GRID = (0.0, 0.02, 0.1, 0.6)
PGD: dict[str, Any] = {"steps": 4, "step": 0.4}


def attack(**changes: Any) -> AttackSpec:
    plain = {"grid": GRID, "space": "pixel", "clip": True, "loss": "exact", "steps": 1, "step": 1.0, "projection": True}
    return parse(AttackSpec, {**plain, "random_start": False, "images": 0, "seed": 3, **changes})


def slow_accuracy(model: nn.Module, data: TrainingData, chosen: AttackSpec) -> list[float]:
    """One image and one strength at a time, in pixels, on the exported network, nobody leaving early."""
    scale = data.standardizer.scale if chosen.space == "standardized" else torch.ones(1, dtype=torch.float64)
    low, high = (0.0, 1.0) if chosen.clip else (-torch.inf, torch.inf)
    count = chosen.images or TEST_IMAGES
    draw = uniform(torch.tensor([chosen.seed]), Purpose.ATTACK, data.test_pixels.numel(), lane=0, step=0, epoch=0)
    starts = 2 * draw.view(data.test_pixels.shape).double() - 1
    accuracies = []
    broken = [False] * count
    for delta in chosen.grid:
        hits = 0
        for n in range(count):
            x, y = data.test_pixels[n].view(1, *IMAGE), data.test_y[n : n + 1]
            z = x + delta * scale * starts[n].view(1, *IMAGE) * chosen.random_start
            z = z.clamp(low, high)
            right = bool(model(z).argmax() == y)
            for _ in range(chosen.steps):
                z = z.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(loss_of(model(z), y, chosen.loss), z)
                z = z + chosen.step * delta * scale * gradient.sign()
                if chosen.projection:
                    z = torch.maximum(torch.minimum(z, x + delta * scale), x - delta * scale)
                z = z.clamp(low, high).detach()
                now = bool(model(z).argmax() == y)
                right = now if chosen.is_fgsm else right and now
            if chosen.projection and not chosen.is_fgsm:
                broken[n] |= not right
                right = not broken[n]
            hits += right
        accuracies.append(hits / count)
    return accuracies


def loss_of(logits: Tensor, y: Tensor, loss: str) -> Tensor:
    if loss == "exact":
        return nn.functional.cross_entropy(logits, y)
    p = logits.softmax(1)[0, y]
    return -p.clamp(1e-7, 1 - 1e-7).log().sum()


@pytest.mark.parametrize("arch", ["fc", "cnn"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"space": "standardized"},
        {"clip": False},
        {"loss": "clamped"},
        {"images": 7},
        PGD,
        {**PGD, "random_start": True},
        {**PGD, "projection": False, "grid": (0.1, 0.0, 0.02)},
        {**PGD, "space": "standardized", "clip": False, "grid": (0.0, 0.3, 1.0)},
    ],
    ids=str,
)
def test_attacks_equal_a_slow_loop_over_exported_networks(arch: str, changes: dict[str, Any]) -> None:
    model, data, outcomes = trained(arch)
    chosen = attack(**changes)
    found_RS, *_ = attacked_accuracy(model, data.test_pixels, data.test_y, data.standardizer, chosen)
    expected = [slow_accuracy(exported(outcome, data), data, chosen) for outcome in outcomes]
    assert found_RS.flatten().tolist() == pytest.approx([value for row in expected for value in row])
    assert len({tuple(row) for row in expected}) > 1 and min(map(min, expected)) < max(map(max, expected))


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_fgsm_equals_foolbox(arch: str) -> None:
    model, data, outcomes = trained(arch)
    found_RS, *_ = attacked_accuracy(model, data.test_pixels, data.test_y, data.standardizer, attack())
    images = data.test_pixels.view(-1, *IMAGE)
    for outcome, row in zip(outcomes, found_RS.tolist(), strict=True):
        wrapped = foolbox.PyTorchModel(exported(outcome, data), bounds=(0, 1), device="cpu")
        _, _, lost = foolbox.attacks.LinfFastGradientAttack()(wrapped, images, data.test_y, epsilons=list(GRID))
        assert row == pytest.approx((1 - lost.double().mean(1)).tolist(), abs=1e-6)


def confident(margin: float) -> tuple[StackedModel, nn.Sequential, TrainingData]:
    """A replica and its exported network whose outputs are scaled to a median margin between the two largest logits."""
    model, data, (outcome, *_) = trained("fc")
    network = exported(outcome, data)
    assert isinstance(network, nn.Sequential)
    model.keep(torch.tensor([0]))
    with torch.no_grad():
        first, second = model(data.test_x[None], CLEAN)[0].topk(2).values.unbind(1)
        for module in (model.layers[-1], network[-1]):
            for parameter in module.parameters():
                parameter.mul_(margin / float((first - second).median()))
    return model, network, data


def by_foolbox(network: nn.Sequential, data: TrainingData, dtype: torch.dtype) -> list[float]:
    wrapped = foolbox.PyTorchModel(network.to(dtype), bounds=(0, 1), device="cpu")
    images = data.test_pixels.to(dtype).view(-1, *IMAGE)
    _, _, lost = foolbox.attacks.LinfFastGradientAttack()(wrapped, images, data.test_y, epsilons=list(GRID))
    return (1 - lost.double().mean(1)).tolist()


def in_float32(model: StackedModel, data: TrainingData, loss: str) -> tuple[list[float], float, float]:
    """Accuracies, the share of gradients that are 0, and the share of those that rounding has changed."""
    standardizer = copy.deepcopy(data.standardizer).float()
    with arithmetic("fp32", torch.device("cpu")):  # denormal numbers are 0
        found_RS, zero_R1, rounded_R1 = attacked_accuracy(
            model.float(), data.test_pixels.float(), data.test_y, standardizer, attack(loss=loss)
        )
    return found_RS[0].tolist(), float(zero_R1), float(rounded_R1)


@pytest.mark.parametrize("margin", [5.0, 25.0, 95.0, 400.0])
def test_the_exact_loss_is_climbed_with_what_rounding_leaves_as_foolbox_does_denormal_numbers_or_not(
    margin: float,
) -> None:
    model, network, data = confident(margin)
    found, zero, rounded = in_float32(model, data, "exact")
    assert found == pytest.approx(by_foolbox(network, data, torch.float32), abs=1e-6)
    assert (rounded > 0.2) == (margin > 20) and (zero > 0.2) == (margin > 50)


def test_denormal_numbers_count_in_a_certificate_s_libraries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_counted() -> bool:
        return float(torch.tensor([1e-40]) * 1) > 0

    seen = []
    for name, position in (("foolbox_fgsm", 2), ("art_pgd", 1), ("autoattack", 2)):

        def library(*given: Any, images: int = position) -> Any:
            seen.append(is_counted())
            return given[images]

        monkeypatch.setattr(certificate, name, library)
    model, network, data = confident(5.0)
    settings = parse(CertificateSpec, {"delta": 0.1, "large": 0.6, "steps": 2, "step": 0.5, "images": 400, "seed": 0})
    standardizer = copy.deepcopy(data.standardizer).float()
    with arithmetic("fp32", torch.device("cpu")):
        certify(model.float(), network, data.test_pixels.float(), data.test_y, standardizer, settings)
        assert not is_counted()
    assert seen == [True] * 5 and is_counted()


@pytest.mark.parametrize("margin", [1.0, 5.0])
def test_the_stable_gradient_is_that_of_float64_and_no_confidence_changes_it(margin: float) -> None:
    model, network, data = confident(margin)
    expected = by_foolbox(network, data, torch.float64)  # rounds from a margin of 37 on
    found, _, rounded = in_float32(model, data, "stable")
    assert found == pytest.approx(expected, abs=1e-6)
    assert rounded == 0


def test_an_attack_along_the_stable_gradient_breaks_what_rounding_protects() -> None:
    model, _, data = confident(400.0)
    exact, stable = (in_float32(model, data, loss)[0] for loss in ("exact", "stable"))
    assert exact[0] == stable[0]
    assert stable[2] < exact[2] - 0.2


def test_strength_0_is_the_clean_accuracy_and_pgd_is_stronger_than_fgsm() -> None:
    model, data, _ = trained("fc")
    test = (model, data.test_pixels, data.test_y, data.standardizer)
    fgsm, pgd = (attacked_accuracy(*test, attack(**kind))[0] for kind in ({}, {"steps": 20, "step": 0.125}))
    clean = clean_scores(model, data.test_x, data.test_y, "exact")[1]
    assert torch.equal(fgsm[:, 0], clean) and torch.equal(pgd[:, 0], clean)
    assert (pgd.diff(dim=1) <= 0).all() and (pgd[:, -1] < 0.1).all()
    assert pgd.mean() < fgsm.mean() and (pgd[:, 1:3].sum(0) <= fgsm[:, 1:3].sum(0)).all()


def test_images_in_chunks_and_replicas_in_stacks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, _ = trained("cnn")
    test = (model, data.test_pixels, data.test_y, data.standardizer)
    whole = attacked_accuracy(*test, attack(**PGD))
    monkeypatch.setattr(adversarial, "CHUNK", 7)  # the last chunk is shorter
    assert torch.equal(attacked_accuracy(*test, attack(**PGD))[0], whole[0])
    model.keep(torch.tensor([1]))
    alone = attacked_accuracy(*test, attack(**PGD))
    assert torch.equal(alone[0], whole[0][1:2]) and torch.equal(alone[1], whole[1][1:2])


def test_the_clamped_loss_hides_the_gradient_of_confident_images_and_they_withstand_any_fgsm() -> None:
    model, data, _ = trained("fc")
    with torch.no_grad():
        for parameter in model.layers[-1].parameters():
            parameter.mul_(1000)  # every image far beyond the clamp
    test = (model, data.test_pixels, data.test_y, data.standardizer)
    (clamped, flat, _), (exact, *_) = (attacked_accuracy(*test, attack(loss=loss)) for loss in ("clamped", "exact"))
    assert (flat[:, 0] > 0.9).all()
    assert (clamped[:, -1] > exact[:, -1] + 0.1).all()
    assert (clamped[:, -1] - clamped[:, 0]).abs().max() <= 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": []}, r"grid = \[\]: must be a list of at least 1"),
        ({"grid": [-0.1]}, r"grid = \[-0\.1\]: must be a list, each a finite number of at least 0"),
        ({"steps": 0}, "steps = 0: must be a whole number of at least 1"),
        ({"step": 0.0}, "step = 0.0: must be a finite number above 0"),
        ({"loss": "hinge"}, "loss = hinge: must be one of exact, clamped"),
        ({"space": "latent"}, "space = latent: must be one of pixel, standardized"),
        ({"images": -1}, "images = -1: must be a whole number of at least 0"),
    ],
)
def test_impossible_attacks_name_the_field_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attack(**changes)


def test_an_attack_leaves_the_network_as_it_is() -> None:
    model, data, _ = trained("fc")  # its layers still step their weights in a training's backward pass
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attacked_accuracy(model, data.test_pixels, data.test_y, data.standardizer, attack(**PGD))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
