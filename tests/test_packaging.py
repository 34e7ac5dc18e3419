"""One list in three files: pyproject.toml says which, requirements.lock which version, environment.yml both.

And the Makefile, run on a stand-in for Python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.composed import job

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")

# Stands for any Python: reports a version, makes an environment of itself, installs nothing and fails where told to.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
    --version) echo "Python {version}" ;;
    -c*) exit {refused} ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *{broken}*) exit 1 ;;
esac
"""


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def direct() -> dict[str, Requirement]:
    """Every requirement that pyproject.toml names, for running and for developing."""
    lines = [*project()["dependencies"], *project()["optional-dependencies"]["dev"]]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def lock_entries() -> list[str]:
    """One string for each package: requirement and hashes, as pip reads them."""
    joined = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def locked(python: str) -> dict[str, str]:
    """The version of each package that the lock installs for a Python (on Linux, where the tests run)."""
    versions: dict[str, str] = {}
    for entry in lock_entries():
        requirement = Requirement(entry.split("--hash")[0])
        here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
        if requirement.marker is None or requirement.marker.evaluate(here):
            (pin,) = requirement.specifier
            assert canonicalize_name(requirement.name) not in versions, f"{requirement.name} is locked twice"
            versions[canonicalize_name(requirement.name)] = pin.version
    return versions


def test_environment_yml_holds_the_direct_dependencies_at_the_locks_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert (environment["name"], environment["channels"]) == ("noise_reg", ["conda-forge"])
    assert conda == ["python=3.11", "pip"]
    versions = locked("3.11")
    assert sorted(pip["pip"]) == sorted(f"{name}=={versions[name]}" for name in direct())


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_pyproject_on_every_supported_python(python: str) -> None:
    versions = locked(python)
    for name, requirement in direct().items():
        assert requirement.specifier.contains(versions[name], prereleases=True), f"{requirement}: {versions[name]}"


def test_the_supported_pythons_are_those_of_pyproject() -> None:
    supported = Requirement(f"python{project()['requires-python']}").specifier
    assert [minor for minor in range(30) if supported.contains(f"3.{minor}")] == [11, 12, 13]
    assert [int(python.removeprefix("3.")) for python in PYTHONS] == [11, 12, 13]


def test_every_locked_package_is_pinned_and_hashed_and_no_host_is_named() -> None:
    for entry in lock_entries():
        requirement, *hashes = entry.split("--hash=")
        parsed = Requirement(requirement)
        assert [pin.operator for pin in parsed.specifier] == ["=="], requirement
        assert parsed.url is None, requirement
        assert hashes, requirement
        assert all(len(part.strip().removeprefix("sha256:")) == 64 for part in hashes), requirement
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "index" not in {line.lstrip("-").split("-")[0] for line in text.splitlines()}  # --index-url


def test_license_and_citation_name_the_project_and_the_papers() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"]) == (project()["name"], project()["version"])
    assert citation["license"] == project()["license"]
    assert {"cff-version", "message", "authors"} <= set(citation)
    urls = [reference["url"] for reference in citation["references"]]
    assert "https://arxiv.org/abs/2210.15764" in urls
    assert "https://arxiv.org/abs/1104.3250" in urls


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # the make that runs the tests must not speak to this one
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=inherited, capture_output=True, text=True, timeout=60, check=False)


def fake_python(folder: Path, version: str = "3.12.1", refused: int = 0, broken: str = "nothing") -> str:
    script = folder / "python"
    script.write_text(FAKE_PYTHON.format(log=folder / "log", version=version, refused=refused, broken=broken))
    script.chmod(0o755)
    return f"PYTHON3={script}"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def installations(clone: Path) -> int:
    return (clone / "log").read_text().count("--require-hashes -r requirements.lock")


def test_make_help_explains_every_target_and_is_the_default(clone: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = (line for line in makefile.splitlines() if line.startswith(".PHONY:"))
    shown = {line.split()[0]: line.split()[1:] for line in make(clone).stdout.splitlines() if line.strip()}
    for target in phony.split()[1:]:
        assert shown.get(target), target


def test_an_unsuitable_python_is_named_and_nothing_is_installed(clone: Path) -> None:
    done = make(clone, "setup", fake_python(clone, version="3.9.18", refused=1))
    assert done.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr
    assert "Python 3.9.18" in done.stderr
    assert not (clone / ".venv").exists()


def test_setup_installs_once_and_again_only_when_lock_or_pyproject_changed(clone: Path) -> None:
    python = fake_python(clone)
    assert make(clone, "setup", python).returncode == 0
    assert make(clone, "setup", python).returncode == 0
    assert installations(clone) == 1
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(clone / name, ((clone / ".venv" / ".installed").stat().st_mtime + 10,) * 2)
        make(clone, "setup", python)
        os.utime(clone / name, (0, 0))
    assert installations(clone) == 3


@pytest.mark.parametrize("broken", ["requirements.lock", "--editable"])
def test_an_interrupted_installation_is_not_taken_for_a_finished_one(clone: Path, broken: str) -> None:
    assert make(clone, "setup", fake_python(clone)).returncode == 0
    os.utime(clone / ".venv" / ".installed", (0, 0))
    assert make(clone, "setup", fake_python(clone, broken=broken)).returncode != 0
    assert not (clone / ".venv" / ".installed").exists()
    assert make(clone, "setup", fake_python(clone)).returncode == 0
    assert installations(clone) == 3


def test_reproduce_passes_preset_data_and_device_on(clone: Path) -> None:
    python = fake_python(clone)
    for artefact in ("fig2", "table2", "any_other"):
        done = make(
            clone, f"reproduce-{artefact}", python, "PRESET=paper", "DATA_DIR=data", "DEVICE=cpu", "ARGS=seeds=3"
        )
        assert done.returncode == 0, done.stderr
        asked = f"scripts/reproduce.py artefact={artefact} preset=paper data_dir={clone / 'data'} device=cpu seeds=3"
        assert (clone / "log").read_text().splitlines()[-1] == asked
    assert make(clone, "reproduce-nj-table", python, "PRESET=smoke", "DATA_DIR=data", "DEVICE=cpu").returncode == 0
    asked = f"scripts/nj.py preset=smoke data_dir={clone / 'data'} device=cpu"
    assert (clone / "log").read_text().splitlines()[-1] == asked


# What an installed wheel is tried with: the example of docs/extending.md, then where it ran.
WHERE_IT_RAN = """
import pathlib
print(pathlib.Path(noise_reg.__file__).parent, noise_reg.__version__, noise_reg.run_spec("dataset=digits").key)
"""


def library_example() -> str:
    text = (ROOT / "docs" / "extending.md").read_text().partition("## As a library")[2]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source, ignored = folder / "source", shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("noise_reg", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(source)], check=True
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return folder / "site"


def test_the_wheel_holds_every_file_of_the_package_and_of_conf(installed: Path) -> None:
    for name, place in (("noise_reg", "noise_reg"), ("hydra_plugins", "hydra_plugins"), ("conf", "noise_reg/conf")):
        inside = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*") if path.is_file()}
        wanted = {path for path in inside if path.suffix != ".pyc"}
        assert not [path for path in wanted if not (installed / place / path).is_file()]


def test_the_wheel_trains_a_stack_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = f"import sys\nsys.path.insert(0, {str(installed)!r})\n{library_example()}{WHERE_IT_RAN}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NOISE_REG"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, env=inherited, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    package, version, key = done.stdout.splitlines()[-1].split()
    assert Path(package) == installed / "noise_reg"
    assert version == project()["version"]
    assert key == job("dataset=digits").spec.key
    assert not (installed / "conf").exists()
