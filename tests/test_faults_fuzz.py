"""Whatever a user or a machine gets wrong ends in one message and exit status 2: a fuzz of values, overrides, files and paths.

Each case runs the same code as the scripts do (`entry.told`, `entry.leave_with`), in this process; some real scripts come on top.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from omegaconf import DictConfig, OmegaConf

from noise_reg import entry, sweep
from noise_reg.config import read_study
from noise_reg.place import read_place
from noise_reg.reevaluate import reevaluate
from noise_reg.store import Store
from tests.composed import composed
from tests.told import TINY, assert_told, base, changed, ending, traceback_of

FEW_OR_MANY = [pytest.param(8, id="few"), pytest.param(400, id="many", marks=pytest.mark.slow)]
LONG = "x" * 300  # more than a file's name may have
PLACES = [
    "/dev/null",
    "/dev/null/x",
    "/proc/nothing",
    f"/tmp/{LONG}",
    LONG,
    "a\0b",
    "",
    "loop",
    "loop/x",
    "file",
    "file/x",
    "\ud800",
]

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([-1, 0, 1, 2**31, 2**53 + 1, 10**30, 10**400, -(10**400), 1e39, 1e308, 3e38, 5e-324, 1e-40, 0.5]),
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="/~.$"), max_size=12),
    st.sampled_from(
        ["auto", "nan", "null", "${seed}", "${nowhere}", "${seed", "???", "cuda:99", "mnist", "sgd", "σ = ½", "1e3"]
    ),
    st.sampled_from(PLACES),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES: SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def fuzz(strategy: SearchStrategy[Any], cases: int, check: Callable[[Any], None]) -> None:
    """`check` on so many cases: few are the same ones each time, many are new ones."""
    quiet = list(HealthCheck)
    how = settings(
        max_examples=cases, deadline=None, database=None, derandomize=cases < 100, suppress_health_check=quiet
    )
    given(strategy)(how(lambda case: check(case)))()


def fields_of(tree: Any, prefix: str = "") -> Iterator[str]:
    """Every setting and every group of them, by its dotted name."""
    for name in tree:
        if isinstance(tree[name], dict) and all(isinstance(key, str) and "." not in key for key in tree[name]):
            yield from fields_of(tree[name], f"{prefix}{name}.")
        yield f"{prefix}{name}"


def is_quick(cfg: DictConfig) -> bool:
    """Whether it may be trained in this test: some extremes are valid and would take for ever."""
    (job,) = sweep.read_jobs([cfg])
    spec, (corruption,) = job.spec, job.evaluations
    work = len(corruption.grid) * corruption.draws  # type: ignore[union-attr]
    small = spec.max_epochs == 1 and sum(spec.arch.widths) < 100 and spec.reading.jacobian_directions < 100
    return small and work < 50 and spec.dataset.name == "digits" and job.runtime.wandb == "disabled"


@pytest.mark.parametrize("cases", FEW_OR_MANY)
def test_no_value_of_a_training_escapes(cases: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = base("train", monkeypatch, *TINY, "store=store")
    tree: Any = OmegaConf.to_container(cfg)
    told = entry.told(lambda configs: sweep.train_jobs(configs) if is_quick(configs[0]) else None)

    def check(case: tuple[str, Any]) -> None:
        assert_told(lambda: told([changed(cfg, *case)]))

    fuzz(st.tuples(st.sampled_from(list(fields_of(tree))), VALUES), cases, check)


@pytest.mark.parametrize("cases", FEW_OR_MANY)
def test_no_number_of_a_training_escapes(cases: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strengths, rates and sizes at the ends of what they may be, which are trained with."""
    cfg = base("train", monkeypatch, *TINY, "store=store", "reading=exact_loss")
    tree: Any = OmegaConf.to_container(cfg, resolve=True)
    numbers = [n for n in fields_of(tree) if isinstance(OmegaConf.select(cfg, n), int | float) and "noise." not in n]
    told = entry.told(lambda configs: sweep.train_jobs(configs) if is_quick(configs[0]) else None)

    def check(case: tuple[str, Any]) -> None:
        assert_told(lambda: told([changed(cfg, *case)]))

    fuzz(st.tuples(st.sampled_from(numbers), NUMBERS), cases, check)


