"""The common parts of SID files: names of levels, rows of items, text inside arrays."""

from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from recbole_gr.errors import ConfigError


def level_name(level: int) -> str:
    """Letters that mark ``level`` (from 0) in SID tokens: a, b, ..., z, aa, ab, ..."""
    name = ""
    level += 1
    while level:
        level, digit = divmod(level - 1, 26)
        name = chr(ord("a") + digit) + name
    return name


def tokens_without_padding(item_tokens: Sequence[str], n_items: int) -> list[str]:
    """The tokens of items 1, 2, ... as strings; ConfigError unless there are ``n_items``."""
    tokens = [str(token) for token in item_tokens]
    if len(tokens) != n_items:
        raise ConfigError(
            f"the SID table has {n_items} rows (padding included) but {len(tokens)} item tokens "
            f"were given"
        )
    return tokens[1:]


def rows_of(
    path: str | Path, row_tokens: Sequence[str] | None, n_rows: int, item_tokens: Sequence[str]
) -> torch.Tensor:
    """File row of each item, LongTensor ``[n_items - 1]``.

    Args:
        path: the file, for messages.
        row_tokens: item token of each row; None if the rows are items 1, 2, ... in turn.
        n_rows: rows of the file.
        item_tokens: item tokens by internal id (entry 0 is the padding token).

    Raises:
        ConfigError: items without a row (how many, which first), or a wrong number of rows.
    """
    items = [str(token) for token in item_tokens][1:]
    if row_tokens is None:
        if n_rows != len(items):
            raise ConfigError(
                f"SID file {path} has {n_rows} rows for {len(items)} items and no item tokens; "
                f"make it again for this data set or use the JSON format"
            )
        return torch.arange(n_rows)
    if len(row_tokens) != n_rows:
        raise ConfigError(
            f"SID file {path} has {n_rows} rows but the item file lists {len(row_tokens)} items; "
            f"they must correspond line by line"
        )
    row_of = dict(zip(map(str, row_tokens), range(n_rows)))
    rows = np.fromiter(map(row_of.get, items, repeat(-1)), dtype=np.int64, count=len(items))
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise ConfigError(
            f"SID file {path} does not cover {len(missing)} of {len(items)} items, first "
            f"'{items[missing[0]]}'; make SIDs for them or remove them from the data set"
        )
    return torch.from_numpy(rows)


def text_array(text: str) -> np.ndarray:
    """Text as an array of bytes, which numpy saves without pickle."""
    return np.frombuffer(text.encode(), dtype=np.uint8)


def text(array: np.ndarray) -> str:
    """The text of :func:`text_array`."""
    return array.tobytes().decode()
