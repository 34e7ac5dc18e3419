"""The small Markdown that artefacts are written in: headings, paragraphs, lists, pipe tables, *emphasis*, `code`.

`to_html` reads what `document` and `table` write, and nothing more; all text is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A pipe table whose columns are padded, so that it reads well as plain text; the first column is left-aligned."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *body)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    rule = [":" + "-" * (w - 1) for w in widths]
    rows = [cells[0], rule, *cells[1:]]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def document(*blocks: str) -> str:
    """Blocks separated by blank lines; empty ones are left out."""
    return "\n\n".join(block for block in blocks if block) + "\n"


def to_html(text: str, *, top: int = 3) -> str:
    """HTML of the document; its heading '#' becomes <h{top}>."""
    return "\n".join(block_html(block, top) for block in re.split(r"\n\s*\n", text.strip()) if block)


def block_html(block: str, top: int) -> str:
    lines = block.split("\n")
    heading = re.match(r"(#+) (.*)", lines[0])
    if heading:
        level = min(6, top + len(heading[1]) - 1)
        rest = block_html("\n".join(lines[1:]), top) if lines[1:] else ""
        return f"<h{level}>{inline(heading[2])}</h{level}>{rest}"
    if lines[0].startswith("|"):
        return table_html(lines)
    if lines[0].startswith("- "):
        items = "".join(f"<li>{inline(item)}</li>" for item in re.split(r"(?:^|\n)- ", block) if item)
        return f"<ul>{items}</ul>"
    return f"<p>{inline(' '.join(lines))}</p>"


def table_html(lines: Sequence[str]) -> str:
    header, _, *body = ([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    head = "".join(f'<th scope="col">{inline(c)}</th>' for c in header)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{inline(c)}</td>" if i else f'<th scope="row">{inline(c)}</th>' for i, c in enumerate(row))
        + "</tr>"
        for row in body
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def inline(text: str) -> str:
    escaped = html.escape(text.replace("\\|", "|"))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    escaped = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", escaped)


def code(words: Sequence[str]) -> str:
    """'`a`, `b`'."""
    return ", ".join(f"`{word}`" for word in words)


def counted(count: int | str, noun: str) -> str:
    """'1 epoch', '5 epochs', '3 to 10 epochs'."""
    return f"{count} {noun}{'s' * (str(count) != '1')}"


def scale_note(context: Mapping[str, Any]) -> str:
    """'**Below paper scale: 3 seeds.**'; '' at the paper's scale."""
    below = context["below_paper_scale"]
    return f"**Below paper scale: {below}.**" if below else ""
