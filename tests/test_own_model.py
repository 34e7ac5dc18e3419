"""A network of the user's own is evaluated as a stored run is, left as it was, and told what is wrong with it.

Axes: B images, K classes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import noise_reg
from noise_reg.data import Dataset
from noise_reg.errors import UserError
from noise_reg.own_model import borrowed, named_model
from noise_reg.pipeline import Pipeline
from noise_reg.reevaluate import reevaluate
from noise_reg.store import Store
from tests.composed import composed, job
from tests.forked import run_script

SAME = ["corruption", "fgsm", "pgd", "rotation", "occlusion", "validation"]


class Plain(nn.Module):
    """Logits by a linear map of pixels 8 x 8, then by what a test makes of them."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda logits: logits, classes: int = 10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.change = nn.Linear(64, classes), change

    def forward(self, pixels: Tensor) -> Any:
        return self.change(self.linear(pixels.flatten(1)))


def corrupted(
    model: nn.Module, *overrides: str, evaluations: tuple[str, ...] = ("corruption",), **how: Any
) -> pd.DataFrame:
    few = ["corruption.grid=[0,0.5]", "corruption.draws=1", *overrides]
    return noise_reg.evaluate(model, "digits", evaluations, overrides=few, device="cpu", **how)


FEW = ["corruption.draws=2", "corruption.grid=[0,0.3,0.6,0.9]", "perturbation.rotation.grid=[0,15]"]
FEW += ["attack.fgsm.images=300", "attack.fgsm.grid=[0,0.01,0.05]"]
FEW += ["attack.pgd.images=200", "attack.pgd.grid=[0,0.01,0.05]", "attack.pgd.steps=5"]


@pytest.mark.parametrize(
    ("arch", "reading", "space"), [("cnn_small", "paper", "standardized"), ("fc_small", "std", "pixel")]
)
def test_a_stored_network_evaluated_as_a_plain_module_gives_the_rows_of_its_run(
    tmp_path: Path, arch: str, reading: str, space: str
) -> None:
    network = ["dataset=digits", f"arch={arch}", "optimizer.learning_rate=0.05", "max_epochs=2", f"reading={reading}"]
    wanted = job(*network, "device=cpu", "workers=1", "wandb=disabled", f"store={tmp_path}")
    Pipeline(wanted.runtime).complete([wanted], "test", [])
    settings = [*FEW, *(f"{name}.space={space}" for name in ("corruption", "attack.fgsm", "attack.pgd"))]
    asked = ["wandb=disabled", "device=cpu", f"store={tmp_path}", f"evaluations=[{','.join(SAME)}]"]
    with composed("evaluate", *settings, *asked) as cfg:
        reevaluate(cfg)
    model = Store(tmp_path).model(wanted.spec.key)
    rows = noise_reg.evaluate(model, "digits", SAME, overrides=[*settings, f"reading={reading}"], device="cpu")
    both = rows.merge(Store(tmp_path).evaluations(), on=["evaluation", "strength"], suffixes=("", "_stored"))
    assert len(both) == len(rows) > 20
    # equal, but for an image on a rounding border: the module takes its sums in another order
    images = both["evaluation"].map(lambda name: 200 if name.startswith("pgd") else 300)
    assert ((both["accuracy"] - both["accuracy_stored"]).abs() <= 1.01 / images).all()
    assert (both["accuracy"] == both["accuracy_stored"]).mean() > 0.9
    assert both["accuracy"].nunique() > 8


def test_rows_under_a_name_stand_beside_the_runs_and_are_replaced(tmp_path: Path) -> None:
    corrupted(Plain(), store=tmp_path, name="mine")
    rows = corrupted(Plain(lambda logits: -logits), store=tmp_path, name="mine")
    found = Store(tmp_path).model_evaluations()
    pd.testing.assert_frame_equal(found.drop(columns="key").sort_values(["evaluation", "strength"], ignore_index=True),
                                  rows.sort_values(["evaluation", "strength"], ignore_index=True))  # fmt: skip
    assert set(found["key"]) == {"mine"}
    assert list(found.columns) == list(Store(tmp_path).evaluations().columns)


