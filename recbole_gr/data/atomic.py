"""RecBole's atomic files: their typed header and their cells, read strictly.

RecBole reads them with pandas, which shifts all columns by one where a line has a cell too many,
takes ids such as `NA` for missing values and gives quotes a meaning. Here a cell is what stands
between two separators: nothing is guessed, only an empty cell is missing, and a line of another
form is an error that names it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.config import Settings

TYPES = ("token", "token_seq", "float", "float_seq")
SEPARATORS = ("\t", ",", ";", "|", " ")  # that files are written with, for the hint
CHUNK = 1 << 22  # characters of a file that are split at once
_MARKS = {  # at the beginning of a file, the longer ones first
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip


class AtomicTable(NamedTuple):
    """Cells of an atomic file.

    Attributes:
        cells (pandas.DataFrame): strings, row i for the i-th data line; empty ones are missing.
        types (dict[str, str]): type of every column of the file, in its order.
        lines (numpy.ndarray): [n] number of each row's line in the file, from 1.
    """

    cells: pd.DataFrame
    types: dict[str, str]
    lines: np.ndarray


def atomic_path(config: Settings, suffix: str) -> str:
    """Path of the atomic file `<dataset>.<suffix>` (`data_path` ends in its folder)."""
    return os.path.join(config["data_path"], f"{config['dataset']}.{suffix}")


def read_header(
    path: str, separator: str | None = "\t", encoding: str | None = "utf-8"
) -> dict[str, str]:
    """Columns of an atomic file.

    Args:
        path (str): the file; its first line is `name:type`, separated by `separator`.
        separator (str | None): `field_separator`; None is a tab.
        encoding (str | None): of the text; None is UTF-8, and a byte order mark is read away.

    Returns:
        dict[str, str]: type of each column by its name, in the order of the file.

    Raises:
        ConfigError: the file is empty or in another encoding, a column has no type or an unknown
            one, or two have the same name.
    """
    separator = separator or "\t"
    head = next(_lines(path, encoding), ([], 1))[0]
    return _columns(path, head[0] if head else "", separator)


def read_table(
    path: str,
    separator: str | None = "\t",
    encoding: str | None = "utf-8",
    columns: Collection[str] | None = None,
) -> AtomicTable:
    """Cells of an atomic file, exactly as they stand there.

    Quotes have no meaning, blank lines are left out, and one empty cell after the last column is
    ignored, as exports end their lines with a separator.

    Args:
        path, separator, encoding: as for `read_header`.
        columns (Collection[str] | None): those to keep; None keeps all.

    Raises:
        ConfigError: a bad header, bytes that are not of the encoding, or a line with more or fewer
            cells than the header; names the file and the line.
    """
    separator = separator or "\t"
    chunks = _lines(path, encoding)
    first, _ = next(chunks, ([], 1))
    types = _columns(path, first[0] if first else "", separator)
    kept = [name for name in types if columns is None or name in columns]
    places = [list(types).index(name) for name in kept]
    parts: dict[str, list[str]] = {name: [] for name in kept}
    # The same id is one string, however often it stands in the file.
    known: dict[str, dict[str, str]] = {name: {} for name in kept if types[name] == "token"}
    numbers: list[np.ndarray] = []
    for lines, start in _rest_of(first, chunks):
        whole, line_numbers = _whole_lines(path, lines, start, separator, types)
        numbers.append(line_numbers)
        # One list of all cells: a list for each line would keep Python's garbage collector busy.
        cells = separator.join(whole).split(separator) if whole else []
        for name, place in zip(kept, places):
            values: Iterable[str] = cells[place :: len(types)]
            if name in known:
                values = map(known[name].setdefault, values, values)
            parts[name].extend(values)
    line_of = np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64)
    columns_of = {name: np.array(values, dtype=object) for name, values in parts.items()}
    table = pd.DataFrame(columns_of, index=pd.RangeIndex(len(line_of)))
    return AtomicTable(table, types, line_of)


def _whole_lines(
    path: str, lines: list[str], start: int, separator: str, types: dict[str, str]
) -> tuple[list[str], np.ndarray]:
    """The lines that are not blank, without an empty last cell, and their numbers."""
    number = np.arange(start, start + len(lines))
    nul = next((i for i, line in enumerate(lines) if "\0" in line), None)
    if nul is not None:
        raise ConfigError(f"{path}, line {start + nul}: a NUL byte; is this a text file?")
    n_separators = [line.count(separator) for line in lines]
    if set(n_separators) == {len(types) - 1} and "" not in lines:
        return lines, number
    kept = [i for i, line in enumerate(lines) if line]
    whole = []
    for i in kept:
        line, n_cells = lines[i], n_separators[i] + 1
        if n_cells == len(types) + 1 and line.endswith(separator):
            line, n_cells = line.removesuffix(separator), n_cells - 1
        if n_cells != len(types):
            raise ConfigError(
                f"{path}, line {start + i}: {n_cells} cells where the header has {len(types)} "
                f"columns ({', '.join(types)}); the line is {_shown(line)}. Cells are separated "
                f"by field_separator={separator!r}"
            )
        whole.append(line)
    return whole, number[kept]


def _rest_of(
    first: list[str], chunks: Iterable[tuple[list[str], int]]
) -> Iterator[tuple[list[str], int]]:
    if len(first) > 1:
        yield first[1:], 2
    yield from chunks


def _lines(path: str, encoding: str | None) -> Iterator[tuple[list[str], int]]:
    """Chunks of lines without their ends, with the number of their first line."""
    if encoding is None or encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"  # reads away a byte order mark
    start = 1
    try:
        if encoding == "utf-8-sig":
            _check_width(path)
        with open(path, encoding=encoding) as file:
            while lines := file.readlines(CHUNK):
                yield [line.rstrip("\n") for line in lines], start
                start += len(lines)
    except UnicodeError as error:
        _refuse_encoding(path, encoding, error)
    except LookupError as error:
        raise ConfigError(f"encoding: {encoding!r} is unknown; take utf-8, for example") from error


def _check_width(path: str) -> None:
    """Refuse a file whose characters take two or four bytes, with or without a byte order mark."""
    with open(path, "rb") as raw:
        head = raw.read(64)
    name = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if name is None and len(head) > 7 and not any(head[1:8:2]) and all(head[:8:2]):
        name = "utf-16-le"  # a header is mostly ASCII, of which one byte of two is zero
    elif name is None and len(head) > 7 and not any(head[:8:2]) and all(head[1:8:2]):
        name = "utf-16-be"
    if name is not None:
        kind = name[:6].upper()
        raise ConfigError(f"{path} is a {kind} file; give --encoding={name}, or save it as UTF-8")


def _refuse_encoding(path: str, encoding: str, error: UnicodeError) -> NoReturn:
    """Name the first line that is not of the encoding."""
    place = ""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeError:
                place = f", line {number}: {_shown(line.rstrip())}"
                break
    name = encoding.removesuffix("-sig")
    raise ConfigError(
        f"{path}{place} is not {name} text ({getattr(error, 'reason', error)}); give the encoding "
        "it is written in, such as --encoding=gbk or --encoding=latin-1, or save it as UTF-8"
    ) from error


def _columns(path: str, head: str, separator: str) -> dict[str, str]:
    if not head:
        raise ConfigError(f"{path} has no header: its first line must name columns as `name:type`")
    columns: dict[str, str] = {}
    cells = head.split(separator)
    if len(cells) > 1 and not cells[-1]:
        cells.pop()  # lines that end in a separator
    for cell in cells:
        name, _, kind = cell.rpartition(":")
        if not name or kind not in TYPES or ":" in name:
            raise ConfigError(
                f"{path}: the header has {_shown(cell)} where `name:type` is expected, with a type "
                f"of {list(TYPES)}{_separator_hint(head, separator)}"
            )
        if name in columns:
            raise ConfigError(f"{path}: the header has two columns {name!r}; rename or remove one")
        columns[name] = kind
    return columns


def _separator_hint(head: str, separator: str) -> str:
    for other in SEPARATORS:
        parts = [part.rpartition(":") for part in head.rstrip(other).split(other)]
        typed = all(n and ":" not in n and kind in TYPES for n, _, kind in parts)
        if other != separator and len(parts) > 1 and typed:
            return f"; the file is separated by {other!r}: give field_separator={other!r}"
    return f"; is field_separator={separator!r} right?"


def _shown(text: str | bytes) -> str:
    """The beginning of a text, for a message."""
    return repr(text if len(text) <= 80 else text[:77]) + ("" if len(text) <= 80 else "...")
