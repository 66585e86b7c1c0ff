"""Pages of one HTML file: nothing is fetched, and it opens from a disk or a mail."""

from __future__ import annotations

import base64
import gzip
import html
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_gr.report.table import best_of, is_missing
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.json_files import json_text

if TYPE_CHECKING:
    import os

    from recbole_gr.report.table import Column

# What a browser is told to refuse, in case a text should ever become markup: all but what is here.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'"
)


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        title: its heading, by which it is linked from the top of the page.
        parts: HTML by the functions below.
    """

    title: str
    parts: Sequence[str]


def paragraph(text: str) -> str:
    """A text of a user or of a file as a paragraph; nothing in it is markup."""
    return f"<p>{html.escape(text)}</p>"


def link(file: str, text: str) -> str:
    """A link to a file that lies beside the page."""
    return f'<p><a href="{html.escape(file)}">{html.escape(text)}</a></p>'


def command(text: str, note: str = "") -> str:
    """A command that a button copies.

    Args:
        text: as it is typed.
        note: what it does.
    """
    above = f"<p class=note>{html.escape(note)}</p>" if note else ""
    return f"{above}<div class=command><pre>{html.escape(text)}</pre><button>Copy</button></div>"


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Any]],
    mark_best: bool = True,
    texts: bool = False,
) -> str:
    """A table that sorts by the column that is clicked on.

    Args:
        columns: what they are.
        rows: values by column; None where there is none.
        mark_best: of several rows the best value of a column is bold.
        texts: whether its cells are texts, which break into lines.
    """
    best = best_of(columns, rows) if mark_best else [None] * len(columns)
    head = "".join(f"<th><button>{html.escape(column.title)}</button></th>" for column in columns)
    lines = [f"<tr>{_cells(columns, row, best)}</tr>" for row in rows]
    whole = f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(lines)}</tbody>"
    return f"<div class=wide><table{' class=text' * texts}>{whole}</table></div>"


def chart(figure: Mapping[str, Any], height: int = 320, note: str = "") -> str:
    """A figure of :mod:`recbole_gr.report.charts`.

    Args:
        figure: a title, and "data" and "layout" as Plotly has them.
        height: pixels.
        note: a sentence under it.
    """
    above = f"<figcaption class=title>{html.escape(str(figure.get('title', '')))}</figcaption>"
    below = f"<p class=note>{html.escape(note)}</p>" if note else ""
    drawn = data_script({key: figure[key] for key in ("data", "layout")})
    plot = f'<div class=plot style="height:{height}px">{drawn}</div>'
    return f"<figure>{above}{plot}{below}</figure>"


def panels(parts: Iterable[str]) -> str:
    """Charts beside each other, as many as the screen is wide for."""
    return f"<div class=panels>{''.join(parts)}</div>"


def details(title: str, *parts: str) -> str:
    """Parts that are folded until somebody asks for them."""
    return f"<details><summary>{html.escape(title)}</summary>{''.join(parts)}</details>"


def data_script(data: Any, name: str = "") -> str:
    """Data of a page as JSON that ends no element, whatever its texts hold.

    Args:
        data: of lists, dictionaries, texts and numbers; NaN becomes null.
        name: the id of the element; "" for none.
    """
    text = json_text(data).replace("<", "\\u003c")
    return f'<script type="application/json"{_id(name)}>{text}</script>'


def packed_script(data: Any, name: str) -> str:
    """Data of a page, compressed; `unpacked(name)` of the page's script reads them.

    Args:
        data: bytes, or what :func:`data_script` takes.
        name: the id of the element.
    """
    raw = data if isinstance(data, bytes) else json_text(data).encode()
    text = base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()
    return f'<script type="text/plain"{_id(name)}>{text}</script>'


def write_page(
    path: str | os.PathLike[str],
    title: str,
    sections: Iterable[Section],
    subtitle: str = "",
    scripts: Sequence[str] = (),
) -> Path:
    """Write a page to one file, whole or not at all.

    Args:
        path: of the file.
        title: of the page.
        sections: what it holds; those without parts are left out.
        subtitle: a line under the title.
        scripts: files of this package that it needs beside its own, `pages/walk.js`.

    Returns:
        pathlib.Path: of the file.
    """
    shown = [section for section in sections if any(section.parts)]
    heads = [html.escape(section.title) for section in shown]
    links = "".join(f'<a href="#s{number}">{head}</a>' for number, head in enumerate(heads))
    body = "\n".join(
        f'<section id="s{number}"><h2>{head}</h2>{"".join(section.parts)}</section>'
        for number, (head, section) in enumerate(zip(heads, shown))
    )
    code = "\n".join(map(_asset, ("report/page.js", *scripts)))
    needs_plotly = "class=plot" in body or bool(scripts)
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html.escape(title)}</title><link rel="icon" href="data:,">
<style>{_asset("report/page.css")}</style></head><body>
<header><h1>{html.escape(title)}</h1><p class=note>{html.escape(subtitle)}</p>
<nav>{links}</nav></header>
<main>{body}</main>
{_plotly() if needs_plotly else ""}
<script>{code}</script></body></html>
"""
    with atomic_write(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    return Path(path)


def _cells(columns: Sequence[Column], row: Sequence[Any], best: Sequence[Any]) -> str:
    cells = []
    for number, (column, value) in enumerate(zip(columns, row)):
        text = html.escape(column.text(value))
        if not is_missing(value) and value == best[number]:
            text = f"<b>{text}</b>"
        kind = "td" if number else "th scope=row"
        key = f' data-v="{value!r}"' if _is_number(value) else ""
        cells.append(f"<{kind}{key}>{text}</{kind[:2]}>")
    return "".join(cells)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not is_missing(value)


def _id(name: str) -> str:
    return f' id="{html.escape(name)}"' if name else ""


def _asset(name: str) -> str:
    return (resources.files("recbole_gr") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    """Plotly's script, of the package that RecBole brings; compressed it is 2 MB, not 4.8."""
    script = resources.files("plotly") / "package_data" / "plotly.min.js"
    return packed_script(script.read_bytes(), "plotly")
