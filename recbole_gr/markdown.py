"""Markdown tables that are readable as text."""

from collections.abc import Sequence


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
