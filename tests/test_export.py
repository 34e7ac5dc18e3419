"""A replica exported as a plain torch module gives on pixels what it gives in its stack on standardised pixels.

Axes: R replicas, B images, D pixels, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from noise_reg.nn import CLEAN
from noise_reg.nn.export import stacked_model
from noise_reg.prepare import TrainingData
from noise_reg.spec import RunSpec
from noise_reg.train import Outcome, Stack, new_stack, train
from tests.plain import CLASSES, IMAGE, TEST_IMAGES, made_data, made_spec
from tests.trained import exported

FULL = {"nin_input": 2.0, "nin_hidden": 0.5}
GEOMETRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "fc": ("fc", {}),
    "linear": ("fc", {"widths": []}),
    "cnn_same": ("cnn", {}),
    "cnn_valid": ("cnn", {"padding": "valid"}),
    "cnn_kernel_3": ("cnn", {"kernel": 3}),
    "vgg": ("vgg", {}),
}
READINGS: dict[str, dict[str, Any]] = {
    "as_printed": {"standardize": "variance"},
    "std_per_pixel": {"standardize": "std", "standardize_per": "pixel"},
    "pytorch_batch_norm": {"batch_norm": "pytorch"},
}


def trained(arch: str, **changes: Any) -> tuple[Stack, TrainingData, list[Outcome]]:
    """Three replicas after one epoch, together in their stack and apart as outcomes."""
    changes = {"max_epochs": 1, "learning_rate": 0.01} | changes
    methods: list[dict[str, float]] = [{}, FULL, {"dropout": 0.5, "nin_input": 1.0}]
    specs = [made_spec(arch, seed=seed, strengths=strengths, **changes) for seed, strengths in enumerate(methods)]
    data = made_data(specs[0])
    stack = new_stack(specs, data)
    (outcomes,) = train(stack, data)
    return stack, data, outcomes


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_exported_module_on_pixels_equals_the_stacked_replica(geometry: str, reading: str) -> None:
    arch, changes = GEOMETRIES[geometry]
    stack, data, outcomes = trained(arch, geometry=changes, reading=READINGS[reading])
    with torch.no_grad():
        together = stack.model(data.test_x.expand(len(outcomes), -1, -1), CLEAN)
        assert together.shape == (3, TEST_IMAGES, CLASSES) and together.std() > 0.1
        for r, outcome in enumerate(outcomes):
            alone = exported(outcome, data)(data.test_pixels.view(-1, *IMAGE))
            torch.testing.assert_close(alone, together[r], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_the_exported_module_keeps_the_precision_of_its_weights(arch: str) -> None:
    stack, data, outcomes = trained(arch, precision="fp32")
    with torch.no_grad():
        together = stack.model(data.test_x.expand(len(outcomes), -1, -1), CLEAN)
        alone = exported(outcomes[1], data)(data.test_pixels.view(-1, *IMAGE))
    assert alone.dtype == together.dtype == torch.float32
    torch.testing.assert_close(alone, together[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_the_exported_module_is_made_of_torch_s_own_layers_in_evaluation_mode(arch: str) -> None:
    _, data, outcomes = trained(arch)
    model = exported(outcomes[1], data)
    assert not any(module.training for module in model.modules())
    own = [type(module).__name__ for module in model.children() if not type(module).__module__.startswith("torch.nn.")]
    assert own == ["Standardizer"]
    pixels = data.test_pixels.view(-1, *IMAGE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        first, again, one = model(pixels), model(pixels), model(pixels[:1])
    assert torch.equal(first, again)
    torch.testing.assert_close(one, first[:1], rtol=1e-10, atol=1e-10)  # no statistics of the batch
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_gradients_flow_to_the_pixels(arch: str) -> None:
    _, data, outcomes = trained(arch, reading={"standardize": "variance", "standardize_per": "pixel"})
    model = exported(outcomes[0], data)
    pixels = data.test_pixels[:3].view(-1, *IMAGE).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x).sum(1), (pixels,))
    (gradient,) = torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)
    assert (gradient.flatten(1).abs().max(1).values > 0).all()


@pytest.mark.parametrize("arch", ["fc", "cnn"])
def test_outcomes_put_back_into_a_stack_in_any_order_give_the_same_logits(arch: str) -> None:
    stack, data, outcomes = trained(arch)
    specs: list[RunSpec] = [outcome.spec for outcome in outcomes]
    order = [2, 0]
    again = stacked_model([specs[r] for r in order], [outcomes[r].weights for r in order], IMAGE, CLASSES)
    with torch.no_grad():
        together = stack.model(data.test_x.expand(3, -1, -1), CLEAN)
        found = again(data.test_x.expand(2, -1, -1), CLEAN)
    np.testing.assert_allclose(found, together[order], rtol=1e-10, atol=1e-10)