def test_rows_of_two_data_sets_are_not_mixed_under_one_name(tmp_path: Path) -> None:
    digits = noise_reg_digits()
    corrupted(Plain(), store=tmp_path, name="mine")
    fewer = Dataset(**{**vars_of(digits), "test_images": digits.test_images[:9], "test_labels": digits.test_labels[:9]})
    with pytest.raises(UserError, match=r"name = mine: .* another name"):
        noise_reg.evaluate(Plain(), fewer, overrides=["corruption.draws=1"], device="cpu", store=tmp_path, name="mine")
    with pytest.raises(UserError, match=r"name = .*must be letters"):
        corrupted(Plain(), store=tmp_path, name="../out")


def noise_reg_digits() -> Dataset:
    from noise_reg.data import load

    return load("digits", None, False)


def vars_of(dataset: Dataset) -> dict[str, Any]:
    names = ("name", "train_images", "test_images", "train_labels", "test_labels", "classes", "provenance")
    return {name: getattr(dataset, name) for name in names}


def test_a_module_is_evaluated_in_evaluation_mode_and_left_as_it_was() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 10))
    body[2].eval()
    body[1].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in body.state_dict().items()}
    first = corrupted(body, evaluations=("corruption", "fgsm"))
    assert corrupted(body, evaluations=("corruption", "fgsm")).equals(first)
    assert [part.training for part in body] == [True, True, False, True, True]
    assert [p.requires_grad for p in body.parameters()] == [False, True, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    assert all(p.grad is None for p in body.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_computes_in_its_own_type(dtype: torch.dtype) -> None:
    model = Plain(lambda logits: logits if logits.dtype == dtype else pytest.fail("another type")).to(dtype)
    assert len(corrupted(model, evaluations=("corruption", "pgd"))) > 3


def no_gradient(logits: Tensor) -> Tensor:
    return logits.detach()


WRONG: dict[str, tuple[nn.Module, str]] = {
    "too few classes": (Plain(classes=7), r"shape \(2, 7\), must be \(B, K\) = \(2, 10\)"),
    "one number an image": (Plain(lambda logits: logits.sum(1)), r"shape \(2,\), must be"),
    "a tuple": (Plain(lambda logits: (logits, logits)), "returned tuple, must be a tensor"),
    "classes, not logits": (Plain(lambda logits: logits.round().long()), "int64, must be floating-point"),
    "not a number": (Plain(lambda logits: logits * float("nan")), "not finite for 2 of them"),
    "infinite": (Plain(lambda logits: logits / 0), "not finite"),
    "on another device": (Plain(lambda logits: logits.to("meta")), "logits on meta, must be on cpu"),
    "other images": (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), r"given images \(2, 1, 8, 8\) of digits.* raised RuntimeError"),
    "raises": (Plain(lambda logits: logits.no_such_attribute), "raised AttributeError"),  # type: ignore[attr-defined]
    "without a gradient": (Plain(no_gradient), "without a gradient by the pixels"),
    "parts elsewhere": (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 10, device="meta")), "several devices"),
    "no memory of its own": (nn.Sequential(nn.Flatten(), nn.Linear(64, 10, device="meta")), "cannot be moved to cpu"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_module_is_one_message_that_names_it(case: str) -> None:
    model, message = WRONG[case]
    model.train()
    with pytest.raises(UserError, match=rf"(?s)model = {type(model).__name__}: .*{message}"):
        corrupted(model, evaluations=("fgsm",))
    assert model.training


class Fragile(Plain):
    def forward(self, pixels: Tensor) -> Any:
        return super().forward(pixels) + (float("nan") if pixels.min() < 0 else 0)


def test_logits_that_break_under_noise_alone_are_told_too() -> None:
    corrupted(Fragile(), evaluations=("rotation",))
    with pytest.raises(UserError, match="not finite for"):
        corrupted(Fragile())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"model": "my_module:build"}, "type str, must be a torch.nn.Module"),
        ({"evaluations": ["blur"]}, "evaluations = blur: unknown"),
        ({"evaluations": []}, "at least one"),
        ({"evaluations": ["usps"]}, r"must be \(1, 28, 28\)"),
        ({"dataset": "letters"}, "dataset/letters"),
        ({"overrides": ["corruption.drawz=1"]}, "drawz"),
        ({"overrides": ["corruption.draws=0"]}, "corruption.draws = 0"),
        ({"device": "cuda:99"}, "device = cuda:99"),
        ({"name": "mine"}, "where both are given"),
    ],
)
def test_what_is_wrong_with_the_settings_is_one_message(how: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"model": Plain(), "dataset": "digits", "download": False, **how}
    with pytest.raises(UserError, match=message):
        noise_reg.evaluate(**call)


def test_a_module_goes_back_to_where_it_was() -> None:
    model = Plain()
    with borrowed(model, torch.device("cpu"), "mine"):
        assert not model.training
    assert model.training and model.linear.weight.requires_grad


MODULE = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
class Nets:
    build = staticmethod(build)
ready = build()
number = 3
def needs(argument): ...
def fails(): raise RuntimeError("no weights")
def text(): return "a model"
"""
REFERENCES = {
    "net": "must be <module>:<function>",
    "net:": "must be <module>:<function>",
    "nowhere:build": "fails to import: ModuleNotFoundError",
    "broken:build": "broken fails to import: SyntaxError",
    "leaves:build": "leaves fails to import: SystemExit",
    "net:bild": "has no bild; .*build",
    "net:number": "is int, must be a function",
    "net:needs": "called without arguments, it raised TypeError",
    "net:fails": "raised RuntimeError: no weights",
    "net:text": "returned str, must return",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("net", "broken", "leaves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_that_leads_nowhere_is_one_message(modules: Path, reference: str) -> None:
    with pytest.raises(UserError, match=f"model = {reference}: .*{REFERENCES[reference]}"):
        named_model(reference)


@pytest.mark.parametrize("reference", ["net:build", "net:Nets.build", "net:ready"])
def test_a_reference_names_a_function_or_a_module(modules: Path, reference: str) -> None:
    assert isinstance(named_model(reference), nn.Module)


def test_a_model_is_evaluated_from_the_command_line(modules: Path) -> None:
    where = ["model=net:build", "dataset=digits", "device=cpu", "store=kept"]
    settings = ["evaluations=[corruption,pgd]", "corruption.draws=1", "attack=smoke", "name=mine"]
    done = run_script(
        "evaluate.py", *where, *settings, cwd=modules, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    )
    assert done.returncode == 0, done.stderr
    assert "pgd: accuracy in % of net:build" in done.stdout
    rows = Store(modules / "kept").model_evaluations()
    assert set(rows["evaluation"]) == {"clean", "corruption", "pgd", "pgd_zero_gradients"}
    assert named_model("net:build")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=net:build"], "dataset: must be given with model="),
        (["model=nowhere:build", "dataset=digits"], "nowhere fails to import"),
        (["dataset=digits"], "dataset, name: only with model="),
        (["model=net:build", "dataset=digits", "runs=[abc]"], "two commands"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_message(modules: Path, overrides: list[str], message: str) -> None:
    with composed("evaluate", *overrides) as cfg, pytest.raises(UserError, match=message):
        reevaluate(cfg)


def test_the_examples_of_the_documentation_run(modules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[1]
    section = (root / "docs" / "extending.md").read_text().partition("## Your own model")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))
    file, _ = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (modules / "my_net.py").write_text(file)
    script, *arguments = blocks["bash"].split()[1:]
    done = run_script(
        script.removeprefix("scripts/"),
        *arguments,
        "device=cpu",
        cwd=modules,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    by_script = Store(modules / "runs").model_evaluations()
    sys.path.insert(0, str(modules))
    exec(compile(blocks["python"], "extending.md", "exec"), {})  # noqa: S102 - it is ours
    again = Store(modules / "runs").model_evaluations()
    assert by_script.merge(again).equals(by_script)
    assert set(again["evaluation"]) - set(by_script["evaluation"]) == {"rotation"}
    assert "mine" in capsys.readouterr().out
