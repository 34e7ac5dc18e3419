"""Cold and end to end: from the start of a process to the last row on disk, imports, data and test passes included."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from noise_reg.bench.work import Recipe, load_or_make
from noise_reg.data import split
from noise_reg.errors import UserError
from noise_reg.store import Store

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
TITLES = {
    "b": "plain script, one run after another",
    "e": "the plain script as Hydra's job, swept by its joblib launcher",
    "f": "ours, scripts/train.py",
}
AGREEMENT = 0.01  # of the mean test accuracies, which differ by rounding alone


@dataclass(frozen=True)
class Cold:
    """`overrides` make `scripts/train.py` train the recipe's one method."""

    recipe: Recipe
    overrides: tuple[str, ...]
    repeats: int


def cold_recipe(recipe: Recipe, epochs: int) -> Recipe:
    """All runs of the recipe, for `epochs` epochs of all the training images."""
    specs = tuple(spec.replace(max_epochs=epochs, stop_accuracy=1.0, precision="fp32") for spec in recipe.specs)
    return dataclasses.replace(recipe, specs=specs, single=(), epochs=epochs)


def cold_times(jobs: Sequence[Cold], letters: Sequence[str]) -> pd.DataFrame:
    """One row a job, contender of `TITLES` and repeat: `seconds`, and the mean `test_accuracy` that was reached.

    Raises UserError where one fails, writes too few rows or reaches another accuracy than (b). A data set that is not on the
    machine has no rows: nothing can be loaded then.
    """
    rows = []
    for cold in jobs:
        recipe = with_all_steps(cold.recipe)
        if recipe is None:
            continue
        there = [letter for letter in TITLES if letter in letters and (letter != "e" or len(recipe.specs) > 1)]
        for repeat in range(cold.repeats):
            print(f"{recipe.name}: cold, repeat {repeat + 1} of {cold.repeats}", flush=True)
            rows += [{**once(letter, cold, recipe), "repeat": repeat} for letter in there]
    table = pd.DataFrame(rows)
    for (job, letter), accuracy in table.groupby(["job", "contender"])["test_accuracy"] if rows else ():
        expected = table.loc[(table["job"] == job) & (table["contender"] == "b"), "test_accuracy"].mean()
        if not abs(accuracy.mean() - expected) <= AGREEMENT:
            raise UserError(
                f"cold: job {job}, contender ({letter}) reaches a test accuracy of {accuracy.mean():.3f}, (b) {expected:.3f}: "
                "they do not train the same"
            )
    return table


def with_all_steps(recipe: Recipe) -> Recipe | None:
    """The recipe with the steps of a whole epoch, or None where its data set is not there."""
    spec = recipe.specs[0]
    dataset = load_or_make(spec.dataset.name, recipe.data_dir)
    if dataset.provenance["source"] == "synthetic":
        return None
    index, _ = split(len(dataset.train_images), spec.reading.train_fraction, spec.dataset.split_seed)
    return dataclasses.replace(recipe, steps=len(index) // spec.optimizer.batch_size)


def once(letter: str, cold: Cold, recipe: Recipe) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "out"
        out.mkdir()
        (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe)))
        started = time.time()
        call = subprocess.run(command(letter, cold, recipe, folder), capture_output=True, text=True, check=False)
        if call.returncode:
            raise UserError(f"cold: job {recipe.name}, contender ({letter}) failed: {call.stderr.strip()[-500:]}")
        seconds = max(path.stat().st_mtime for path in out.rglob("*") if path.is_file()) - started
        accuracies = stored_accuracies(out) if letter == "f" else written_accuracies(out, recipe.epochs)
    if len(accuracies) != len(recipe.specs):
        raise UserError(
            f"cold: job {recipe.name}, contender ({letter}) wrote {len(accuracies)} of {len(recipe.specs)} runs"
        )
    return {
        "job": recipe.name,
        "contender": letter,
        "runs": len(accuracies),
        "epochs": recipe.epochs,
        "seconds": seconds,
        "test_accuracy": sum(accuracies) / len(accuracies),
    }


def command(letter: str, cold: Cold, recipe: Recipe, folder: Path) -> list[str]:
    """Each writes its rows under `folder`/out."""
    given, out, runs = folder / "recipe.json", folder / "out", len(recipe.specs)
    if letter == "b":
        return [sys.executable, "-m", "noise_reg.bench.cold_run", str(given), str(out)]
    if letter == "e":
        sweep = ["-m", "hydra/launcher=joblib", f"hydra.sweep.dir={folder / 'hydra'}"]
        chosen = [f"+recipe={given}", f"+out={out}", f"+place=range(0,{runs})"]
        return [sys.executable, "-m", "noise_reg.bench.cold_sweep", *sweep, *chosen]
    spec = recipe.specs[0]
    chosen = [*cold.overrides, f"max_epochs={spec.max_epochs}", "stop_accuracy=1.0", f"device={recipe.device}"]
    chosen += ["corruption=light", "wandb=disabled", "download=false", f"store={out}"]
    chosen += [f"data_dir={recipe.data_dir}"] if recipe.data_dir else []
    seeds = ["-m", f"seed=range(0,{runs})"] if runs > 1 else [f"seed={spec.seed}"]
    return [sys.executable, str(TRAIN), *seeds, *chosen]


def stored_accuracies(store: Path) -> list[float]:
    """Last test accuracy of every completed run."""
    runs = Store(store).runs()
    return [float(value) for value in runs.loc[runs["status"] == "completed", "test_accuracy"]]


def written_accuracies(out: Path, epochs: int) -> list[float]:
    """Last test accuracy of every run that has all its rows."""
    tables = [pd.read_csv(path) for path in sorted(out.glob("*.csv"))]
    return [float(table["test_accuracy"].iloc[-1]) for table in tables if len(table) == epochs]
