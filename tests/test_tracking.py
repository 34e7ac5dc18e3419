"""Tracking mirrors the store: the same numbers, nothing about the machine, and never at the cost of a training."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from noise_reg.mirror_state import MirrorState

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef"
SPEC = {
    "dataset": {"name": "digits", "split_seed": 0},
    "arch": {"name": "fc", "widths": [20, 10]},
    "strengths": {"weight_decay": 0.0, "nin_input": 51.8},
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
    "reading": {"loss": "clamped"},
    "max_epochs": 500,
    "stop_accuracy": 0.98,
    "precision": "fp32",
    "seed": 3,
}
RECORD = {"method": "in_ninr", "status": "completed", "epochs": 2, "test_accuracy": 0.8125, "seconds": 7.5}
HISTORY = {"epoch": [1, 2], "train_loss": [1.25, 0.625], "test_accuracy": [0.5, 0.8125], "norm_w_ni_0": [3.5, 2.75]}
EVALUATIONS = {"evaluation": ["clean", "corruption"], "strength": [0.0, 0.3], "accuracy": [0.8125, 0.6875]}
VERDICTS = [{"claim": "N1", "verdict": "reproduced", "difference": 0.03125}]

# Runs in a process of its own, as a user's command does.
PROGRAM = """
import json, sys
from pathlib import Path
import pandas as pd
from noise_reg import tracking
from noise_reg.mirror import Mirror
from noise_reg.store import Store
mode, folder, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tracking.INIT_TIMEOUT = 2.0
store = Store(folder)
store.write_run(given["key"], given["spec"], pd.DataFrame(given["history"]), {}, given["record"])
for name, strength, accuracy in zip(*given["evaluations"].values()):
    store.write_evaluation(given["key"], name, {}, [(strength, accuracy)])
spec = tracking.TrackingSpec(mode=mode, project="mirror", folder=folder)
mirror = Mirror(spec, store, lambda line: print("WARN", line))
for _ in range(2):
    mirror.update([given["key"]], "fig2", ["quick"])
    mirror.update_artefact("fig2", Path("results"), {"preset": "quick"})
