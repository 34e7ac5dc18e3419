"""The report is one page that needs nothing else, and a damaged artefact is named in it instead of breaking it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from noise_reg.artefacts import REGISTRY, markdown
from noise_reg.artefacts.report import build_report
from noise_reg.errors import UserError
from tests.made_rows import AS_CLAIMED, CONTEXT, made_rows

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects tags and attributes; `open_tags` is empty at the end of a well-formed page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    few = {m: AS_CLAIMED[m] for m in ("none", "cdt")} | {"<b>bold": (80.0, 70.0, 60.0)}
    REGISTRY["demo"].build(made_rows(few, archs=("fc",), n=3), {**CONTEXT, "machine": "<script>"}, folder / "demo")
    broken = folder / "fig2"
    broken.mkdir()
    (broken / "fig2.md").write_text("# A table without its figure\n")
    (broken / "fig2.svg").write_bytes((folder / "demo" / "fig2.svg").read_bytes()[:5000])
    (broken / "verdicts.json").write_text("{")
    timed = folder / "benchmark" / "cpu-2-amx"
    timed.mkdir(parents=True)
    (timed / "benchmark.md").write_text(
        "# Stacked training of Fashion-MNIST\n\nTimes.\n\n![Ratio](benchmark.png)\n\n## fc\n"
    )
    (timed / "benchmark.svg").write_bytes((folder / "demo" / "fig2.svg").read_bytes())
    return folder


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    build_report(results, results / "report.html")
    return (results / "report.html").read_text()


def test_the_page_is_well_formed_titled_and_described(page: str) -> None:
    parsed = Page(page)
    assert parsed.open_tags == []
    names = [tag for tag, _ in parsed.tags]
    assert (names.count("title"), names.count("h1"), names.count("script")) == (1, 1, 0)
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 3 and "Benchmark: cpu-2-amx" in page and "![" not in page
    assert all("Fashion-MNIST" in (image["alt"] or "") for image in images)


def test_the_page_needs_no_other_file_and_no_network(page: str) -> None:
    for _, attributes in Page(page).tags:
        for name in ("src", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#"))
    assert "url(" not in page
    assert "@import" not in page


def test_every_verdict_stands_in_the_summary_and_the_context_in_the_provenance(page: str) -> None:
    summary = page[page.index("All verdicts") : page.index("<section")]
    for claim in ("N1", "N5", "Table 2, FC, CDT 0.4"):
        assert f'<th scope="row">{claim}</th>' in summary
    assert "FC: 3 runs a method (the paper: 10 runs)" in summary
    assert re.search(r"reading\.loss</th><td>clamped", page)


def test_text_from_rows_and_context_is_escaped(page: str) -> None:
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert "&lt;script&gt;" in page


def test_a_damaged_folder_is_named_with_its_problems_without_the_path_to_it(results: Path, page: str) -> None:
    problems = build_report(results, results / "report.html")
    for words in ("fig2/provenance.json: not found", "fig2/verdicts.json: cannot", "fig2/fig2.svg: damaged"):
        assert any(problem.startswith(words) for problem in problems)
        assert words in page
    assert str(results) not in page
    assert all(problem.startswith("fig2/") for problem in problems)
    assert "A table without its figure" in page


def test_a_damaged_svg_gives_way_to_the_png(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "demo"
    folder.mkdir(parents=True)
    for path in (results / "demo").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "fig2.svg").write_bytes(b"<svg")
    assert build_report(folder.parent, tmp_path / "report.html") == ["demo/fig2.svg: damaged"]
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 1


def test_no_results_folder_is_the_users_to_mend_and_an_empty_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        build_report(tmp_path / "absent", tmp_path / "report.html")
    build_report(tmp_path, tmp_path / "report.html")
    assert "There is no artefact yet." in (tmp_path / "report.html").read_text()


def test_the_small_markdown_becomes_html_and_pipes_stay_in_their_cell() -> None:
    table = markdown.table(["a", "b"], [["x|y", "*z*"]])
    assert markdown.to_html(table).count("<td>") == 1
    assert '<th scope="row">x|y</th><td><em>z</em></td>' in markdown.to_html(table)
    assert markdown.to_html("# T\n\n- one\n- `two`") == "<h3>T</h3>\n<ul><li>one</li><li><code>two</code></li></ul>"
