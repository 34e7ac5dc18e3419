"""Weight noise N(0, eta I) on weights and biases while a mini-batch passes (Deep Learning, section 7.5). Its places are the
weights (one draw a mini-batch) or the pre-activations (one draw a sample: then that of a layer's W x + b is itself normal, of
variance eta (|x|^2 + 1); Kingma et al. 2015, 'Variational dropout and the local reparameterization trick').

Axes: R replicas, A those with the noise, B samples, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from noise_reg.nn import StackedLinear, StackedModel
from noise_reg.regularizers.active import Active
from noise_reg.spec import Strengths
from noise_reg.streams import Purpose, normal


class WeightNoise:
    """One draw for each mini-batch and replica: `add` before the forward pass, `remove` after the backward pass."""

    def __init__(self, model: StackedModel, strengths: Sequence[Strengths], seeds_R: Tensor) -> None:
        eta_R = torch.tensor([s.weight_noise for s in strengths], dtype=torch.float64, device=seeds_R.device)
        self.active = Active(eta_R, seeds_R)
        self.layers: list[nn.Module] = [*model.convolutions, *model.layers]
        self.drawn: list[tuple[nn.Module, str, Tensor]] = []

    @torch.no_grad()
    def add(self, step: int | Tensor, epoch: int | Tensor) -> None:
        sigma_A, self.drawn = self.active.strength_A.sqrt(), []
        for lane, layer in enumerate(self.layers):
            for part, address in (("weight", 2 * lane), ("bias", 2 * lane + 1)):
                parameter = layer.get_parameter(part)
                numbers = normal(
                    self.active.seeds_A,
                    Purpose.WEIGHT_NOISE,
                    parameter[0].numel(),
                    lane=address,
                    step=step,
                    epoch=epoch,
                )
                noise = (sigma_A[:, None] * numbers).to(parameter.dtype).view(-1, *parameter.shape[1:])
                self.active.add(parameter, noise)
                self.drawn.append((layer, part, noise))

    @torch.no_grad()
    def remove(self, stepped: bool) -> None:
        """`stepped`: whether folded weights have taken their step, so that what they shrank by shrank the noise too."""
        for layer, part, noise in self.drawn:
            fold = layer.fold if isinstance(layer, StackedLinear) and part == "weight" and stepped else None
            shrink = 1.0 if fold is None else fold.shrink_R[self.active.rows][:, None, None]
            self.active.add(layer.get_parameter(part), noise * shrink, alpha=-1)


def sample_noise(
    active: Active, z_RBO: Tensor, x_RBI: Tensor, layer: int, step: int | Tensor, epoch: int | Tensor
) -> Tensor:
    """z with the noise that one draw of the weights a sample gives it; differentiable."""
    shape = z_RBO[active.rows].shape
    count = shape[1:].numel()
    xi = normal(active.seeds_A, Purpose.WEIGHT_NOISE, count, lane=layer, step=step, epoch=epoch).view(shape)
    size_AB1 = (active.strength_A.to(z_RBO.dtype)[:, None] * (x_RBI[active.rows].square().sum(2) + 1)).sqrt()[
        :, :, None
    ]
    out = z_RBO.clone()
    out[active.rows] = z_RBO[active.rows] + size_AB1 * xi.to(z_RBO.dtype)
    return out