print("wandb imported", "wandb" in sys.modules)
"""
GIVEN = {"key": KEY, "spec": SPEC, "record": RECORD, "history": HISTORY, "evaluations": EVALUATIONS}


def mirror(where: Path, mode: str, **environment: str) -> tuple[Path, str]:
    """The folder of W&B runs, and all that a process which tracks one run (twice) and one artefact prints."""
    work, home = where / "token-of-cwd", where / "token-of-home"
    (work / "results").mkdir(parents=True)
    home.mkdir()
    write_artefact(work / "results")
    (where / "path").mkdir()
    (where / "path" / "sitecustomize.py").write_text("import socket\nsocket.gethostname = lambda: 'token-of-host'\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    user = {
        "HOME": str(home),
        "USER": "token-of-user",
        "LOGNAME": "token-of-user",
        "PYTHONPATH": f"{where / 'path'}{os.pathsep}{ROOT}",
    }
    arguments = [mode, "tracking", json.dumps(GIVEN), "--token-of-argv"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
        cwd=work,
        env={**kept, **user, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return work / "tracking" / "wandb", done.stdout


def write_artefact(folder: Path) -> None:
    # the smallest PNG: one grey pixel
    pixel = "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001e5"
    (folder / "fig2.png").write_bytes(bytes.fromhex(pixel + "27d4a20000000049454e44ae426082"))
    pd.DataFrame({"method": ["none", "in_ninr"], "ours": [0.8125, None]}).to_csv(folder / "table2.csv", index=False)
    (folder / "verdicts.json").write_text(json.dumps(VERDICTS))


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return mirror(tmp_path_factory.mktemp("offline"), "offline")


def run_folder(wandb_folder: Path, run_id: str) -> Path:
    return min(wandb_folder.glob(f"offline-run-*-{run_id}*"))


def inspect(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(folder)]
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(folder).splitlines()]


def test_an_offline_run_holds_the_numbers_of_the_store(offline: tuple[Path, str]) -> None:
    folder = run_folder(offline[0], KEY)
    read = json.loads(inspect(folder, "--summary"))
    assert read["run_id"] == KEY
    assert read["name"] == "digits-fc-in_ninr-s3"
    assert read["tags"] == ["quick"]
    assert read["config"] == {**SPEC, "key": KEY, "method": "in_ninr"}
    expected = RECORD | {"clean/0": 0.8125, "corruption/0.3": 0.6875}
    assert {name: read["summary"].get(name) for name in expected} == expected
    rows = [record["history"]["item"] for record in records(folder) if record["type"] == "history"]
    history = pd.DataFrame(rows).set_index("_step")[list(HISTORY)]
    assert history.to_dict("list") == HISTORY
    assert list(history.index) == HISTORY["epoch"]
    (stored,) = folder.glob("files/media/table/evaluations*.json")
    assert json.loads(stored.read_text())["data"] == pd.DataFrame({"key": KEY, **EVALUATIONS}).to_numpy().tolist()


def test_an_artefact_holds_its_image_table_and_verdicts(offline: tuple[Path, str]) -> None:
    folder = run_folder(offline[0], "artefact-fig2")
    read = json.loads(inspect(folder, "--summary"))
    (run,) = (record["run"] for record in records(folder) if record["type"] == "run")
    assert (run["run_group"], run["job_type"]) == ("fig2", "artefact")
    assert read["config"] == {"preset": "quick"}
    assert read["summary"]["N1"] == VERDICTS[0]
    (image,) = folder.glob("files/media/images/figure/fig2*.png")
    assert image.read_bytes() == (offline[0].parents[1] / "results" / "fig2.png").read_bytes()
    (stored,) = folder.glob("files/media/table/table/table2*.json")
    assert json.loads(stored.read_text())["data"] == [["none", 0.8125], ["in_ninr", None]]


def test_nothing_of_machine_user_or_command_line_is_recorded(offline: tuple[Path, str]) -> None:
    sent = [path for path in offline[0].rglob("*") if path.is_file() and path.parent.name != "logs"]  # logs stay here
    assert any(path.suffix == ".wandb" for path in sent)
    for path in sent:
        assert b"token-of" not in path.read_bytes(), path.name
    own = {socket.gethostname(), getpass.getuser(), sys.executable, str(ROOT), os.uname().nodename}
    for record in records(run_folder(offline[0], KEY)):
        assert not own & set(texts(record)), record


def texts(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [text for item in tree.values() for text in texts(item)]
    if isinstance(tree, list):
        return [text for item in tree for text in texts(item)]
    return [str(tree)]


def test_what_is_asked_for_twice_is_written_once(offline: tuple[Path, str]) -> None:
    assert sorted(path.name.split("-", 3)[3] for path in offline[0].iterdir()) == [KEY, "artefact-fig2"]


def test_tracking_is_silent_on_the_terminal(offline: tuple[Path, str]) -> None:
    assert offline[1] == "wandb imported False\n"


def test_disabled_tracking_imports_no_wandb_and_writes_nothing(tmp_path: Path) -> None:
    folder, printed = mirror(tmp_path, "disabled")
    assert printed == "wandb imported False\n"
    assert not folder.exists() and not (folder.parent / "mirror").exists()


@pytest.mark.parametrize(("environment", "reason"), [({}, "no API key"), ({"WANDB_API_KEY": "a" * 40}, "refused")])
def test_online_without_key_or_network_ends_in_one_warning(
    tmp_path: Path, environment: dict[str, str], reason: str
) -> None:
    with socket.socket() as closed:  # bound but not listening: nobody answers, and nobody else takes the port
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        folder, printed = mirror(tmp_path, "online", WANDB_BASE_URL=url, **environment)
    assert printed.count("WARN") == 1, printed
    assert len(printed.splitlines()) == 2, printed
    assert reason in printed
    known = MirrorState(folder.parent).read(KEY).values()
    assert all(shown.content is None for shown in known)  # the next command tries again


def test_only_tracking_imports_wandb() -> None:
    importing = [path.name for path in (ROOT / "noise_reg").rglob("*.py") if "import wandb" in path.read_text()]
    assert importing == ["tracking.py"]
