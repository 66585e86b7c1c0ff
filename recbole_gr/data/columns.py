"""Columns of an atomic file as values: rows that can be used, tokens, and sequences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from logging import getLogger
from typing import Any, NoReturn

import numpy as np

from recbole_gr.data.atomic import AtomicTable
from recbole_gr.data.numbers import numbers
from recbole_gr.errors import ConfigError

LONGEST_TOKEN = 4096  # characters; RecBole keeps the tokens of a field as wide as the longest
PADDING = "[PAD]"


def rows_with(path: str, table: AtomicTable, names: Collection[str], most: float) -> AtomicTable:
    """The rows of a file that have a value in every one of some columns; says how many have not.

    Args:
        path (str): the file, for messages.
        table (AtomicTable): its cells.
        names (Collection[str]): columns that must not be empty.
        most (float): share of the rows that may be left out.

    Raises:
        ConfigError: more are left out, or all; names the first line and the remedy.
    """
    missing = np.zeros(len(table.cells), dtype=bool)
    for name in names:
        missing |= (table.cells[name] == "").to_numpy()
    n_missing = int(missing.sum())
    if not n_missing:
        return table
    first = table.lines[int(np.flatnonzero(missing)[0])]
    what = f"{path}: {n_missing} of {len(missing)} rows have no {' or no '.join(names)}, first in"
    if n_missing == len(missing):
        raise ConfigError(f"{what} line {first}; there is nothing left to learn from")
    if n_missing > most * len(missing):
        raise ConfigError(
            f"{what} line {first}. They cannot be used, and are more than max_missing={most:g} of "
            "the rows; fill the cells in, or leave those rows out by a higher --max_missing"
        )
    getLogger().warning("%s line %d; they are left out", what, first)
    cells = table.cells[~missing].reset_index(drop=True)
    return AtomicTable(cells, table.types, table.lines[~missing])


def tokens(cells: np.ndarray, lines: np.ndarray, where: str) -> np.ndarray:
    """Tokens of a column, NaN where a cell is empty, which is what RecBole takes for missing.

    Args:
        cells (numpy.ndarray): [n] strings.
        lines (numpy.ndarray): [n] their lines.
        where (str): file and column, for messages.

    Raises:
        ConfigError: a token that RecBole could not tell from padding, or could not hold.
    """
    lengths = np.fromiter(map(len, cells), dtype=np.int64, count=len(cells))
    if len(cells) and lengths.max() > LONGEST_TOKEN:
        _refuse_length(where, lines[int(lengths.argmax())], cells[int(lengths.argmax())])
    if (cells == PADDING).any():
        _refuse_padding(where, lines[int(np.flatnonzero(cells == PADDING)[0])])
    return np.where(cells == "", np.nan, cells)


def sequences(
    cells: Sequence[str] | np.ndarray,
    lines: np.ndarray,
    where: str,
    separator: str,
    of_numbers: bool,
    kept: slice,
) -> list[np.ndarray]:
    """Entries of each cell of a sequence column.

    Args:
        cells, lines, where: as for :func:`tokens`.
        separator (str): between the entries of a cell.
        of_numbers (bool): whether they are numbers; otherwise tokens.
        kept (slice): part of each sequence to keep.

    Raises:
        ConfigError: as of :func:`tokens`, or an entry that is no finite number.
    """
    split = [[entry for entry in cell.split(separator) if entry][kept] for cell in cells]
    if of_numbers:
        counts = [len(entries) for entries in split]
        flat = [entry for entries in split for entry in entries]
        return np.split(numbers(flat, np.repeat(lines, counts), where), np.cumsum(counts)[:-1])
    arrays = []
    for line, entries in zip(lines, split):
        longest = max(entries, key=len, default="")
        if len(longest) > LONGEST_TOKEN:
            _refuse_length(where, line, longest)
        if PADDING in entries:
            _refuse_padding(where, line)
        array = np.empty(len(entries), dtype=object)
        array[:] = entries
        arrays.append(array)
    return arrays


def check_histories(path: str, lists: Mapping[str, Any], own: str, lines: np.ndarray) -> None:
    """See that the lists of a sample, what a user has taken and when, have one length, not 0.

    Args:
        path (str): the file.
        lists (dict): [n] sequences by column.
        own (str): the column of items among them.
        lines (numpy.ndarray): [n] lines.

    Raises:
        ConfigError: names the first line that is not so.
    """
    lengths = {name: np.array([len(entries) for entries in lists[name]]) for name in lists}
    empty = np.flatnonzero(lengths[own] == 0)
    if len(empty):
        raise ConfigError(
            f"{path}, line {lines[empty[0]]}: the history {own!r} is empty ({len(empty)} such "
            "lines); leave out samples without a history"
        )
    for name, length in lengths.items():
        other = np.flatnonzero(length != lengths[own])
        if len(other):
            raise ConfigError(
                f"{path}, line {lines[other[0]]}: {length[other[0]]} entries of {name!r} and "
                f"{lengths[own][other[0]]} of {own!r}; both are about the same history"
            )


def _refuse_length(where: str, line: int, token: str) -> NoReturn:
    raise ConfigError(
        f"{where}, line {line}: a token of {len(token)} characters, {token[:40]!r}...; at most "
        f"{LONGEST_TOKEN} are read. Shorten it, or leave the column out of load_col"
    )


def _refuse_padding(where: str, line: int) -> NoReturn:
    raise ConfigError(
        f"{where}, line {line}: {PADDING!r} is RecBole's name of the padding; give it another"
    )
