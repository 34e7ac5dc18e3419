"""The README's commands are real: targets exist, settings compose, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.composed import ROOT, composed

README = (ROOT / "README.md").read_text()
LINES = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


def commands(start: str) -> list[str]:
    return [line for line in LINES if line.startswith(start)]


def first_of_sweep(override: str) -> str:
    """One job of a multirun: the first of the swept values."""
    name, value = override.split("=", 1)
    value = re.sub(r"^range\((\d+),.*\)$", r"\1", value)
    return f"{name}={value if value.startswith('[') else value.split(',')[0]}"


@pytest.mark.parametrize("line", commands("make "))
def test_a_make_target_of_the_readme_exists(line: str) -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line.split()[1] in targets


@pytest.mark.parametrize("line", commands("python "))
def test_a_script_call_of_the_readme_composes(line: str) -> None:
    script, *arguments = shlex.split(line)[1:]
    assert (ROOT / script).is_file()
    overrides = [first_of_sweep(a) for a in arguments if "=" in a and not a.startswith("hydra/launcher")]
    with composed(Path(script).stem, *overrides) as cfg:
        assert cfg


def test_the_set_up_is_two_commands() -> None:
    block = re.search(r"## Set-up\n\n```bash\n(.*?)```", README, re.DOTALL)
    assert block and [line.split()[:2] for line in block[1].splitlines()] == [["make", "demo"], ["make", "test"]]


def test_links_and_images_lead_to_files_that_are_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []
