"""The dialect of a table: its encoding, and the separator of its cells."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Collection
from itertools import islice

from recbole_gr.convert.raw_lines import LineFile
from recbole_gr.errors import ConfigError
from recbole_gr.storage.text_files import is_utf16

NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
DELIMITERS = ("\t", ",", ";", "|")  # that are recognised
_SAMPLE = 200  # lines that the delimiter is recognised by


def check_delimiter(given: str) -> str:
    """`--delimiter` as one character.

    Raises:
        ConfigError: it is none, nor one of the names for it.
    """
    mark = NAMES.get(given.lower(), given)
    if len(mark) != 1 or mark in '"\r\n':
        raise ConfigError(
            f"--delimiter={given}: it must be one character between cells, or one of "
            f"{[name for name in NAMES if name.isalpha()]}"
        )
    return mark


def check_encoding(given: str) -> None:
    """See that Python knows an encoding of text by this name.

    Raises:
        ConfigError: it does not.
    """
    try:
        "a".encode(given)
    except (LookupError, UnicodeError, ValueError) as error:
        raise ConfigError(
            f"--encoding={given} is unknown; it is a name that Python has for an encoding, such as "
            "utf-8, cp1252 (Western Europe), cp1250, cp1251, latin-1, utf-16, gbk or shift_jis"
        ) from error


def wide_encoding(beginning: bytes) -> str | None:
    """UTF-16 or UTF-32, where a file begins so; None for all others, which are taken for UTF-8."""
    if beginning[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if beginning[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if not is_utf16(beginning):
        return None
    kind = "utf-32" if beginning[:4].count(0) > 2 else "utf-16"
    return kind + ("-be" if beginning[:1] == b"\0" else "-le")


def delimiter_of(file: LineFile, wanted: Collection[str]) -> str:
    """What separates the cells of a table: that by which its header has the columns wanted.

    Args:
        file (LineFile): to be read from its beginning; not to be read on.
        wanted (Collection[str]): names of columns.

    Raises:
        ConfigError: more than one could be it.
    """
    lines = file.lines()
    texts = [text for _, text in islice(lines, _SAMPLE)]
    lines.close()
    widths: dict[str, list[int]] = {}
    fitting = []
    for mark in DELIMITERS:
        rows = _rows(texts, mark)
        header = [cell.strip() for cell in rows[0]] if rows else []
        widths[mark] = [len(row) for row in rows]
        if len(header) > 1 and set(wanted) <= set(header):
            fitting.append(mark)
    if not fitting:  # what is missing is said where columns are looked up
        return max(DELIMITERS, key=lambda mark: (widths[mark][:1], mark == ","))
    even = [mark for mark in fitting if Counter(widths[mark]).most_common(1)[0][0] > 1]
    even = [m for m in even if widths[m].count(widths[m][0]) > len(widths[m]) / 2] or fitting
    if len(even) > 1:
        raise ConfigError(
            f"{file.name}: its cells may be separated by {' or '.join(map(repr, even))}; say which "
            f"by --delimiter, as in --delimiter={_name(even[0])}"
        )
    return even[0]


def _rows(texts: list[str], mark: str) -> list[list[str]]:
    rows = []
    reader = csv.reader((text + "\n" for text in texts), delimiter=mark)
    while True:
        try:
            rows.append(next(reader))
        except StopIteration:
            return [row for row in rows if row]
        except csv.Error:
            continue


def _name(mark: str) -> str:
    return next((name for name, value in NAMES.items() if value == mark), mark)
