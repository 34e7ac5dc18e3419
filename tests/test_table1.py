"""Table 1: the conversion to MNIST's format, the verdicts, and a smoke run from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from noise_reg.artefacts import REGISTRY, redraw, table1
from noise_reg.artefacts.rows import Rows, read_rows
from noise_reg.cli.reproduce import reproduce
from noise_reg.data import load, to_field
from noise_reg.errors import UserError
from noise_reg.evaluation_spec import ShiftSpec
from noise_reg.spec import SpecError, parse
from noise_reg.store import Store
from tests.composed import composed
from tests.made_rows import CONTEXT, made_rows

USPS = {"none": 82.3, "l2": 82.5, "dropout": 87.5, "in_ninr_decay": 84.1, "in_ninr_catapult": 88.1}
USPS |= {"full_ninr_decay": 84.0, "full_ninr_catapult": 89.3}


def square(top: int, left: int, height: int, width: int, level: int = 255) -> Tensor:
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    image[:, :, top : top + height, left : left + width] = level
    return image


def ink(image: Tensor) -> tuple[int, int, int, int]:
    """First and last row and column with a level above a tenth."""
    rows, columns = (torch.nonzero((image[0, 0] > 25).any(dim)).flatten() for dim in (1, 0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("centring", ["mass", "box"])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 4), (0, 8)])
def test_a_digit_of_the_frames_height_fills_the_box_and_stands_in_the_middle(
    centring: str, top: int, left: int
) -> None:
    found = to_field(square(top, left, 16, 8), centring, "bilinear")
    first_row, last_row, first_column, last_column = ink(found)
    assert found.shape == (1, 1, 28, 28) and found.dtype == torch.uint8 and int(found.max()) == 255
    assert (first_row, last_row) == ((5, 24) if centring == "mass" else (4, 23))  # MNIST's centre of mass is pixel 14
    assert 9 <= last_column - first_column + 1 <= 11
    assert abs((first_column + last_column + (centring == "box")) / 2 - 14) <= 1


def test_mass_moves_a_lopsided_digit_and_box_does_not() -> None:
    lopsided = square(0, 0, 16, 16, level=60)
    lopsided[:, :, :4] = 255
    mass, box = (to_field(lopsided, centring, "bilinear") for centring in ("mass", "box"))
    assert ink(box)[:2] == (4, 23) and ink(mass)[0] > 4
    levels = mass[0, 0].double()
    centre = (levels.sum(1) * torch.arange(28)).sum() / levels.sum()
    assert abs(float(centre) - 14) <= 0.5


def test_a_digit_never_leaves_the_field_and_an_empty_image_stays_empty() -> None:
    corner = square(0, 0, 1, 1)
    assert int((to_field(corner, "mass", "nearest-exact") > 0).sum()) >= 1
    assert int(to_field(square(0, 0, 0, 0), "mass", "bilinear").max()) == 0
    assert int(to_field(square(0, 0, 0, 0), "box", "bicubic").max()) == 0


def test_levels_stay_in_range_with_every_mode() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (5, 1, 16, 16), dtype=np.uint8))
    for mode in ("bilinear", "bicubic", "nearest-exact"):
        found = to_field(images, "mass", mode)
        assert (
            found.shape == (5, 1, 28, 28)
            and abs(float(found.float().sum() / images.float().sum()) / (20 / 16) ** 2 - 1) < 0.1
        )


def table_rows(truth: dict[str, float]) -> Rows:
    rows = made_rows(dict.fromkeys(truth, (97.0, 97.0, 97.0)), dataset="mnist", early_loss=None, size=0.5)
    keyed = rows.evaluations[rows.evaluations["evaluation"] == "clean"].set_index("key")["accuracy"]
    more = [
        (run["key"], table1.MAIN, 0.0, keyed[run["key"]] + (truth[run["method"]] - 97) / 100)
        for _, run in rows.runs.iterrows()
    ]
    return Rows(rows.runs, pd.concat([rows.evaluations, pd.DataFrame(more, columns=rows.evaluations.columns)]))


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("changes", "verdict"), [({}, "reproduced"), ({"full_ninr_catapult": 80.0}, "contradicted")])
def test_verdicts_stand_beside_the_papers_numbers(changes: dict[str, float], verdict: str, tmp_path: Path) -> None:
    verdicts = REGISTRY["table1"].build(table_rows({**USPS, **changes}), {**CONTEXT, "dataset": "mnist"}, tmp_path)
    assert len(verdicts) == 15 and verdicts[-1].claim == "N12" and verdicts[-1].verdict == verdict
    assert verdicts[0].claim == "Table 1, FC, no regulariser" and verdicts[0].verdict == "reproduced"
    text = " ".join((tmp_path / "table1.md").read_text().split())
    assert "| FC | no regulariser | 82.4 ± 0.8 (4) | 82.3 ± 2.0 |" in text
    assert "| network | method | MNIST | centre of mass, bilinear, MNIST's statistics (default) |" in text
    assert redraw(tmp_path) == verdicts


def test_rows_without_the_shift_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"table1: the rows hold no evaluation {table1.MAIN}"):
        REGISTRY["table1"].build(made_rows(dataset="mnist"), {**CONTEXT, "dataset": "mnist"}, tmp_path)


def save(folder: Path, name: str, size: int, train: int, test: int) -> None:
    """A made-up set whose label is where its bright row stands, so that it can be learned."""
    rng = np.random.default_rng(len(name))
    arrays: dict[str, Any] = {}
    for part, count in (("train", train), ("test", test)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = rng.integers(0, 60, (count, size, size), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[int(label) * size // 10 : int(label) * size // 10 + 2] = 255
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def test_it_is_made_from_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noise_reg.data.prepared.KNOWN_CONTENT", {})
    save(tmp_path, "mnist", 28, 400, 50)
    save(tmp_path, "usps", 16, 20, 40)
    overrides = [
        "artefact=table1", "preset=smoke", f"store={tmp_path}/store", f"results={tmp_path}", "name=smoke", "wandb=disabled", f"data_dir={tmp_path}",
        "artefact.panels.fc=['arch=fc','arch.widths=[16]']", "~artefact.panels.cnn",
        "artefact.methods=[['regularizer=none'],['regularizer=in_ninr_decay']]",
        "preset.panels.fc.overrides=['max_epochs=2','optimizer.batch_size=20']",
    ]  # fmt: skip
    with composed("reproduce", *overrides) as cfg:
        reproduce(cfg)
    folder = tmp_path / "table1-smoke"
    rows = read_rows(folder)
    assert {f"table1.{e}" for e in ("png", "svg", "md", "csv")} <= {path.name for path in folder.iterdir()}
    assert (folder / "table1-digits.png").exists() and "LeCun" in (folder / "table1-digits.md").read_text()
    found = rows.evaluations[rows.evaluations["evaluation"] == table1.MAIN].set_index("key")["accuracy"]
    assert len(found) == 4
    store, usps = Store(tmp_path / "store"), load("usps", tmp_path, False)
    pixels = to_field(usps.test_images, "mass", "bilinear") / 255
    for key, accuracy in found.items():
        logits = store.model(str(key))(pixels)
        assert accuracy == pytest.approx(float((logits.argmax(1) == usps.test_labels).double().mean()))


def test_only_networks_on_mnists_format_are_tested(tmp_path: Path) -> None:
    overrides = [
        "artefact=demo",
        "preset=smoke",
        f"store={tmp_path}/store",
        "wandb=disabled",
        "+artefact.evaluations=[usps]",
    ]
    overrides += ["preset.panels.fc.overrides=['max_epochs=1','optimizer.batch_size=32']"]
    overrides += [f"data_dir={tmp_path}", "artefact.methods=[['regularizer=none']]", "artefact.second_readings=[]"]
    save(tmp_path, "usps", 16, 20, 40)
    with pytest.MonkeyPatch.context() as patch, composed("reproduce", *overrides) as cfg:
        patch.setattr("noise_reg.data.prepared.KNOWN_CONTENT", {})
        with pytest.raises(SpecError, match=r"shift to usps: the run.s images are \(1, 8, 8\)"):
            reproduce(cfg)


@pytest.mark.parametrize(
    ("field", "value"), [("centring", "corner"), ("mode", "area"), ("statistics", "none"), ("dataset", "svhn")]
)
def test_an_impossible_conversion_is_named(field: str, value: str) -> None:
    plain = {"dataset": "usps", "centring": "mass", "mode": "bilinear", "statistics": "source"}
    with pytest.raises(SpecError, match=f"{field} = {value}: must be one of"):
        parse(ShiftSpec, {**plain, field: value})
