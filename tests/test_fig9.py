"""Fig. 9: N13 follows its rule, and the figure is made from a prepared cifar10.npz (made up here; there is no real one)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from noise_reg.artefacts import REGISTRY, redraw
from noise_reg.artefacts.rows import read_rows
from noise_reg.cli.reproduce import reproduce
from noise_reg.store import Store
from tests.composed import composed
from tests.made_rows import CONTEXT, made_rows

TRUTH = {"none": (85.0, 60.0, 40.0), "in_ninr_decay": (85.0, 70.0, 55.0), "in_ninr_catapult": (80.0, 70.0, 60.0)}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "reproduced"),
        ({"in_ninr_decay": (85.0, 50.0, 30.0)}, "contradicted"),
        ({"in_ninr_catapult": (85.0, 70.0, 60.0)}, "contradicted"),
    ],
)
def test_n13_follows_its_rule(changes: dict[str, tuple[float, float, float]], verdict: str, tmp_path: Path) -> None:
    rows = made_rows({**TRUTH, **changes}, archs=("vgg",), dataset="cifar10", early_loss=None)
    (found,) = REGISTRY["fig9"].build(rows, {**CONTEXT, "dataset": "cifar10"}, tmp_path)
    assert (found.claim, found.verdict) == ("N13", verdict)
    assert redraw(tmp_path) == [found]


def test_it_is_made_from_a_prepared_cifar10(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 60), ("test", 20)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 10, count, dtype=np.uint8)
    np.savez_compressed(tmp_path / "cifar10.npz", **arrays)  # type: ignore[arg-type]
    overrides = [
        "artefact=fig9", "preset=smoke", "corruption=light", f"store={tmp_path}/store", f"results={tmp_path}", "name=smoke", f"data_dir={tmp_path}",
        "wandb=disabled", "artefact.methods=[['regularizer=none'],['regularizer=in_ninr_decay']]",
        "preset.panels.vgg.overrides=['max_epochs=1','optimizer.batch_size=20']",
    ]  # fmt: skip
    with composed("reproduce", *overrides) as cfg:
        reproduce(cfg)
    folder = tmp_path / "fig9-smoke"
    runs = read_rows(folder).runs
    assert (
        len(runs) == 4
        and set(runs["arch"]) == {"vgg"}
        and {"fig9.png", "fig9.md"} <= {p.name for p in folder.iterdir()}
    )
    store = Store(tmp_path / "store")
    spec = store.spec(str(runs["key"][0]))
    assert spec["arch"]["dropouts"] == [0.2, 0.3, 0.4] and spec["arch"]["conv_decay"] == 1e-4
    shapes = {name: value.shape for name, value in store.weights(str(runs["key"][0])).items()}
    assert shapes["convolutions.5.weight"] == (128, 128, 3, 3) and shapes["layers.0.weight"] == (500, 128 * 4 * 4)
