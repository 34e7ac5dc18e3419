"""What a user or a machine got wrong is named with its remedy, in every phase of a script; a fault of ours is told apart."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from noise_reg import entry, sweep
from noise_reg.data import load, vision
from noise_reg.data.dataset import DataError
from tests.composed import CONF
from tests.forked import run_script
from tests.told import TINY, base, changed, ending, traceback_of


def test_a_fault_of_ours_is_told_apart_and_its_traceback_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(cfg: object) -> None:
        raise ZeroDivisionError("a slip of ours")

    status, err = ending(lambda: entry.told(broken)(OmegaConf.create()))
    assert status == 1 and "unexpected ZeroDivisionError: a slip of ours" in err and "Traceback (most" not in err
    assert 'raise ZeroDivisionError("a slip of ours")' in traceback_of(err)
    monkeypatch.setenv("NOISE_REG_TRACEBACK", "1")
    assert "Traceback (most" in ending(lambda: entry.told(broken)(OmegaConf.create()))[1]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["arch.widths=[1000000000]"], "arch.widths = [1000000000]: a run of this network needs at least "),
        (["optimizer.learning_rate=1e39"], "optimizer.learning_rate = 1e+39: must be at most 3.403e+38"),
        (["regularizer=cdt", "+regularizer.default=5"], "regularizer.default = 5: must be the strengths that its name"),
        (["store=/dev/null"], "store = /dev/null: /dev/null is a file. Remedy: choose a folder"),
    ],
)
def test_a_slip_is_named_with_its_remedy(
    overrides: list[str], words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = base("train", monkeypatch, *TINY, "store=store", *[o.lstrip("+") for o in overrides if "default" not in o])
    cfg = changed(cfg, "regularizer.default", 5) if "default" in overrides[-1] else cfg
    status, err = ending(lambda: entry.told(sweep.train_jobs)([cfg]))
    assert status == 2 and words in err, err
    assert not Path("store").exists()


def test_a_sweep_names_the_mistakes_of_all_its_jobs_whatever_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = base("train", monkeypatch, *TINY, "store=store")
    mistakes: list[tuple[str, Any, str]] = [
        ("seed", 1.5, "seed = 1.5: must be a whole number"),
        ("seed", -5, "seed = -5: must be a whole number in"),
        ("optimizer.learning_rate", -1, "optimizer.learning_rate = -1"),
        ("optimizer.learning_rate", float("nan"), "optimizer.learning_rate = nan"),
        ("max_epochs", 0, "max_epochs = 0"),
        ("arch", "fc", "arch = 'fc': must be one of cnn"),
        ("regularizer.sigma", "${nowhere}", "regularizer"),
        ("device", "${nowhere}", "device"),
    ]
    configs = [cfg, *(changed(cfg, field, value) for field, value, _ in mistakes)]
    status, err = ending(lambda: entry.told(sweep.train_jobs)(configs))
    assert status == 2 and f"{len(mistakes)} of the sweep's {len(configs)} jobs cannot be run" in err, err
    assert [words for _, _, words in mistakes if words not in err] == [], err


NO_NOISE = [
    (arch.stem, optimizer.stem)
    for arch in sorted((CONF / "arch").glob("*.yaml"))
    for optimizer in sorted((CONF / "optimizer").glob("*.yaml"))
    if not (CONF / "noise" / f"{arch.stem}_{optimizer.stem}.yaml").exists()
]


@pytest.mark.parametrize(("arch", "optimizer"), NO_NOISE[::4])
def test_a_network_that_the_paper_gives_no_sigma_epsilon_for_is_named_with_what_to_give_instead(
    arch: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ["dataset=digits", f"arch={arch}", f"optimizer={optimizer}", "regularizer=in_ninr_catapult"]
    cfg = base("train", monkeypatch, *chosen)
    assert_says_what_to_give(*ending(lambda: entry.told(lambda cfg: sweep.train_jobs([cfg]))(cfg)))
    assert_says_what_to_give(*ending(lambda: entry.told(sweep.train_jobs)([cfg, cfg])))


def assert_says_what_to_give(status: int, err: str) -> None:
    assert status == 2 and "regularizer = in_ninr_catapult: the paper gives no sigma_epsilon for arch.name = " in err
    assert "regularizer=in_ninr regularizer.sigma=" in err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset=null"], "dataset = null: must be one of cifar10, digits"),
        (["dataset=1"], "dataset = 1: must be one of cifar10, digits"),
        (["-m", "seed=0,1", "store=/dev/null"], "store = /dev/null: /dev/null is a file"),
        (["hydra.run.dir=/dev/null/x"], "/dev/null/x: Not a directory. Remedy: choose another hydra.run.dir="),
        (["-m", "seed=0,1", "hydra.sweep.dir=/dev/null/x"], "Not a directory. Remedy: choose another hydra.sweep.dir="),
        (
            ["--config-dir=.", "regularizer=tabs"],
            "tabs.yaml, line 2, column 1: cannot be read as YAML: found character",
        ),
        (
            ["--config-dir=.", "regularizer=bare"],
            "regularizer.default: must be given for regularizer = bare; a file of",
        ),
        (["--config-dir=.", "regularizer=list"], "regularizer/list.yaml: must hold a mapping"),
        (["--config-dir=.", "-m", "regularizer=none,list"], "regularizer/list.yaml: must hold a mapping"),
        (["-m", "seed=range(0,1,0)"], "seed=range(0,1,0): has no values: range() arg 3 must not be zero. Remedy: "),
        (["seed=${seed}"], "seed = ${seed}: this reference cannot be followed: Recursive"),
        (["-m", "seed=${seed},1"], "seed = ${seed}: this reference cannot be followed: Recursive"),
        (["seed=${oc.env:NOPE}"], "seed = ${oc.env:NOPE}: this reference cannot be followed: KeyError"),
        (["seed=${nowhere}"], "seed: Interpolation key 'nowhere' not found. Remedy: give seed"),
        (["arch.widths=[3,'${nowhere:}']"], "arch.widths.1 = ${nowhere:}: this reference cannot be followed: "),
        (["store=${store}"], "store = ${store}: this reference cannot be followed: Recursive"),
        (["-m", "store=${store}"], "store: this reference cannot be followed: Recursive"),
        (["store=~/st"], "store=~/st: a ~ must be quoted. Remedy: "),
        (["store=a!b"], "Remedy: quote text that"),
        (["--config-dir=/nowhere"], "Additional config directory '/nowhere' not found"),
    ],
)
def test_a_script_tells_a_slip_in_hydras_phases(overrides: list[str], words: str, folder: Path) -> None:
    (folder / "regularizer").mkdir()
    (folder / "regularizer" / "tabs.yaml").write_text("name: tabs\n\tsigma: 1\n")
    (folder / "regularizer" / "bare.yaml").write_text("name: bare\ncdt: 0.1\n")
    (folder / "regularizer" / "list.yaml").write_text("- 1\n- 2\n")
    given = [override.partition("=")[0] for override in overrides]
    others = [override for override in TINY if override.partition("=")[0] not in given]
    done = run_script("train.py", *overrides, *others, cwd=folder)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_store_that_can_only_be_read_gives_what_it_holds(tmp_path: Path) -> None:
    store = tmp_path / "store"
    sweep_of_two = ["-m", *TINY, "seed=0,1", f"store={store}"]
    assert run_script("train.py", *sweep_of_two).returncode == 0

    def read_only() -> None:
        def refuse(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event in ("os.mkdir", "os.rename", "os.remove") or (
                event == "open"
                and isinstance(arguments[2], int)
                and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writes and str(arguments[0]).startswith(str(store)):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))

        sys.addaudithook(refuse)

    again = run_script("train.py", *sweep_of_two, first=read_only)
    assert again.returncode == 0 and again.stdout.count("test accuracy") == 2, again.stderr
    more = run_script("train.py", "-m", *TINY, "seed=0,1,2", f"store={store}", first=read_only)
    assert more.returncode == 2 and "Read-only file system. Remedy: make it" in more.stderr, more.stderr
    assert "Traceback" not in more.stderr


def test_an_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    def full() -> None:
        sys.stdout.flush()
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    done = run_script("train.py", *TINY, f"store={tmp_path}", first=full)
    assert done.returncode == 2 and "No space left on device" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "file", "reader"),
    [("fmnist", "FashionMNIST/raw/train-images-idx3-ubyte", "read_image_file"), ("usps", "usps.bz2", "calculate_md5")],
)
def test_a_data_file_that_may_not_be_opened_is_not_called_damaged(
    name: str, file: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"whole")
    monkeypatch.setattr(vision, reader, refused)
    with pytest.raises(
        DataError, match=rf"{file}: cannot be read: Permission denied. Remedy: make it readable"
    ) as error:
        load(name, tmp_path, download=False)
    assert "damaged" not in str(error.value) and "elete" not in str(error.value)
