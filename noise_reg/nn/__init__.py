"""Stacked networks: every tensor carries a leading replica axis R."""

from noise_reg.nn.architectures import ACTIVATIONS, DTYPES, StackedModel, depth
from noise_reg.nn.linear import FoldedSGD, StackedLinear
from noise_reg.nn.network import Network
from noise_reg.nn.places import CLEAN, Places

__all__ = ["ACTIVATIONS", "CLEAN", "DTYPES", "FoldedSGD", "Network", "Places", "StackedLinear", "StackedModel", "depth"]
