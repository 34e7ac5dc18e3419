"""A folder of results is replaced as a whole or not at all, and never by one that lacks something of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from noise_reg.artefacts import MEASURED, REGISTRY, redraw
from noise_reg.artefacts.folder import Kept
from noise_reg.atomic import recover_folders, replacing_folder
from noise_reg.place import Place, deliver, differences, read_place
from noise_reg.spec import SpecError
from tests.composed import CONF, ROOT, composed
from tests.made_rows import AS_CLAIMED, CONTEXT, made_rows

TWO = {method: AS_CLAIMED[method] for method in ("none", "cdt")}
DRAWS = """
import sys, time
from pathlib import Path
from noise_reg.atomic import replacing_folder
with replacing_folder(Path(sys.argv[1])) as part:
    for n in range(20):
        (part / f"{n}.txt").write_text(sys.argv[2])
        print("drawn", flush=True)
        time.sleep(0.002)
print("placed", flush=True)
"""


def written(folder: Path, text: str) -> None:
    with replacing_folder(folder) as part:
        for n in range(20):
            (part / f"{n}.txt").write_text(text)


def whole(folder: Path) -> str:
    """The one text of all 20 files of a folder that has nothing else."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.txt" for n in range(20))
    (text,) = {path.read_text() for path in folder.iterdir()}
    return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("lines", [0, 1, 11, 20])
