"""Numbers of atomic files, and the order of times in the precision in which they are written."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pandas as pd

from recbole_gr.errors import ConfigError

LARGEST = float(np.finfo(np.float32).max)  # of what models read
EXACT_DIGITS = 15  # two different decimals of so few digits are two different float64


def numbers(cells: Sequence[str] | np.ndarray, lines: np.ndarray, where: str) -> np.ndarray:
    """Finite numbers of a float column.

    Args:
        cells (Sequence[str]): [n] as they stand in the file.
        lines (numpy.ndarray): [n] their lines.
        where (str): the file and the column, for the message.

    Returns:
        numpy.ndarray: [n] float64, NaN where a cell is empty.

    Raises:
        ConfigError: a cell is neither empty nor a finite number; names line and cell.
    """
    try:
        values = np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    except ValueError:
        values = np.array([_number(cell) for cell in cells], dtype=np.float64)
    missing = np.array([not cell for cell in cells], dtype=bool)
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(values) <= LARGEST) & ~missing
    bad |= np.array(["_" in cell for cell in cells], dtype=bool)  # 1_000 is a number to Python
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ConfigError(
            f"{where}, line {lines[first]}: {cells[first][:80]!r} is no number ({int(bad.sum())} "
            "such cells). A float cell holds a finite number such as 4.5 or 1693526400, dates as "
            "seconds since 1970; leave it empty where there is none"
        )
    return values


def _number(cell: str) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        return np.nan


def ranks(cells: Sequence[str] | np.ndarray, values: np.ndarray) -> np.ndarray:
    """Places of numbers in ascending order, equal ones sharing a place, compared as written.

    float64 tells apart about 16 digits, so microseconds since 1970 and not nanoseconds. Where
    texts of different numbers fall on one float64, they are compared digit by digit.

    Args:
        cells (Sequence[str]): [n] the numbers as text.
        values (numpy.ndarray): [n] the same as finite float64.

    Returns:
        numpy.ndarray: [n] int64 from 0.
    """
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    place = np.unique(values, return_inverse=True)[1].ravel().astype(np.int64)
    plain = not any("e" in cell or "E" in cell for cell in cells)  # 1e-400 is 0 to float64
    if plain and max(map(len, cells)) <= EXACT_DIGITS:
        return place
    text_of, texts = pd.factorize(np.asarray(cells, dtype=object))
    place_of_text = np.zeros(len(texts), dtype=np.int64)
    place_of_text[text_of] = place
    shared = np.flatnonzero(pd.Series(place_of_text).duplicated(keep=False).to_numpy())
    within = np.zeros(len(texts), dtype=np.int64)
    if len(shared):
        exact = [Decimal(texts[i].strip()) for i in shared]
        order = {number: i for i, number in enumerate(sorted(set(exact)))}
        within[shared] = [order[number] for number in exact]
    both = pd.MultiIndex.from_arrays([place_of_text, within])
    return both.factorize(sort=True)[0].astype(np.int64)[text_of]
