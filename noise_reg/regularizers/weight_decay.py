"""L2: its place is the update of the weights. The gradient of the penalty is lambda W ('half', lambda/2 |W|^2: weight decay)
or 2 lambda W ('keras', lambda |W|^2); reading 9 says which, and on which parameters."""

from __future__ import annotations

from torch import Tensor

from noise_reg.spec import ReadingSpec

DECAYED = {  # names of the parameters that a reading decays: of layers' weights, noise nodes' weights, everything
    "weights": lambda name: name.endswith("weight") and not name.startswith(("nodes.", "norms.")),
    "weights_niw": lambda name: name.endswith("weight") and not name.startswith("norms."),
    "all": lambda name: True,
}


def gradient_factor(weight_decay_R: Tensor, reading: ReadingSpec) -> Tensor:
    """(R,): the penalty's gradient is this times the parameter."""
    return weight_decay_R * {"half": 1.0, "keras": 2.0}[reading.l2_form]


def is_decayed(name: str, reading: ReadingSpec) -> bool:
    return DECAYED[reading.l2_on](name)
