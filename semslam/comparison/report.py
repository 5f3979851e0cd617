"""A report: sections of text, tables and pictures, as one HTML page that needs nothing else, and as Markdown."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template

from semslam.files.writing import replacing
from semslam.rendering.pictures import encodable


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Commands:
    """What a person types to get the figures above."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first column naming the row; numbers are cells that are already written out."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""  # protocol, units


@dataclass(frozen=True)
class Picture:
    """One or more pictures side by side, with captions."""

    title: str
    images: tuple[tuple[str, str], ...]  # (caption, data URI)
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    parts: list[Text | Commands | Table | Picture] = field(default_factory=list)


def number(value: float | None, decimals: int = 1, factor: float = 1.0) -> str:
    """A cell: the value times the factor, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * factor:,.{decimals}f}"


# -------------------------------------------------------------------------------------------------- writers


def write_html(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """One page with everything inside: no scripts, no fonts, nothing to load."""
    template = Template(files("semslam").joinpath("data", "report.html").read_text(encoding="utf-8"))
    contents = "".join(f'<li><a href="#s{k}">{html.escape(s.title)}</a></li>' for k, s in enumerate(sections))
    body = "".join(_section_html(k, section) for k, section in enumerate(sections))
    page = template.substitute(title=html.escape(title), contents=contents, body=body)
    with replacing(path) as temporary:
        Path(temporary).write_text(encodable(page), encoding="utf-8")


def _section_html(k: int, section: Section) -> str:
    parts = "".join(_part_html(part) for part in section.parts)
    return f'<section id="s{k}"><h2>{html.escape(section.title)}</h2>{parts}</section>\n'


def _part_html(part: Text | Commands | Table | Picture) -> str:
    if isinstance(part, Text):
        return f"<p>{html.escape(part.text)}</p>\n"
    if isinstance(part, Commands):
        return f"<pre>{html.escape(chr(10).join(part.lines))}</pre>\n"
    if isinstance(part, Table):
        head = "".join(f"<th>{html.escape(c)}</th>" for c in part.columns)
        rows = "".join(
            f"<tr><th>{html.escape(row[0])}</th>{''.join(f'<td>{html.escape(c)}</td>' for c in row[1:])}</tr>\n"
            for row in part.rows
        )
        note = f'<p class="note">{html.escape(part.note)}</p>' if part.note else ""
        return (
            f"<h3>{html.escape(part.title)}</h3><div class='wide'><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table></div>{note}\n"
        )
    images = "".join(
        f'<figure><img src="{uri}" alt="{html.escape(caption or part.title)}">'
        + (f"<figcaption>{html.escape(caption)}</figcaption>" if caption else "")
        + "</figure>"
        for caption, uri in part.images
    )
    note = f'<p class="note">{html.escape(part.note)}</p>' if part.note else ""
    kind = "one" if len(part.images) == 1 else "many"
    return f'<h3>{html.escape(part.title)}</h3><div class="pictures {kind}">{images}</div>{note}\n'


def write_markdown(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """The text, tables and commands; pictures are named only, they are in the page."""
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for part in section.parts:
            if isinstance(part, Text):
                lines += [part.text, ""]
            elif isinstance(part, Commands):
                lines += ["```", *part.lines, "```", ""]
            elif isinstance(part, Table):
                lines += [
                    f"**{part.title}**",
                    "",
                    _row(part.columns),
                    _row(["---", *["---:"] * (len(part.columns) - 1)]),
                ]
                lines += [*map(_row, part.rows), ""]
                lines += [part.note, ""] if part.note else []
            else:
                lines += [f"*{part.title}: see report.html*", ""]
    with replacing(path) as temporary:
        Path(temporary).write_text(encodable("\n".join(lines)), encoding="utf-8")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
