"""Tables for people, markdown that is readable as text and CSV, and the files of a report."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.json_files import json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one if a cell begins so


class Column(NamedTuple):
    """A column of a table for people.

    Attributes:
        title: its head.
        form: how a value is written, as of `str.format`.
        smaller: whether a smaller value is the better one; None where neither is.
    """

    title: str
    form: str = "{}"
    smaller: bool | None = None

    def text(self, value: Any) -> str:
        """A cell; "-" where there is no value."""
        if is_missing(value):
            return "-"
        if self.form.endswith("g}") and value >= 100:  # 1234 would be written as 1.23e+03
            return f"{value:,.0f}"
        return self.form.format(value)


def table_text(
    columns: Sequence[Column], rows: Sequence[Sequence[Any]], mark_best: bool = True
) -> str:
    """A markdown table of values, by :func:`aligned_table`.

    Args:
        columns: what they are.
        rows: values by column; None where there is none.
        mark_best: of several rows the best value of a column is bold.
    """
    lines = [[column.title for column in columns], *([] for _ in rows)]
    best = best_of(columns, rows) if mark_best else [None] * len(columns)
    for number, (column, values) in enumerate(zip(columns, zip(*rows))):
        for line, value in zip(lines[1:], values):
            cell = column.text(value)
            line.append(cell if is_missing(value) or value != best[number] else f"**{cell}**")
    return aligned_table(lines)


def best_of(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> list[Any]:
    """The best value of each column; None where none is better, or there is one row."""
    best: list[Any] = [None] * len(columns)
    for number, column in enumerate(columns):
        known = [row[number] for row in rows if not is_missing(row[number])]
        if column.smaller is not None and len(rows) > 1 and known:
            best[number] = min(known) if column.smaller else max(known)
    return best


def aligned_table(lines: Sequence[Sequence[str]]) -> str:
    """A markdown table with columns of equal width, the first to the left, the others to the right.

    Args:
        lines (list[list[str]]): the header and the rows.

    Returns:
        str: without a newline at the end.
    """
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def text(line: Sequence[str]) -> str:
        cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        return "| " + " | ".join([line[0].ljust(widths[0]), *cells]) + " |"

    return "\n".join(map(text, [lines[0], rule, *lines[1:]]))


def write_files(
    folder: str | os.PathLike[str],
    name: str,
    md: str = "",
    rows: Iterable[Sequence[Any]] = (),
    data: Any = None,
    figure: Figure | None = None,
) -> dict[str, Path]:
    """Write `<name>.md`, `.csv`, `.json` and `.png`, those that something is given for.

    Args:
        folder: made if missing; files of an earlier call are replaced.
        name: of the files, without a suffix.
        md: a page.
        rows: of the CSV, its head first.
        data: of the JSON, where NaN and infinity become null.
        figure: what the picture shows.

    Returns:
        dict[str, pathlib.Path]: the files by "md", "csv", "json" and "png".
    """
    given: dict[str, Any] = {"md": md, "csv": rows, "json": data, "png": figure}
    files = {kind: Path(folder, f"{name}.{kind}") for kind in given if given[kind]}
    for kind, path in files.items():
        with atomic_write(path) as temporary:
            if kind == "png":
                given[kind].savefig(temporary, dpi=120, format="png")
                continue
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                if kind == "csv":
                    write_csv(file, rows)
                else:
                    file.write(md if kind == "md" else json_text(data, indent=2) + "\n")
    return files


def write_csv(file: TextIO, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows to an open file as CSV, its cells by :func:`csv_cell`."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([csv_cell(value) for value in row] for row in rows)


def csv_cell(value: Any) -> Any:
    """A cell that a spreadsheet shows and does not compute: text that it would take for a formula
    gets an apostrophe before it, as in `'=A1`; numbers stay as they are, `-1` among them. None,
    NaN and infinity are empty."""
    if is_missing(value):
        return ""
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: None, NaN or infinity."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))
