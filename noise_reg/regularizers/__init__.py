"""Every regulariser is a strength over the replica axis, acting at one of few places; strength 0 is the identity."""

from noise_reg.regularizers.cdt import corrupt
from noise_reg.regularizers.ninr import node_layers
from noise_reg.regularizers.penalties import Penalties
from noise_reg.regularizers.places import TrainingPlaces, of_step
from noise_reg.regularizers.weight_decay import gradient_factor, is_decayed
from noise_reg.regularizers.weight_noise import WeightNoise

__all__ = [
    "Penalties",
    "TrainingPlaces",
    "WeightNoise",
    "corrupt",
    "gradient_factor",
    "is_decayed",
    "node_layers",
    "of_step",
]
