"""Tables for people: markdown that is readable as text, and CSV for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one if a cell begins so


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


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return text.getvalue()


def csv_cell(value: Any) -> Any:
    """A cell that a spreadsheet shows and does not compute: text that it would take for a formula
    gets an apostrophe before it, as in `'=A1`; numbers stay as they are, `-1` among them."""
    if value is None:
        return ""
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
