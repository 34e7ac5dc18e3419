"""How stored runs are evaluated: a frozen dataclass a family, which says under which names and settings its rows are kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from noise_reg.limits import IMAGES, count
from noise_reg.spec import MAX_SEED, checked, each, number, one_of

Stored = tuple[str, dict[str, Any], str]  # an evaluation's name in the store, its settings there, its name in rows


@dataclass(frozen=True)
class CorruptionSpec:
    """How Eq. 8 is evaluated [6]: its grid, the noise draws averaged over, and the space in which the noise is added."""

    grid: tuple[float, ...] = checked(each(number(0, 1), at_least=1, once=True))
    draws: int = checked(count(1))
    space: str = checked(one_of("standardized", "pixel"))
    seed: int = checked(number(0, MAX_SEED))

    @property
    def label(self) -> str:
        """Its name in the store: the two spaces do not overwrite each other."""
        return "corruption" if self.space == "standardized" else "corruption_pixel"

    def stored(self) -> list[Stored]:
        return [(self.label, dataclasses.asdict(self), "corruption"), ("clean", {}, "clean")]

    def passes(self, images: int) -> float:
        """Forward passes over the `images` test images."""
        return float(len(self.grid) * self.draws)


@dataclass(frozen=True)
class AttackSpec:
    """A white-box, untargeted attack in the maximum norm on the network without noise [13]; NINR paper, App. C.1.

    grid: delta, in units of `space`. One step of 1 x delta from the image itself is FGSM (Eq. 17), anything else PGD: `steps`
    steps of `step` x delta, each projected onto the ball of delta unless `projection` is off.
    """

    grid: tuple[float, ...] = checked(each(number(0), at_least=1, once=True))
    space: str = checked(one_of("pixel", "standardized"))
    clip: bool = checked(one_of(True, False))  # keep pixels in [0, 1]
    loss: str = checked(one_of("exact", "clamped", "stable"))  # whose gradient is climbed, see `ascent_direction`
    steps: int = checked(count(1))
    step: float = checked(number(0, open_low=True))
    projection: bool = checked(one_of(True, False))
    random_start: bool = checked(one_of(True, False))
    images: int = checked(count(0, IMAGES))  # so many of the test images, the first; 0 means all
    seed: int = checked(number(0, MAX_SEED))

    @property
    def is_fgsm(self) -> bool:
        return self.steps == 1 and self.step == 1 and not self.random_start

    @property
    def label(self) -> str:
        parts = ["fgsm" if self.is_fgsm else "pgd"]
        parts += [
            word for word, true in ((self.loss, self.loss != "exact"), (self.space, self.space != "pixel")) if true
        ]
        return "_".join(parts)

    def stored(self) -> list[Stored]:
        settings = dataclasses.asdict(self)
        shares = ["zero", "rounded"] if self.is_fgsm and self.loss == "exact" else ["zero"]
        return [(name, settings, name) for name in (self.label, *(f"{self.label}_{s}_gradients" for s in shares))]

    def passes(self, images: int) -> float:
        """Forward passes over the `images` test images: a gradient costs 2, and images that are broken leave."""
        strengths = len(self.grid) if self.is_fgsm else 3 * min(3, len(self.grid)) * self.steps
        return (3 + strengths) * min(1.0, (self.images or images) / images)


@dataclass(frozen=True)
class CertificateSpec:
    """What our attacks are held against on one replica: foolbox's FGSM, the Adversarial Robustness Toolbox's PGD, AutoAttack.

    delta: where they are compared, and `large`: where accuracy must be at chance; both in pixels. steps, step: PGD's.
    """

    delta: float = checked(number(0, open_low=True))
    large: float = checked(number(0, open_low=True))
    steps: int = checked(count(1))
    step: float = checked(number(0, open_low=True))
    images: int = checked(count(1, IMAGES))  # so many of the test images, the first
    seed: int = checked(number(0, MAX_SEED))

    label = "certificate_autoattack"  # the last to be written

    def stored(self) -> list[Stored]:
        settings = dataclasses.asdict(self)
        kinds = ("clean", "fgsm", "foolbox_fgsm", "pgd", "art_pgd", "pgd_stable", "autoattack")
        return [(name, settings, name) for name in (f"certificate_{kind}" for kind in kinds)]

    def attack(self, *, fgsm: bool, loss: str = "exact") -> AttackSpec:
        """Ours, with the same settings."""
        grid = (0.0, self.delta, self.large)
        steps, step = (1, 1.0) if fgsm else (self.steps, self.step)
        return AttackSpec(grid, "pixel", True, loss, steps, step, True, False, self.images, self.seed)

    def passes(self, images: int) -> float:
        """Forward passes over the `images` test images: AutoAttack makes some ten thousand of what is still right."""
        return 5000 * min(self.images, images) / images


@dataclass(frozen=True)
class ShiftSpec:
    """Domain shift [14]: the test half of another data set, brought to the format that the network was trained on.

    statistics: whose mean and scale standardise it, those of the training data ('source') or its own ('target').
    """

    dataset: str = checked(one_of("usps"))
    centring: str = checked(one_of("mass", "box"))
    mode: str = checked(one_of("bilinear", "bicubic", "nearest-exact"))
    statistics: str = checked(one_of("source", "target"))

    @property
    def label(self) -> str:
        return f"{self.dataset}_{self.centring}_{self.mode}_{self.statistics}"

    def stored(self) -> list[Stored]:
        return [(self.label, dataclasses.asdict(self), self.label)]

    def passes(self, images: int) -> float:
        """Forward passes over the `images` test images; the other set's are fewer."""
        return 1.0


@dataclass(frozen=True)
class ValidationSpec:
    """Clean accuracy on the validation images, which reading 5 keeps from training: what hyper-parameters are chosen by."""

    label = "validation"

    def stored(self) -> list[Stored]:
        return [(self.label, {}, self.label)]

    def passes(self, images: int) -> float:
        """Forward passes over as many images as there are test images."""
        return 1.0


@dataclass(frozen=True)
class PerturbationSpec:
    """Test images changed in a way that is not noise. grid: of an occlusion the side of a square in pixels, of a rotation degrees."""

    kind: str = checked(one_of("occlusion", "rotation"))
    grid: tuple[float, ...] = checked(each(number(0, 180), at_least=1, once=True))
    seed: int = checked(number(0, MAX_SEED))

    @property
    def label(self) -> str:
        return self.kind

    def stored(self) -> list[Stored]:
        return [(self.label, dataclasses.asdict(self), self.label)]

    def passes(self, images: int) -> float:
        """Forward passes over the `images` test images; a rotation goes both ways."""
        return float(len(self.grid) * (2 if self.kind == "rotation" else 1))


EvaluationSpec = CorruptionSpec | AttackSpec | CertificateSpec | ShiftSpec | ValidationSpec | PerturbationSpec