def test_a_kill_while_drawing_leaves_the_old_folder_or_the_new_one(
    number: signal.Signals, lines: int, tmp_path: Path
) -> None:
    folder = tmp_path / "fig2"
    written(folder, "old")
    process = subprocess.Popen(
        [sys.executable, "-c", DRAWS, str(folder), "new"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 # a run in the background ignores it
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    process.send_signal(number)
    process.wait()
    process.stdout.close()
    recover_folders(tmp_path)
    assert whole(folder) == "old" or lines == 20
    assert [path.name for path in tmp_path.iterdir()] == ["fig2"]  # nothing half drawn stays behind


class Stopped(BaseException):
    """A kill, at one system call."""


@given(at=st.integers(0, 30), ends=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_kill_at_any_rename_or_removal_leaves_one_folder_whole(
    at: int, ends: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ends`: not even the cleaning up happens, as after SIGKILL or a power failure."""
    parent = tmp_path_factory.mktemp("results")
    written(parent / "fig2", "old")
    calls = 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at + 1 or (ends and calls > at):
                raise Stopped
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "fsync", "mkdir", "rmdir", "unlink"):
            patched.setattr(os, name, counted(getattr(os, name)))
        with suppress(Stopped):
            written(parent / "fig2", "new")
    recover_folders(parent)
    assert whole(parent / "fig2") in ("old", "new")


def test_the_report_finds_a_folder_that_a_kill_left_between_its_two_renames(tmp_path: Path) -> None:
    REGISTRY["demo"].build(made_rows(TWO, archs=("fc",)), CONTEXT, tmp_path / "demo")
    os.rename(tmp_path / "demo", tmp_path / ".demo.old.00000000-1.00000000.part")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "report.py", f"results={tmp_path}", f"out={tmp_path}/report.html"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "no regulariser" in (tmp_path / "report.html").read_text() and (tmp_path / "demo" / "fig2.md").exists()


def test_an_error_while_drawing_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, folder = REGISTRY["demo"], tmp_path / "demo"
    made.build(made_rows(TWO, archs=("fc",)), CONTEXT, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(self: Kept[Any], *_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(made), "draw_all", full)
    with pytest.raises(KeyboardInterrupt):
        made.build(made_rows(TWO, archs=("fc",), n=5), CONTEXT, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.usefixtures("undrawn")
def test_what_others_put_beside_and_what_cannot_be_redrawn_stays(tmp_path: Path) -> None:
    made, folder = REGISTRY["demo"], tmp_path / "demo"

    def further(part: Path) -> None:
        (part / "digits.png").write_bytes(b"image")

    made.build(made_rows(TWO, archs=("fc",)), CONTEXT, folder, further)
    (folder / "notes.txt").write_text("mine")
    (folder / "fig2-older.md").write_text("of an older call")
    redraw(folder)
    assert (folder / "digits.png").read_bytes() == b"image" and (folder / "fig2-older.md").exists()
    made.build(made_rows(TWO, archs=("fc",)), CONTEXT, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "fig2-older.md").exists()  # of a folder's own kinds of files only the new ones are there


def place(results: Path, *, replace: bool = False) -> Place:
    return Place(results, "cpu", "", "", (), replace)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders without their figures, which take seconds."""
    monkeypatch.setattr(type(REGISTRY["demo"]), "draw_all", lambda *_: [])


@pytest.mark.usefixtures("undrawn")
def test_fewer_or_other_runs_never_replace_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, context = REGISTRY["demo"], {**CONTEXT, "evaluations": {"fc": {"corruption": {"draws": 3}}}}
    many, few = made_rows(TWO, archs=("fc",), n=5), made_rows(TWO, archs=("fc",), n=4)
    assert deliver(made, many, context, place(tmp_path)) == tmp_path / "demo"
    before = {path.name: path.read_bytes() for path in (tmp_path / "demo").iterdir()}
    capsys.readouterr()
    own = deliver(made, few, context, place(tmp_path))
    told = capsys.readouterr().out
    assert own.parent == tmp_path and own.name.startswith("demo-") and f"written to {own}/" in told
    assert f"{tmp_path}/demo/ stays as it is" in told and "replace=true" in told
    other = deliver(made, many, {**context, "evaluations": {"fc": {"corruption": {"draws": 1}}}}, place(tmp_path))
    assert other not in (own, tmp_path / "demo") and "evaluations.fc.corruption.draws" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "demo").iterdir()} == before
    assert deliver(made, few, context, place(tmp_path)) == own  # the same contents, the same name
    assert deliver(made, many, context, place(tmp_path)) == tmp_path / "demo"  # the same or more do replace it
    assert deliver(made, few, context, place(tmp_path, replace=True)) == tmp_path / "demo"


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_folder_is_kept_too(tmp_path: Path) -> None:
    made = REGISTRY["demo"]
    made.build(made_rows(TWO, archs=("fc",)), CONTEXT, tmp_path / "demo")
    (tmp_path / "demo" / "runs.csv").write_text("key\n")
    assert deliver(made, made_rows(TWO, archs=("fc",)), CONTEXT, place(tmp_path)) != tmp_path / "demo"


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_a_study_of_other_settings_never_replaces_a_committed_one(name: str) -> None:
    made, folder = MEASURED[name], ROOT / "results" / name
    data, context = made.read(folder), json.loads((folder / "provenance.json").read_text())
    assert made.lost(data, context, folder) == []
    setting = next(iter(context["settings"]))
    assert made.lost(data, {**context, "settings": {**context["settings"], setting: "other"}}, folder)


PRIMARY = {
    path.stem: ("artefact", "preset") if path.stem == "reproduce" else ("study",) if path.stem == "study" else
    ("preset",) if "- preset:" in path.read_text() else ()
    for path in CONF.glob("*.yaml") if "\nreplace: false" in path.read_text()
}  # fmt: skip


@pytest.mark.parametrize("config", sorted(PRIMARY))
def test_what_is_asked_differently_goes_to_a_folder_of_its_own(config: str, tmp_path: Path) -> None:
    with composed(config, f"results={tmp_path}") as cfg:
        usual = read_place(cfg, config, PRIMARY[config])
        OmegaConf.update(cfg, "overrides", ["max_epochs=1"], force_add=True)
        changed = read_place(cfg, config, PRIMARY[config])
    assert usual.folders("x") == (usual.folder("x"),) * 2 and not usual.changed
    assert changed.changed == ("overrides",)
    assert re.fullmatch(re.escape(str(usual.folder("x"))) + "-[0-9a-f]{8}", str(changed.folder("x")))


def test_a_folder_may_be_named_and_told_to_replace(tmp_path: Path) -> None:
    with composed("drawings", f"results={tmp_path}", "points=60") as cfg:
        first = read_place(cfg, "drawings", ())
        assert read_place(cfg, "drawings", ()) == first
        cfg.points = 61
        assert read_place(cfg, "drawings", ()).folder("x") != first.folder("x")
        cfg.name, cfg.replace = "mine", True
        named = read_place(cfg, "drawings", ())
        assert named.folder("x") == tmp_path / "x-mine" and named.changed == ("points",) and named.replace
        cfg.replace = "perhaps"
        with pytest.raises(SpecError, match="replace = perhaps: must be true or false"):
            read_place(cfg, "drawings", ())
        cfg.name = "../up"
        with pytest.raises(SpecError, match=r"name = \.\./up: must be null, or letters"):
            read_place(cfg, "drawings", ())


def test_where_a_command_runs_is_no_difference(tmp_path: Path) -> None:
    where = ["device=cpu", f"store={tmp_path}/s", "wandb=disabled", "workers=1", "train=false", "keep_rows=true"]
    with composed("reproduce", *where, f"results={tmp_path}", "artefact=fig6", "preset=cpu") as cfg:
        assert differences(cfg, "reproduce", ("artefact", "preset")) == {}


def test_every_preset_has_folders_of_its_own() -> None:
    presets = [
        path for path in (CONF / "preset").glob("*.yaml") if path.stem != "demo"
    ]  # which is of the artefact demo alone
    suffixes = {OmegaConf.load(path).suffix for path in presets}
    assert len(suffixes) == len(presets)
