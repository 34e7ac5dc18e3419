"""Imports run in one direction, so a room can be read without the rooms above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.composed import ROOT

# from the ground up; a module may import from rows above its own and from its own package
LAYERS = [
    ["errors", "sums", "decimals", "interrupts"],
    ["faults", "sweep_folder", "limits"],
    ["workers", "checkout", "graph", "precision", "plugins"],
    ["spec"],
    ["streams", "data", "atomic", "theory", "evaluation_spec", "shape"],
    ["nn", "artefacts", "losses"],
    ["regularizers", "plan", "prepare"],
    ["optimizers", "evaluations", "store", "tracking", "meters", "memory"],
    ["mirror_state", "usual_epochs"],
    ["compose"],
    ["train", "config", "data_check", "mirror", "mirror_process", "entry", "progress", "begun"],
    ["pipeline", "place"],
    ["probe", "wanted"],
    ["estimate"],
    ["own_model"],
    ["cli", "reevaluate"],
    ["library"],
    ["sweep"],
    [
        "benchmark",
        "phase_sweep",
        "meter_study",
        "label_smoothing_study",
        "weight_noise_study",
        "drawings",
        "nj_study",
        "jacobian_study",
        "nj_questions",
        "paper_scale",
        "precision_study",
    ],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted((ROOT / "noise_reg").rglob("*.py"))
LAZY = {("store", "nn")}  # Store.model builds a network only when asked to; the store itself is read without torch


def room(path: Path) -> str:
    name = path.relative_to(ROOT / "noise_reg").with_suffix("").parts[0]
    if path.stem == "meters":  # of networks, unlike the rest of theory
        return "meters"
    return "benchmark" if name == "bench" else name


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} if node.module != "noise_reg" else {f"noise_reg.{a.name}" for a in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_in_one_direction(path: Path) -> None:
    here = room(path)
    if here == "__init__":  # its names are imported when asked for, see below
        return
    rooms = {room(ROOT / name.replace(".", "/")) for name in imported(path) if name.startswith("noise_reg.")} - {here}
    upward = [r for r in rooms if LEVEL[r] >= LEVEL[here] and (here, r) not in LAZY]
    assert not upward, f"{here} imports {upward}"


def test_only_tracking_imports_wandb() -> None:
    users = {room(path) for path in MODULES if any(name.split(".")[0] == "wandb" for name in imported(path))}
    assert users == {"tracking"}


def test_the_package_itself_imports_nothing_of_weight() -> None:
    code = """
import sys
before = set(sys.modules)
import noise_reg
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
print(*(name for name in sys.modules if name.startswith("noise_reg.")))
assert set(noise_reg.__all__) <= set(dir(noise_reg))
noise_reg.Store, noise_reg.RunSpec, noise_reg.UserError
assert "torch" not in sys.modules
"""
    call = [
        sys.executable,
        "-S",
        "-W",
        "error",
        "-c",
        code.replace("import sys", f"import sys; sys.path += {sys.path!r}"),
    ]
    done = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["noise_reg", ""]


def test_what_reads_rows_needs_no_torch() -> None:
    modules = ("noise_reg.spec", "noise_reg.store", "noise_reg.artefacts", "noise_reg.artefacts.report")
    code = "".join(f"import {module}\nassert 'torch' not in sys.modules, '{module}'\n" for module in modules)
    call = [sys.executable, "-W", "error", "-c", f"import sys\n{code}"]
    assert subprocess.run(call, cwd=ROOT, check=False).returncode == 0
