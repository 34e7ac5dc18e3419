"""The stacked launcher: a multirun is one call, each job gets its own return, sweepers work on top."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.noise_reg_stacked.launcher import StackedLauncher
from noise_reg.store import Store
from tests.composed import CONF, ROOT, SMALL
from tests.forked import run_script


def launched(task: Any, job_overrides: Sequence[Sequence[str]]) -> Sequence[Any]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    with initialize_config_dir(str(CONF), version_base="1.3"), tempfile.TemporaryDirectory() as folder:
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", ["dataset=digits", f"store={folder}"], RunMode.MULTIRUN)
        launcher = StackedLauncher()
        context = HydraContext(config_loader=loader, callbacks=None)  # type: ignore[arg-type]
        launcher.setup(hydra_context=context, task_function=task, config=master)
        return launcher.launch(job_overrides, initial_job_idx=3)


def test_hydra_finds_the_launcher() -> None:
    names = {plugin.__name__ for plugin in Plugins.instance().discover(Launcher)}
    assert {"StackedLauncher", "BasicLauncher", "JoblibLauncher"} <= names


def test_jobs_are_handed_over_together_and_return_one_by_one() -> None:
    calls = []

    def task(cfg: DictConfig) -> float:
        raise AssertionError("one by one")

    def together(configs: list[DictConfig]) -> list[Any]:
        calls.append([(c.seed, c.regularizer.name, "hydra" in c) for c in configs])
        return [0.5, ValueError("broken")]

    task.run_together = together  # type: ignore[attr-defined]
    first, second = launched(task, [["seed=1", "regularizer=l2"], ["seed=2"]])
    assert calls == [[(1, "l2", False), (2, "none", False)]]
    assert (first.status, first.return_value, first.overrides) == (
        JobStatus.COMPLETED,
        0.5,
        ["seed=1", "regularizer=l2"],
    )
    assert second.status == JobStatus.FAILED
    with pytest.raises(ValueError, match="broken"):
        _ = second.return_value
    assert OmegaConf.select(first.hydra_cfg, "hydra.job.num") == 3


def test_other_task_functions_run_one_after_the_other() -> None:
    results = launched(lambda cfg: cfg.seed * 10, [["seed=1"], ["seed=2"]])
    assert [r.return_value for r in results] == [10, 20]


def test_a_multirun_trains_one_stack(tmp_path: Path) -> None:
    done = run_script(
        "train.py",
        "-m",
        *SMALL,
        f"store={tmp_path}",
        "max_epochs=2",
        "regularizer=none,l2,in_ninr_decay",
        "seed=range(0,2)",
        "workers=1",
    )
    assert done.returncode == 0, done.stderr
    assert "6 runs of 3 methods" in done.stderr
    runs = Store(tmp_path).runs()
    assert sorted(zip(runs["method"], runs["seed"], strict=True)) == [
        (method, seed) for method in ("in_ninr_decay", "l2", "none") for seed in (0, 1)
    ]
    assert done.stdout.count("test accuracy") == 6
    assert not (ROOT / "multirun.yaml").exists() and not (ROOT / "outputs").exists()  # Hydra's own go into the store


def test_a_sweep_names_every_job_that_cannot_be_run_at_once(tmp_path: Path) -> None:
    done = run_script("train.py", "-m", *SMALL, f"store={tmp_path}", "seed=0,-1,-2", "max_epochs=1,0")
    assert done.returncode == 2 and not Store(tmp_path).keys()
    assert "5 of the sweep's 6 jobs cannot be run" in done.stderr
    for mistake in ("seed = -1: must be a whole number in [0, 4294967295]", "seed = -2", "max_epochs = 0"):
        assert mistake in done.stderr


def test_a_sweep_of_many_runs_ends_in_a_line_a_method(tmp_path: Path) -> None:
    swept = "regularizer=none,l2", "seed=range(0,4)"
    done = run_script(
        "train.py",
        "-m",
        *SMALL,
        "store='~/somewhere'",
        "max_epochs=1",
        *swept,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    runs = Store(tmp_path / "somewhere").runs()
    assert len(runs) == 8 and not Path("~").exists()
    table = [line.split() for line in done.stdout.splitlines()]
    percent = 100 * runs[runs["method"] == "l2"]["test_accuracy"]
    row = next(row for row in table if row[:3] == ["digits", "fc", "l2"])
    assert row[3:7] == ["4", f"{percent.mean():.1f}", "±", f"{percent.std():.1f}"]
    assert "next: python scripts/evaluate.py store=" in done.stdout and len(table) < 8


def test_a_full_disk_ends_in_a_message_and_loses_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run_script("train.py", *SMALL, f"store={store}", "max_epochs=1").returncode == 0

    def nearly_full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = run_script("train.py", *SMALL, f"store={store}", "max_epochs=1", "seed=1", first=nearly_full)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "weights.safetensors" in done.stderr and "run the same command again" in done.stderr
    assert Store(store).runs()["seed"].tolist() == [0]


def test_a_process_of_its_own_tells_a_mistake_without_waiting_for_torch(tmp_path: Path) -> None:
    call = [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "train.py"), "regularizer.sigma=-3"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "regularizer.sigma = -3: must be a finite number of at least 0" in done.stderr
    assert "noise_reg.config" in done.stderr and "| torch\n" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["-m", "seed=range(0,0)"], "the sweep is empty"),
        (
            ["-m", "seed=0,1", "regularizer=cdt", "regularizer.sigma=-3"],
            "regularizer.sigma = -3: must be a finite number of at least 0",
        ),
        (["dataset=cifar11"], "Could not find 'dataset/cifar11'"),
        (["regularizer=lasso"], "full_ninr_catapult"),
        (["sigma=3"], "sigma"),
        (["dataset=fmnist", "data_dir=/nowhere", "download=false"], "/nowhere"),
    ],
)
def test_a_users_mistake_ends_without_traceback(overrides: list[str], message: str, tmp_path: Path) -> None:
    done = run_script("train.py", *overrides, "wandb=disabled", f"store={tmp_path}/s")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s" / "runs").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("foo=1", "foo: unknown key; known are arch, checkpoint_seconds"),
        ("regularizer.sigm=1", "regularizer.sigm: unknown key of regularizer; known are cdt, default"),
    ],
)
def test_an_unknown_key_lists_the_known_ones(override: str, words: str) -> None:
    done = run_script("train.py", *SMALL, override)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_part_of_what_a_preset_gives_as_a_whole_is_refused_with_the_way_to_give_it() -> None:
    done = run_script("benchmark.py", "evaluate.images=100")
    assert done.returncode == 2
    assert "evaluate is set as a whole: give all of it, as in 'evaluate={job: fc, images: 2000}'" in done.stderr


@pytest.mark.parametrize("script", ["benchmark.py", "precision.py", "reproduce.py"])
def test_results_that_cannot_be_written_are_refused_before_any_work(script: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_script(
        script, f"results={tmp_path}/file/results", *(["artefact=demo"] if script == "reproduce.py" else [])
    )
    assert done.returncode == 2
    assert "file/results: cannot be written: Not a directory. Remedy: choose another results=" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
