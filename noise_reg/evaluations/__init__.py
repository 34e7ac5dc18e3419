"""Evaluations: one file a family, (model, data) -> rows (strength, accuracy)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from noise_reg.evaluation_spec import (
    AttackSpec,
    CertificateSpec,
    EvaluationSpec,
    PerturbationSpec,
    ShiftSpec,
    ValidationSpec,
)
from noise_reg.evaluations.adversarial import attacked_accuracy
from noise_reg.evaluations.certificate import certify
from noise_reg.evaluations.clean import clean_scores
from noise_reg.evaluations.corruption import corruption_accuracy
from noise_reg.evaluations.perturbation import perturbed_accuracy
from noise_reg.nn import Network
from noise_reg.prepare import TrainingData

Measured = tuple[tuple[float, ...], Tensor]  # strengths, and the accuracy (R, S) of each replica at each


def measure(
    model: Network, data: TrainingData, settings: EvaluationSpec, exported: Callable[[], nn.Module]
) -> dict[str, Measured]:
    """What `settings.stored` names, of all replicas of a network at once; a certificate is of the first alone, `exported`."""
    test = (model, data.test_pixels, data.test_y, data.standardizer)
    if isinstance(settings, AttackSpec):
        accuracy_RS, zero_R1, rounded_R1 = attacked_accuracy(*test, settings)
        shares = {f"{settings.label}_zero_gradients": zero_R1, f"{settings.label}_rounded_gradients": rounded_R1}
        return {settings.label: (settings.grid, accuracy_RS), **{name: ((0.0,), s) for name, s in shares.items()}}
    if isinstance(settings, ShiftSpec | ValidationSpec):
        accuracy_R = clean_scores(model, data.test_x, data.test_y, "exact")[1]
        return {settings.label: ((0.0,), accuracy_R[:, None])}
    if isinstance(settings, CertificateSpec):
        return certify(model, exported(), *test[1:], settings)
    if isinstance(settings, PerturbationSpec):
        return {settings.label: (settings.grid, perturbed_accuracy(*test, settings))}
    grid = tuple(dict.fromkeys((0.0, *settings.grid)))  # 0 is the clean accuracy
    accuracy_RS = corruption_accuracy(*test, dataclasses.replace(settings, grid=grid))
    asked = [grid.index(strength) for strength in settings.grid]
    return {"clean": ((0.0,), accuracy_RS[:, :1]), settings.label: (settings.grid, accuracy_RS[:, asked])}


def evaluation_precision(settings: EvaluationSpec, trained: str) -> str:
    """That of the training, but for attacks at least fp32: they climb along the signs of small gradients."""
    attacks = isinstance(settings, AttackSpec | CertificateSpec)
    return "fp32" if attacks and trained in ("bf16", "tf32") else trained
