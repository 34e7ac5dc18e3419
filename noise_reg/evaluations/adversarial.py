"""Accuracy under attack: FGSM (Eq. 17 of the NINR paper) and PGD, on all replicas of a stack at once.

An attack works on standardised pixels, where a ball of radius delta in pixels is a box with sides delta / scale; the sign of
the gradient is the same in both. Products run in fp32 whatever a run was trained with: signs of small gradients are what an
attack is made of.

Axes: R replicas, N images, B images of a chunk, D pixels, S strengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noise_reg.data import Standardizer
from noise_reg.evaluation_spec import AttackSpec
from noise_reg.losses import ascent_direction
from noise_reg.nn import CLEAN, Network
from noise_reg.streams import Purpose, uniform

CHUNK = 1000  # images a forward pass


@dataclass(frozen=True)
class Box:
    """What an attack may reach, in standardised pixels: a ball's radius for delta = 1, and the images' range."""

    radius_D: Tensor
    low_D: Tensor
    high_D: Tensor

    @classmethod
    def of(cls, settings: AttackSpec, standardizer: Standardizer, like_ND: Tensor, image: tuple[int, int, int]) -> Box:
        def standardized(level: float) -> Tensor:
            return standardizer(torch.full(image, level, dtype=like_ND.dtype, device=like_ND.device)).flatten()

        low, high = standardized(0.0), standardized(1.0)
        radius = high - low if settings.space == "pixel" else torch.ones_like(low)
        if not settings.clip:
            low, high = torch.full_like(low, -torch.inf), torch.full_like(high, torch.inf)
        return cls(radius, low, high)


def attacked_accuracy(
    model: Network, pixels_ND: Tensor, y_N: Tensor, standardizer: Standardizer, settings: AttackSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Accuracy (R, S) float64 at each delta of `settings.grid`, and the shares (R, 1) of images with a gradient of exactly 0, and
    of those whose gradient lacks at least the true class's part, which rounding took.

    pixels_ND: test images in [0, 1], of which the first `settings.images` are attacked. PGD counts an image as lost once any
    of its iterates is misclassified, and while it projects also at every larger delta, whose ball holds that iterate.
    """
    count = min(settings.images or len(pixels_ND), len(pixels_ND))
    replicas = model.replicas
    box = Box.of(settings, standardizer, pixels_ND, model.image)
    hits_RS = torch.zeros(replicas, len(settings.grid), dtype=torch.float64, device=pixels_ND.device)
    zero_R, rounded_R = torch.zeros(2, replicas, dtype=torch.float64, device=pixels_ND.device)
    for first in range(0, count, CHUNK):
        pixels_BD = pixels_ND[first : min(first + CHUNK, count)]
        x_BD = standardizer(pixels_BD.view(-1, *model.image)).flatten(1)
        x_RBD = x_BD.expand(replicas, -1, -1)
        y_RB = y_N[first : first + len(x_BD)].expand(replicas, -1)
        right_RB, sign_RBD, rounded_RB = ascent(model, x_RBD, y_RB, settings.loss)
        zero_R += (sign_RBD == 0).all(2).sum(1)
        rounded_R += rounded_RB.sum(1)
        if settings.is_fgsm:
            for s, delta in enumerate(settings.grid):
                hits_RS[:, s] += right(model, reach(x_RBD, sign_RBD, delta, box), y_RB).sum(1)
        else:
            start_BD = start(settings, first // CHUNK, x_BD)
            hits_RS += survivors(model, x_RBD, y_RB, right_RB, start_BD, box, settings)
    return hits_RS / count, (zero_R / count)[:, None], (rounded_R / count)[:, None]


def right(model: Network, x_RBD: Tensor, y_RB: Tensor) -> Tensor:
    """(R, B), which images are classified right."""
    with torch.no_grad():
        return model(x_RBD, CLEAN).argmax(2) == y_RB


def ascent(model: Network, x_RBD: Tensor, y_RB: Tensor, loss: str) -> tuple[Tensor, Tensor, Tensor]:
    """Which images are classified right (R, B), the sign of each one's gradient of the loss (R, B, D), and whether rounding
    took the true class's part of that by the logits (R, B)."""
    with torch.enable_grad():
        x_RBD = x_RBD.detach().requires_grad_()
        logits_RBK = model(x_RBD, CLEAN)
        found_RBK = logits_RBK.detach()
        direction_RBK, rounded_RB = ascent_direction(loss, found_RBK, y_RB)
        (grad_RBD,) = torch.autograd.grad(logits_RBK, x_RBD, direction_RBK)
    sign_RBD = grad_RBD.sign_()
    return found_RBK.argmax(2) == y_RB, sign_RBD, rounded_RB


def reach(x_RBD: Tensor, sign_RBD: Tensor, delta: float, box: Box) -> Tensor:
    """Eq. 17, kept within the images' range."""
    return torch.addcmul(x_RBD, sign_RBD, box.radius_D, value=delta).clamp_(box.low_D, box.high_D)


def start(settings: AttackSpec, chunk: int, x_BD: Tensor) -> Tensor | None:
    """(B, D) in [-1, 1): where in the unit ball the iteration begins, the same for all replicas; None for its centre."""
    if not settings.random_start:
        return None
    seed = torch.tensor([settings.seed], device=x_BD.device)
    draw = uniform(seed, Purpose.ATTACK, x_BD.numel(), lane=0, step=chunk, epoch=0)[0]
    return draw.view_as(x_BD).to(x_BD.dtype).mul_(2).sub_(1)


def survivors(
    model: Network,
    x_RBD: Tensor,
    y_RB: Tensor,
    right_RB: Tensor,
    start_BD: Tensor | None,
    box: Box,
    settings: AttackSpec,
) -> Tensor:
    """(R, S) float64, how many images stay right under PGD at each delta.

    On a CPU one replica after the other: broken images leave, and how many are left to a product would otherwise be its companions' affair.
    """
    if len(x_RBD) > 1 and not x_RBD.is_cuda:
        own = [(x_RBD[r : r + 1], y_RB[r : r + 1], right_RB[r : r + 1]) for r in range(len(x_RBD))]
        return torch.cat([survivors(model.replica(r), *one, start_BD, box, settings) for r, one in enumerate(own)])
    left_RS = torch.zeros(len(x_RBD), len(settings.grid), dtype=torch.float64, device=x_RBD.device)
    alive_RB = right_RB
    for s in sorted(range(len(settings.grid)), key=settings.grid.__getitem__):
        delta = settings.grid[s]
        if delta > 0:
            beyond_RB = withstand(model, x_RBD, y_RB, alive_RB, delta, start_BD, box, settings)
            alive_RB = beyond_RB if settings.projection else alive_RB
        else:
            beyond_RB = alive_RB
        left_RS[:, s] = beyond_RB.sum(1)
    return left_RS


def withstand(
    model: Network,
    x_RBD: Tensor,
    y_RB: Tensor,
    alive_RB: Tensor,
    delta: float,
    start_BD: Tensor | None,
    box: Box,
    settings: AttackSpec,
) -> Tensor:
    """Which of the images `alive_RB` (R, B) are right at every iterate. Those that are not leave the iteration."""
    alive_RB = alive_RB.clone()
    place_RA, known_RA = gathered(alive_RB)
    if not place_RA.shape[1]:
        return alive_RB
    radius_D = delta * box.radius_D

    def of_those(t_RBD: Tensor) -> Tensor:
        return t_RBD.gather(1, place_RA[:, :, None].expand(-1, -1, t_RBD.shape[2]))

    center = of_those(x_RBD)
    low, high = (center - radius_D, center + radius_D) if settings.projection else (None, None)
    z = center
    if start_BD is not None:
        z = of_those((x_RBD + start_BD * radius_D).clamp(box.low_D, box.high_D))
    for step in range(settings.steps + 1):
        labels = y_RB.gather(1, place_RA)
        if step == settings.steps:
            found_RA = right(model, z, labels)
        else:
            found_RA, sign, _ = ascent(model, z, labels, settings.loss)
        found_RA &= known_RA[:, :1]  # a row with nothing left stays so
        alive_RB.scatter_(1, place_RA, found_RA)  # what fills a short row up names a place that the row holds already
        if step == settings.steps or not bool(found_RA.any()):
            break
        z = torch.addcmul(z, sign, radius_D, value=settings.step)
        if low is not None and high is not None:
            z = torch.minimum(torch.maximum(z, low), high)
        z = z.clamp_(box.low_D, box.high_D)
        if bool((found_RA | ~known_RA).all()):
            continue
        keep_RA, known_RA = gathered(found_RA & known_RA)

        def kept(t: Tensor, keep: Tensor = keep_RA) -> Tensor:
            return t.gather(1, keep[:, :, None].expand(-1, -1, t.shape[2]))

        z = kept(z)
        if low is not None and high is not None:
            low, high = kept(low), kept(high)
        place_RA = place_RA.gather(1, keep_RA)
    return alive_RB


def gathered(alive_RB: Tensor) -> tuple[Tensor, Tensor]:
    """Places (R, A) of each row's true entries in their order, A the most of any row, and which are true (R, A): a row with
    fewer is filled up with its own last place, or with 0 if it has none."""
    count_R = alive_RB.sum(1)
    most = int(count_R.max())
    place_RA = torch.argsort(alive_RB.int(), dim=1, descending=True, stable=True)[:, :most]
    order_A = torch.arange(most, device=alive_RB.device)
    last_R1 = (count_R - 1).clamp(min=0)[:, None]
    return place_RA.gather(1, torch.minimum(order_A.expand(len(alive_RB), -1), last_R1)), order_A < count_R[:, None]
