"""FGSM and PGD against slow loops over exported networks, and against foolbox.

Axes: R replicas, N test images, S strengths.
"""

from __future__ import annotations

from typing import Any

import foolbox
import pytest
import torch
from torch import Tensor, nn

from noise_reg.data import Standardizer
from noise_reg.evaluate import adversarial, evaluation_arithmetic
from noise_reg.evaluate.adversarial import attacked_accuracy
from noise_reg.evaluate.clean import clean_scores
from noise_reg.evaluation_spec import AttackSpec
from noise_reg.nn import CLEAN
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
    found_RS, _ = attacked_accuracy(model, data.test_pixels, data.test_y, data.standardizer, chosen)
    expected = [slow_accuracy(exported(outcome, data), data, chosen) for outcome in outcomes]
    assert found_RS.flatten().tolist() == pytest.approx([value for row in expected for value in row])
    assert len({tuple(row) for row in expected}) > 1 and min(map(min, expected)) < max(map(max, expected))


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_fgsm_equals_foolbox(arch: str) -> None:
    model, data, outcomes = trained(arch)
    found_RS, _ = attacked_accuracy(model, data.test_pixels, data.test_y, data.standardizer, attack())
    images = data.test_pixels.view(-1, *IMAGE)
    for outcome, row in zip(outcomes, found_RS.tolist(), strict=True):
        wrapped = foolbox.PyTorchModel(exported(outcome, data), bounds=(0, 1), device="cpu")
        _, _, lost = foolbox.attacks.LinfFastGradientAttack()(wrapped, images, data.test_y, epsilons=list(GRID))
        assert row == pytest.approx((1 - lost.double().mean(1)).tolist(), abs=1e-6)


def test_gradients_at_the_edge_of_floats_still_point_somewhere_as_they_do_for_foolbox() -> None:
    model, data, (outcome, *_) = trained("fc")
    model.keep(torch.tensor([0]))
    model.float()
    with torch.no_grad():
        first, second = model(data.test_x.float()[None], CLEAN)[0].topk(2).values.unbind(1)
        factor = 95 / float((first - second).median())  # e^-95 is 5.5e-42: below float32's least normal number
        for parameter in model.layers[-1].parameters():
            parameter.mul_(factor)
    network = exported(outcome, data).float()
    assert isinstance(network, nn.Sequential) and isinstance(network.standardize, Standardizer)
    with torch.no_grad():
        for parameter in network[-1].parameters():
            parameter.mul_(factor)
    chosen, standardizer = attack(grid=(0.0, 0.1)), network.standardize
    flat = {}
    for flush in (True, False):
        with arithmetic("fp32", torch.device("cpu"), flush):
            found_RS, flat_R1 = attacked_accuracy(model, data.test_pixels.float(), data.test_y, standardizer, chosen)
        flat[flush] = float(flat_R1)
    assert flat[True] > flat[False]  # some image lies in between
    assert evaluation_arithmetic(chosen, "bf16") == ("fp32", False)
    wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    images = data.test_pixels.float().view(-1, *IMAGE)
    _, _, lost = foolbox.attacks.LinfFastGradientAttack()(wrapped, images, data.test_y, epsilons=list(chosen.grid))
    assert found_RS[0].tolist() == pytest.approx((1 - lost.double().mean(1)).tolist(), abs=1e-6)


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
    (clamped, flat), (exact, _) = (attacked_accuracy(*test, attack(loss=loss)) for loss in ("clamped", "exact"))
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
