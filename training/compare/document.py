"""A report as blocks, written as Markdown and as HTML that needs nothing but the pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #ddd; padding: 4px 8px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
th { background: #f4f4f4; white-space: normal; } img { max-width: 100%; }
.PASS { color: #1a7f37; font-weight: 600; } .FAIL, .NOT, .UNFINISHED { color: #b3261e; font-weight: 600; }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    words: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain words."""

    words: str


@dataclass(frozen=True)
class Listing:
    """A list of plain words."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; its first column is left-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture beside the report, by file name."""

    file: str
    caption: str


Block = Heading | Paragraph | Listing | Table | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write the blocks as Markdown."""
    parts = []
    for block in blocks:
        match block:
            case Heading(words, level):
                parts.append(f"{'#' * level} {words}")
            case Paragraph(words):
                parts.append(words)
            case Listing(items):
                parts.append("\n".join(f"- {item}" for item in items))
            case Table(header, rows):
                cells = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
                parts.append(
                    "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
                )
            case Picture(file, caption):
                parts.append(f"![{caption}]({file})\n\n*{caption}*")
    return "\n\n".join(parts) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Write the blocks as one HTML page."""
    title = next((block.words for block in blocks if isinstance(block, Heading)), "")
    parts = []
    for block in blocks:
        match block:
            case Heading(words, level):
                parts.append(f"<h{level}>{escape(words)}</h{level}>")
            case Paragraph(words):
                parts.append(f"<p>{escape(words)}</p>")
            case Listing(items):
                parts.append("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>")
            case Table(header, rows):
                head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
                body = "".join("<tr>" + "".join(html_cell(cell) for cell in row) + "</tr>" for row in rows)
                parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
            case Picture(file, caption):
                said = escape(caption)
                parts.append(
                    f"<figure><img src='{escape(file)}' alt='{said}'/><figcaption>{said}</figcaption></figure>"
                )
    page = "\n".join(parts)
    return (
        f"<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<title>{escape(title)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{page}\n</body>\n</html>\n"
    )


def html_cell(cell: str) -> str:
    """Write a table's cell; verdicts get their colour."""
    verdict = cell.split(" ", 1)[0] if cell in ("PASS", "FAIL", "NOT MEASURED", "UNFINISHED") else ""
    return f"<td class='{verdict}'>{escape(cell)}</td>" if verdict else f"<td>{escape(cell)}</td>"