@pytest.mark.parametrize("cases", FEW_OR_MANY)
@pytest.mark.parametrize("script", ["evaluate", "reproduce", "phases", "precision", "nj", "benchmark"])
def test_no_value_of_another_script_escapes_its_reading(
    cases: int, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = base(script, monkeypatch, *(["artefact=demo", "preset=demo"] if script == "reproduce" else []))
    read: Any = {"evaluate": reevaluate, "reproduce": lambda cfg: None}.get(script, read_study)
    told = entry.told(read)
    tree: Any = OmegaConf.to_container(cfg)

    def check(case: tuple[str, Any]) -> None:
        assert_told(lambda: told(changed(cfg, *case)))

    fuzz(st.tuples(st.sampled_from(list(fields_of(tree))), VALUES), cases // 4, check)


@pytest.mark.parametrize("cases", FEW_OR_MANY)
def test_no_override_escapes(cases: int) -> None:
    parser = OverridesParser.create()
    pieces = st.sampled_from(
        ["seed", "=", "+", "~", "++", "@", ",", "range(0,3)", "[", "]", "{a: 1}", "'", '"', "\\", "${seed}", " "]
    )
    words = st.lists(pieces | TEXTS, max_size=6).map("".join)

    def check(case: str) -> None:
        assert_told(lambda: parser.parse_overrides([case]), composing=True)

    fuzz(words, cases, check)


@pytest.mark.parametrize("cases", FEW_OR_MANY)
def test_no_file_of_a_users_configuration_escapes(cases: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = base("train", monkeypatch, *TINY, "store=store")
    told = entry.told(sweep.read_jobs)
    lines = [
        "name: mine\n",
        "defaults: [none]\n",
        "\tsigma: 1\n",
        "sigma: 0.1\n",
        "cdt: ${regularizer.sigma}\n",
        "- 1\n",
        "a: *b\n",
        "? [\n",
    ]
    texts = st.lists(st.sampled_from(lines) | st.text(max_size=20), max_size=5).map("".join)
    contents = texts.map(lambda text: text.encode(errors="surrogateescape")) | st.binary(max_size=60)
    source = FileConfigSource(provider="test", path=f"file://{folder}")

    def check(content: bytes) -> None:
        (folder / "mine.yaml").write_bytes(content)
        loaded: list[Any] = []
        assert_told(lambda: loaded.append(source.load_config("mine").config), composing=True)
        if loaded:
            assert_told(lambda: told([changed(cfg, "regularizer", loaded[0])]))

    fuzz(contents, cases, check)


def damage(path: Path, how: str, place: float) -> None:
    content = path.read_bytes()
    path.unlink()
    at = int(place * max(0, len(content) - 1))
    if how == "truncated":
        path.write_bytes(content[:at])
    elif how == "flipped":
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
    elif how == "folder":
        path.mkdir()
    elif how in ("loop", "nowhere"):
        path.symlink_to(path.name if how == "loop" else "nothing-there")


@pytest.mark.parametrize("cases", FEW_OR_MANY)
def test_no_file_of_a_store_escapes(cases: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged runs are trained again, what the system refuses is said so, and the next call finds everything."""
    evaluate = base(
        "evaluate",
        monkeypatch,
        "store=store",
        "corruption.grid=[0.1]",
        "corruption.draws=1",
        "device=cpu",
        "wandb=disabled",
    )
    cfg = base("train", monkeypatch, *TINY, "store=store")
    train = entry.told(sweep.train_jobs)
    assert assert_told(lambda: train([cfg])) == 0
    shutil.copytree("store", "whole")
    files = [path.relative_to("whole") for path in sorted(Path("whole/runs").rglob("*")) if path.is_file()]
    told = entry.told(reevaluate)

    def check(case: tuple[Path, str, float]) -> None:
        file, how, place = case
        shutil.rmtree("store")
        shutil.copytree("whole", "store")
        damage("store" / file, how, place)
        monkeypatch.setattr(sys, "argv", ["evaluate.py"])
        assert_told(lambda: told(evaluate))
        assert_told(lambda: Store("store").evaluations())
        monkeypatch.setattr(sys, "argv", ["train.py"])
        status, err = ending(lambda: train([cfg]))
        if status == 2 and how in ("loop", "folder"):
            assert "cannot be read" in err or "remove it" in err, err
        else:
            assert status == 0, traceback_of(err)

    hows = st.sampled_from(["truncated", "flipped", "folder", "loop", "nowhere", "gone"])
    fuzz(st.tuples(st.sampled_from(files), hows, st.floats(0, 1)), max(8, cases // 4), check)


@pytest.mark.parametrize("place", PLACES)
def test_no_path_escapes(place: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = base("train", monkeypatch, *TINY, "store=store")
    told = entry.told(sweep.train_jobs)
    assert assert_told(lambda: told([changed(train, "store", place)])) == 2
    there = base("train", monkeypatch, "dataset=fmnist", "download=false", "wandb=disabled", "store=store")
    assert assert_told(lambda: told([changed(there, "data_dir", place)])) == 2
    with composed("precision", "preset=smoke") as study:
        read = entry.told(lambda cfg: read_place(cfg, "precision"))
        assert assert_told(lambda: read(changed(study, "results", place))) == 2
