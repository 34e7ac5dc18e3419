"""What independent libraries make of a network that our attacks were run on: are our numbers those of an attack at its best?

foolbox's FGSM and the Adversarial Robustness Toolbox's PGD must agree with ours, with the same settings; AutoAttack (APGD-CE,
APGD-T, FAB-T, Square) needs no gradient of the loss alone, so it falls far below PGD where gradients are masked.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noise_reg.data import Standardizer
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import CertificateSpec
from noise_reg.evaluations.adversarial import attacked_accuracy
from noise_reg.nn import Network
from noise_reg.precision import denormals

Rows = dict[str, tuple[tuple[float, ...], Tensor]]


def certify(
    model: Network,
    exported: nn.Module,
    pixels_ND: Tensor,
    y_N: Tensor,
    standardizer: Standardizer,
    settings: CertificateSpec,
) -> Rows:
    """Accuracy (1, S) of one replica by evaluation: ours on `model`, the libraries' on the same network `exported`.

    pixels_ND: test images in [0, 1], of which the first `settings.images` are used. Raises UserError if a library is missing.
    """
    libraries = imported()
    count = min(settings.images, len(pixels_ND))
    images = pixels_ND[:count].view(-1, *model.image)
    labels = y_N[:count]
    grid = (0.0, settings.delta, settings.large)
    exported = exported.to(images.dtype).requires_grad_(False)

    def accuracy(attacked: Tensor) -> float:
        with torch.no_grad():
            return float((exported(attacked).argmax(1) == labels).double().mean())

    def row(*values: float) -> Tensor:
        return torch.tensor([values], dtype=torch.float64)

    strong = settings.delta, settings.large
    found: Rows = {"clean": ((0.0,), row(accuracy(images)))}
    for name, is_fgsm, loss in (("fgsm", True, "exact"), ("pgd", False, "exact"), ("pgd_stable", False, "stable")):
        attack = settings.attack(fgsm=is_fgsm, loss=loss)
        found[name] = (grid, attacked_accuracy(model, pixels_ND, y_N, standardizer, attack)[0])
    with denormals():  # gradients of margins above 90 are
        theirs = [accuracy(foolbox_fgsm(libraries["foolbox"], exported, images, labels, delta)) for delta in strong]
        found["foolbox_fgsm"] = (strong, row(*theirs))
        theirs = [accuracy(art_pgd(exported, images, labels, delta, settings)) for delta in strong]
        found["art_pgd"] = (strong, row(*theirs))
        worst = autoattack(libraries["pyautoattack"], exported, images, labels, settings)
        found["autoattack"] = ((settings.delta,), row(accuracy(worst)))
    return {f"certificate_{name}": value for name, value in found.items()}


def imported() -> dict[str, ModuleType]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in ("art", "auto-attack"):  # which would write through the progress bar
                logging.getLogger(name).setLevel(logging.WARNING)
            import art.attacks.evasion
            import foolbox
            import pyautoattack
        except ImportError as error:
            raise UserError(
                f"attack.certificate: {error.name} is not installed; `make setup` installs it, or leave certificate out of "
                "the evaluations"
            ) from error
    return {"foolbox": foolbox, "art": art, "pyautoattack": pyautoattack}


def foolbox_fgsm(foolbox: Any, exported: nn.Module, images: Tensor, labels: Tensor, delta: float) -> Tensor:
    wrapped = foolbox.PyTorchModel(exported, bounds=(0, 1), device=images.device)
    attacked: Tensor = foolbox.attacks.LinfFastGradientAttack()(wrapped, images, labels, epsilons=delta)[1]
    return attacked


def art_pgd(exported: nn.Module, images: Tensor, labels: Tensor, delta: float, settings: CertificateSpec) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = exported(images[:1]).shape[1]
    wrapped = PyTorchClassifier(
        exported,
        nn.CrossEntropyLoss(),
        tuple(images.shape[1:]),
        classes,
        clip_values=(0, 1),
        device_type="gpu" if images.is_cuda else "cpu",
    )
    attack = ProjectedGradientDescentPyTorch(
        wrapped,
        norm=np.inf,
        eps=delta,
        eps_step=settings.step * delta,
        max_iter=settings.steps,
        num_random_init=0,
        batch_size=len(images),
        verbose=False,
    )
    attacked = attack.generate(images.cpu().numpy(), y=labels.cpu().numpy())
    return torch.from_numpy(attacked).to(images)


def autoattack(
    pyautoattack: Any, exported: nn.Module, images: Tensor, labels: Tensor, settings: CertificateSpec
) -> Tensor:
    with contextlib.redirect_stdout(io.StringIO()):  # it says that it sets its parameters
        attack = pyautoattack.AutoAttack(
            exported, norm="Linf", eps=settings.delta, version="standard", device=images.device, seed=settings.seed
        )
    attacked: Tensor = attack.run_standard_evaluation(images, labels, batch_size=len(images))[0]
    return attacked.to(images)
