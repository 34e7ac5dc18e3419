"""One self-contained HTML page of every artefact under a results folder: verdicts on top, then each figure and table.

Nothing is drawn anew: the page shows what is committed. A folder that is incomplete or damaged is shown as far as it
can be, with its problems named.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import jinja2
from markupsafe import Markup

from noise_reg.artefacts import EVERY, markdown
from noise_reg.artefacts.folder import load_provenance, load_verdicts
from noise_reg.artefacts.methods import arch_name, rank
from noise_reg.artefacts.rows import read_rows, write_atomically
from noise_reg.artefacts.statistics import VERDICTS, combine
from noise_reg.artefacts.verdicts import Verdict, interval_text, size_text
from noise_reg.errors import UserError

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
PICTURE = re.compile(r"^!\[.*\]\(.*\)\n\n?", re.MULTILINE)  # in a table's file; the page has the figure itself
BENCHMARK = "benchmark"  # its folder holds one a kind of machine
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """One figure with its table: `image` is a data URI or '', `text` the table's HTML."""

    image: str
    alt: str
    text: Markup


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    source: str
    parts: list[Shown]
    verdicts: list[Verdict]
    provenance: list[tuple[str, str]]
    problems: list[str]

    @property
    def counts(self) -> str:
        """'3 reproduced, 2 contradicted'."""
        found = Counter(verdict.verdict for verdict in self.verdicts)
        return ", ".join(f"{found[word]} {word}" for word in VERDICTS if found[word])

    @property
    def limits(self) -> str:
        return "; ".join(dict.fromkeys(verdict.note for verdict in self.verdicts if verdict.note))


def build_report(results: Path, out: Path) -> list[str]:
    """Write the page `out` from the folders under `results`; returns the problems it names, one line each."""
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; reproduce an artefact first, or give the folder that holds them")
    folders = sorted((p for p in results.iterdir() if p.is_dir() and not p.name.startswith(".")), key=folder_order)
    sections = [read_section(folder) for folder in folders if folder.name != BENCHMARK]
    sections += [read_benchmark(folder) for folder in sorted((results / BENCHMARK).glob("*/"))]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = files("noise_reg.artefacts").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(sections=sections, behind=behind, kinds=VERDICTS)
    write_atomically(out, page.encode())
    return [problem for section in sections for problem in section.problems]


def folder_order(folder: Path) -> tuple[int, str]:
    return rank(folder.name, EVERY)


def read_section(folder: Path) -> Section:
    """Everything that can be read of one artefact's folder."""
    problems: list[str] = []

    def attempt(read: Callable[[Path], T], otherwise: T) -> T:
        try:
            return read(folder)
        except UserError as error:
            problems.append(str(error))
            return otherwise

    provenance: Mapping[str, Any] = attempt(load_provenance, {})
    no_verdicts: list[Verdict] = []
    verdicts = attempt(load_verdicts, no_verdicts)
    name = str(provenance.get("artefact", folder.name))
    known = EVERY.get(name)
    attempt(known.read if known else read_rows, None)
    parts = [read_part(path, problems) for path in sorted(folder.glob("*.md"))]
    if not parts:
        problems.append(f"{folder}: no table (*.md)")
    return Section(
        folder.name,
        known.title if known else folder.name,
        known.source if known else "",
        parts,
        verdicts,
        list(flat(provenance)),
        [problem.replace(str(folder), folder.name) for problem in problems],
    )


def read_benchmark(folder: Path) -> Section:
    """What `make bench` wrote of one kind of machine: measured times, without claims."""
    problems: list[str] = []
    parts = [read_part(folder / "benchmark.md", problems)]
    problems = [problem.replace(str(folder), f"{BENCHMARK}/{folder.name}") for problem in problems]
    name, title = f"{BENCHMARK}/{folder.name}", f"Benchmark: {folder.name}"
    return Section(name, title, "", parts, [], [], problems)


def read_part(path: Path, problems: list[str]) -> Shown:
    """The table of `path` and the figure of the same name."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read: {error}")
        text = ""
    blocks = [block.lstrip("# ") for block in text.split("\n\n")[:2]]
    return Shown(
        image=inline_image(path, problems),
        alt=". ".join(blocks) or path.stem,
        text=Markup(markdown.to_html(PICTURE.sub("", text))),  # to_html escapes
    )


def inline_image(table: Path, problems: list[str]) -> str:
    """The figure as a data URI: the SVG, or the PNG when the SVG is missing or damaged; '' when both are."""
    for ending, mime, sound in ((".svg", "image/svg+xml", is_svg), (".png", "image/png", is_png)):
        path = table.with_suffix(ending)
        try:
            data = path.read_bytes()
        except OSError:
            problems.append(f"{path}: not found")
            continue
        if sound(data):
            return f"data:{mime};base64,{base64.b64encode(data).decode()}"
        problems.append(f"{path}: damaged")
    return ""


def is_svg(data: bytes) -> bool:
    try:
        return ElementTree.fromstring(data).tag.endswith("svg")
    except ElementTree.ParseError:
        return False


def is_png(data: bytes) -> bool:
    return data.startswith(PNG_START) and data.endswith(PNG_END)


def behind(verdict: Verdict) -> str:
    """The numbers in a line: the one comparison, or the verdict of each architecture."""
    if len(verdict.numbers) == 1:
        only = verdict.numbers[0]
        numbers = "" if only.difference is None else f"{interval_text(only)}, {size_text(only)}"
        return "; ".join(text for text in (numbers, only.remark) if text)
    archs = dict.fromkeys(part.arch for part in verdict.numbers)
    each = {arch: combine([p.verdict for p in verdict.numbers if p.arch == arch]) for arch in archs}
    return ", ".join(f"{arch_name(arch)} {word}" for arch, word in each.items())


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Provenance as lines: nested names joined by dots, lists by commas."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
