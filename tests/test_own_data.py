"""A user's own data: of any size, channels and number of classes, from an archive or a plugin; what is wrong with them is told."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from noise_reg.data import own
from noise_reg.errors import UserError
from noise_reg.pipeline import Pipeline
from noise_reg.reevaluate import reevaluate
from noise_reg.spec import RunSpec, SpecError, parse
from noise_reg.store import Store
from noise_reg.sweep import train_jobs
from tests.composed import ROOT, composed, job

Arrays = dict[str, NDArray[Any]]
TINY = ["wandb=disabled", "max_epochs=2", "optimizer.batch_size=4", "corruption.grid=[0,0.5]", "corruption.draws=1"]
SMALL_NETWORKS = {"fc_small": ["arch.widths=[5]"], "cnn_small": ["arch.widths=[5]", "arch.filters=[2,3]"]}
EVALUATIONS = "evaluations=[corruption,validation,fgsm,pgd,occlusion,rotation]"
CHEAP = ["attack.pgd.steps=2", "attack.pgd.grid=[0,0.1]", "attack.fgsm.grid=[0,0.1]"]
CHEAP += ["perturbation.occlusion.grid=[0,2]", "perturbation.rotation.grid=[0,10]"]


def made(
    shape: tuple[int, ...] = (11, 7, 3), classes: int = 3, dtype: str = "int16", train: int = 24, test: int = 9
) -> Arrays:
    """Images of `shape` whose level tells their class, under noise."""
    rng, arrays = np.random.default_rng(0), Arrays()
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        levels = (labels * (200 // classes)).reshape(-1, *[1] * len(shape))
        arrays[f"{part}_images"] = (levels + rng.integers(0, 50, (count, *shape))).astype(np.uint8)
        arrays[f"{part}_labels"] = labels.astype(dtype)
    return arrays


def save(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def train(*overrides: str) -> list[float]:
    with composed("train", *TINY, *overrides) as cfg:
        return train_jobs([cfg])


@pytest.mark.parametrize("arch", SMALL_NETWORKS)
def test_own_data_are_trained_evaluated_and_exported_like_ours(
    arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = made()
    path, where = save(tmp_path / "mine.npz", arrays), f"store={tmp_path / 'store'}"
    train("dataset=npz", f"dataset.path={path}", f"arch={arch}", *SMALL_NETWORKS[arch], where)
    store = Store(tmp_path / "store")
    (run,) = store.runs().to_dict("records")
    assert (run["dataset"], run["classes"], run["status"]) == ("npz", 3, "completed")
    with composed("evaluate", "wandb=disabled", where, EVALUATIONS, *CHEAP, f"data_files=[{path}]") as cfg:
        reevaluate(cfg)
    rows = store.evaluations()
    assert {"corruption", "clean", "validation", "fgsm", "pgd", "occlusion", "rotation"} <= set(rows["evaluation"])
    assert rows["accuracy"].between(0, 1).all()
    pixels = torch.from_numpy(arrays["test_images"]).permute(0, 3, 1, 2) / 255
    logits = store.model(run["key"])(pixels)
    labels = torch.from_numpy(arrays["test_labels"].astype(np.int64))
    assert logits.shape == (9, 3)
    assert (logits.argmax(1) == labels).double().mean().item() == run["test_accuracy"]


SHAPES = st.tuples(st.integers(4, 12), st.integers(4, 12)) | st.tuples(*[st.integers(5, 12)] * 2, st.integers(1, 5))


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    classes=st.integers(2, 7),
    dtype=st.sampled_from(["int8", "uint8", "int16", ">i4", "int64", "uint64"]),
    arch=st.sampled_from(sorted(SMALL_NETWORKS)),
)
def test_any_size_channels_classes_and_integer_type_train(
    shape: tuple[int, ...], classes: int, dtype: str, arch: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "mine.npz", made(shape, classes, dtype))
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    chosen = [f"arch={arch}", *SMALL_NETWORKS[arch], "arch.filters=[2]" if arch == "cnn_small" else "arch.filters=[]"]
    train("dataset=npz", f"dataset.path={path}", *chosen, f"store={tmp_path / 'store'}")
    store = Store(tmp_path / "store")
    (run,) = store.runs().to_dict("records")
    assert (run["status"], run["classes"]) == ("completed", classes)
    channels = shape[2] if len(shape) == 3 else 1
    assert store.model(run["key"])(torch.zeros(2, channels, *shape[:2])).shape == (2, classes)


def spec_of(path: Path, *overrides: str) -> RunSpec:
    return job("dataset=npz", f"dataset.path={path}", "arch=fc_small", *overrides).spec


def test_a_run_is_known_by_the_content_of_its_data_and_not_by_their_path_type_or_label(tmp_path: Path) -> None:
    arrays = made((6, 5))
    key = spec_of(save(tmp_path / "one.npz", arrays)).key
    same = {
        "path": arrays,
        "label type": {n: a.astype("uint64") if "labels" in n else a for n, a in arrays.items()},
        "channel axis": {n: a[..., None] if "images" in n else a for n, a in arrays.items()},
        "further arrays": {**arrays, "names": np.array(["a", "b"])},
    }
    for what, changed in same.items():
        assert spec_of(save(tmp_path / "other.npz", changed)).key == key, what
        (tmp_path / "other.npz").unlink()
    assert spec_of(tmp_path / "one.npz", "dataset.name=galaxies").key == key
    for name, array in arrays.items():
        changed = {**arrays, name: np.roll(array, 1, axis=0)}
        assert spec_of(save(tmp_path / f"{name}.npz", changed)).key != key, name


def test_a_file_that_is_overwritten_is_other_data(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.npz", made((6, 5)))
    before = spec_of(path)
    assert spec_of(save(path, made((6, 5), train=25))).dataset.content != before.dataset.content


def test_a_stored_specification_needs_no_file_and_says_how_many_classes(tmp_path: Path) -> None:
    spec = spec_of(save(tmp_path / "mine.npz", made((6, 5), classes=4)))
    (tmp_path / "mine.npz").unlink()
    assert parse(RunSpec, {**job("dataset=digits").spec.__dict__, "dataset": vars(spec.dataset)} | {
        name: vars(getattr(spec, name)) for name in ("arch", "strengths", "optimizer", "reading", "distribution")
    }).key == spec.key  # fmt: skip
    assert spec.dataset.classes == 4


def test_label_smoothing_is_bounded_by_the_number_of_classes(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.npz", made((6, 5), classes=4))
    assert spec_of(path, "regularizer=label_smoothing", "regularizer.label_smoothing=0.74").strengths.label_smoothing
    with pytest.raises(SpecError, match=r"label_smoothing = 0\.75: must be a number in \[0, 0\.75\).* target of 4"):
        spec_of(path, "regularizer=label_smoothing", "regularizer.label_smoothing=0.75")


def test_convolutions_that_leave_nothing_of_the_images_are_refused_before_training(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.npz", made((6, 5)))
    with pytest.raises(SpecError, match=r"arch.filters = \[2, 2, 2, 2\]: too many blocks for images of 6 x 5 pixels"):
        train("dataset=npz", f"dataset.path={path}", "arch=cnn_small", "arch.filters=[2,2,2,2]", f"store={tmp_path}/s")
    assert not (tmp_path / "s" / "runs").exists()


def test_runs_on_own_data_that_are_not_given_are_named_and_the_others_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, where = save(tmp_path / "mine.npz", made((6, 5))), f"store={tmp_path / 'store'}"
    train("dataset=npz", f"dataset.path={path}", "arch=fc_small", where)
    train("dataset=digits", "reading.train_fraction=0.02", "dataset.test_images=20", "arch=fc_small", where)
    own.LOADED.clear()
    own.read_file.cache_clear()
    with (
        composed("evaluate", "wandb=disabled", where, "evaluations=[validation]") as cfg,
        pytest.raises(UserError, match="1 stack of runs was not evaluated, the first with npz fc none seed 0"),
    ):
        reevaluate(cfg)
    assert re.search(r"not evaluated: npz .* not given\. Remedy: data_files=\[", capsys.readouterr().err)
    rows = Store(tmp_path / "store").evaluations()
    assert len(rows[rows["evaluation"] == "validation"]) == 1


# what is wrong with data is one message that names the file and the array


def with_(**changes: Any) -> Callable[[], Arrays]:
    return lambda: {n: a for n, a in {**made((6, 5, 3)), **changes}.items() if a is not None}


LABELS = made((6, 5, 3))["train_labels"]
BAD: dict[str, tuple[Callable[[], Arrays], str]] = {
    "missing": (with_(test_labels=None), "test_labels missing, expected train_images"),
    "objects": (with_(train_labels=np.array([{}] * 24, object)), "train_labels cannot be read: Object arrays"),
    "float images": (with_(train_images=np.zeros((24, 6, 5))), r"train_images has dtype float64.*np.rint\(255"),
    "uint16": (with_(test_images=np.zeros((9, 6, 5), np.uint16)), "test_images has dtype uint16, expected uint8"),
    "bool images": (with_(test_images=np.zeros((9, 6, 5), bool)), "test_images has dtype bool, expected uint8"),
    "flat": (with_(train_images=np.zeros((24, 30), np.uint8)), r"train_images has shape \(24, 30\), expected \(N, H"),
    "no images": (with_(test_images=np.zeros((0, 6, 5, 3), np.uint8)), "test_images is empty"),
    "no pixels": (with_(train_images=np.zeros((24, 0, 5, 3), np.uint8)), "train_images is empty"),
    "no channels": (with_(train_images=np.zeros((24, 6, 5, 0), np.uint8)), "train_images is empty"),
    "channels first": (
        with_(train_images=np.zeros((24, 3, 6, 5), np.uint8)),
        r"train_images .* images\.transpose\(0, 2, 3, 1\)",
    ),
    "two sizes": (
        with_(test_images=np.zeros((9, 5, 6, 3), np.uint8)),
        r"test_images .*\(5, 6, 3\), train_images.*\(6, 5",
    ),
    "two depths": (with_(test_images=np.zeros((9, 6, 5), np.uint8)), r"test_images .*\(6, 5, 1\), train_images"),
    "float labels": (with_(train_labels=LABELS.astype(float)), "train_labels has dtype float64, expected whole"),
    "bool labels": (with_(test_labels=np.zeros(9, bool)), "test_labels has dtype bool, expected whole"),
    "text labels": (with_(train_labels=LABELS.astype(str)), "train_labels has dtype <U.*, expected whole"),
    "one-hot": (
        with_(train_labels=np.eye(3, dtype=int)[LABELS]),
        r"train_labels has shape \(24, 3\), expected \(24,\)",
    ),
    "too few labels": (with_(train_labels=LABELS[:20]), r"train_labels has shape \(20,\), expected \(24,\)"),
    "negative": (with_(train_labels=LABELS - 1), "train_labels holds label -1, expected class numbers from 0"),
    "from 1": (with_(train_labels=LABELS + 1), r"train_labels holds 3 classes in 1\.\.3 without 0: must be 0\.\.K-1"),
    "gap": (with_(train_labels=2 * LABELS), r"train_labels holds 3 classes in 0\.\.4 without 1, 3"),
    "huge": (
        with_(train_labels=LABELS.astype("uint64") + np.uint64(2**64 - 9)),
        "train_labels holds 3 classes in 18446",
    ),
    "one class": (with_(train_labels=0 * LABELS, test_labels=np.zeros(9, int)), "train_labels holds one class"),
    "new class": (with_(test_labels=np.full(9, 3)), r"test_labels holds class 3, which train_labels lacks"),
    "huge new class": (
        with_(test_labels=np.full(9, 2**64 - 1, "uint64")),
        "test_labels holds class 18446744073709551615",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_an_archive_is_told_of_file_and_array(case: str, tmp_path: Path) -> None:
    arrays, message = BAD[case]
    path = save(tmp_path / "mine.npz", arrays())
    with pytest.raises(UserError) as error:
        spec_of(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert re.search(message, str(error.value)), error.value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset=npz"], "dataset.path: must|dataset.path = None: must be the path"),
        (["dataset=npz", "dataset.path=3"], "dataset.path = 3: must be the path"),
        (["dataset=npz", "dataset.path=''"], "dataset.path = '': must be the path"),
        (["dataset=npz", "dataset.path=/nowhere/mine.npz"], "/nowhere/mine.npz: cannot be read: No such file"),
        (["dataset=npz", "dataset.path=/tmp"], "/tmp: cannot be read: Is a directory"),
        (["dataset=npz", "dataset.path={npz}", "dataset.name=digits"], "dataset.name = digits: is a data set of noise_reg"),
        (["dataset=npz", "dataset.path={npz}", "dataset.name='a b'"], "dataset.name = a b: must be a name"),
        (["dataset=npz", "dataset.path={npz}", "+dataset.classes=7"], "dataset.classes: is read off the data"),
        (["dataset=digits", "+dataset.content=0123456789abcdef"], "dataset.content: is read off the data"),
        (["dataset=plugin"], "dataset.name: must be given"),
        (["dataset=plugin", "dataset.name=mine"], "dataset.name = mine: must be one of fmnist"),
        (["plugins=my_module"], r"plugins = my_module: must be a list of modules"),
        (["plugins=[no_such_module]"], r"plugins = \['no_such_module'\]: there is no module no_such_module"),
    ],
)  # fmt: skip
def test_mistakes_in_the_settings_are_told(overrides: list[str], message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "mine.npz", made((6, 5)))
    with pytest.raises(UserError, match=message):
        job(*(override.format(npz=path) if "{npz}" in override else override for override in overrides))


# plugins


def plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> str:
    """A module in the current folder, forgotten again with the test."""
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(own, "LOADERS", dict(own.LOADERS))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return f"plugins=[{name}]"


REGISTERS = "from noise_reg.data import register\nimport numpy as np\n\n@register({name!r})\ndef load():\n    {body}\n"


def test_a_plugin_s_data_set_is_trained_like_an_archive_of_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "mine.npz", made((6, 5)))
    text = REGISTERS.format(name="stripes", body=f"return dict(np.load({str(path)!r}))")
    chosen = plugin(tmp_path, monkeypatch, "stripes_module", text)
    spec = job(chosen, "dataset=plugin", "dataset.name=stripes", "arch=fc_small").spec
    assert spec.key == spec_of(path).key and spec.dataset.name == "stripes"
    assert Pipeline(job("wandb=disabled", f"store={tmp_path}/s").runtime).data(spec).classes == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REGISTERS.format(name="digits", body="pass"), r"bad_1: .*register\('digits'\): the name is taken"),
        (REGISTERS.format(name="a b", body="pass"), r"bad_2: .*register\('a b'\): must be letters"),
        ("import no_such_thing", r"bad_3 imports no_such_thing, which is not installed"),
        ("1 / 0", r"bad_4 failed: ZeroDivisionError: division by zero"),
        ("def (", r"bad_5 failed: SyntaxError"),
        ("raise SystemExit(3)", r"bad_6 failed: SystemExit"),
        (
            REGISTERS.format(name="wrong", body="return {}"),
            "dataset.name = wrong: must return a mapping with train_images",
        ),
        (REGISTERS.format(name="wrong", body="1 / 0"), "loader of dataset.name = wrong failed: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_told(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    found = re.match(r"bad_\d", message)
    chosen = plugin(tmp_path, monkeypatch, found[0] if found else f"wrong_{len(text)}", text)
    with pytest.raises(UserError, match=message):
        job(chosen, "dataset=plugin", "dataset.name=wrong")


def test_a_name_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "LOADERS", {})
    own.register("mine")(dict)
    with pytest.raises(UserError, match=r"taken; choose another than fmnist, .*npz, mine"):
        own.register("mine")


# the documentation


def test_the_worked_example_of_own_data_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    section = text[text.index("## Your own data") :]
    (code, plugin_code), (commands,) = (
        re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("python", "bash")
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "extending.md", "exec"), {})  # noqa: S102 - it is ours
    asked = [line.split(maxsplit=2) for line in commands.splitlines()]
    assert [line[1] for line in asked] == ["scripts/train.py", "scripts/evaluate.py", "scripts/train.py"]
    train(*asked[0][2].split())
    with composed("evaluate", "wandb=disabled", *CHEAP, *asked[1][2].split()) as cfg:
        reevaluate(cfg)
    plugin(tmp_path, monkeypatch, "my_module", plugin_code)
    train(*asked[2][2].split())
    assert len(Store("runs").keys()) == 1, "the archive and the function give the same data, so it is one run"
