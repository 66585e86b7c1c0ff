"""Atomic files from a reader of raw files, one part after the other."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recbole_gr.convert.cells import float_cell
from recbole_gr.convert.kcore import k_core, without_duplicates
from recbole_gr.convert.raw_lines import BrokenLine
from recbole_gr.errors import ConfigError
from recbole_gr.storage.files import atomic_write

if TYPE_CHECKING:
    from recbole_gr.convert.raw_lines import LineFile
    from recbole_gr.convert.reader import Entities, Reader

_TYPES = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
_ROWS = 100_000  # lines formatted at a time
_NO_TIMES = (
    "no timestamp was given, so nothing says what came first. General models (Pop, ItemKNN, BPR, "
    "LightGCN) and context-aware ones train and are tested on a random split, with "
    "--eval_args=\"{'order': 'RO'}\"; sequential and generative models (SASRec, TIGER, PIT), "
    "tokenize and periods cannot do without times. If the file has them, give their column too: "
    "--columns=...,timestamp:COL"
)
_FAR = 4e9  # Unix seconds that no log has yet, in the year 2096


class _Codes(dict[str, int]):
    """Numbers of tokens in the order in which they appear."""

    def __missing__(self, token: str) -> int:
        self[token] = code = len(self)
        return code


def write_interactions(
    reader: Reader, path: Path, k: int | None = None, duplicates: str = "keep"
) -> dict[str, int]:
    """Write the `.inter` file: repeated interactions removed first, then the k-core taken.

    Lines keep the order of the raw file, which decides among equal times. Held in memory are two
    integer codes and two floats per interaction, and every id once.

    Args:
        reader: of `raw.amazon`, `raw.movielens` or `raw.table`.
        path (pathlib.Path): the file.
        k (int | None): of the k-core; None keeps all.
        duplicates (str): see `kcore.without_duplicates`.

    Returns:
        dict: `lines`, `broken`, `kept`, `users`, `items`.

    Raises:
        ConfigError: nothing is left, or too much is broken.
    """
    users, items = _Codes(), _Codes()
    columns: list[array] = [array("i"), array("i"), array("d"), array("d")]
    file, lines = reader.interactions()
    for n, parse in lines:
        try:
            user_id, item_id, stars, second = parse()
        except BrokenLine as reason:
            file.broken(n, reason)
            continue
        for column, value in zip(columns, (users[user_id], items[item_id], stars, second)):
            column.append(value)
    _report(file)
    user, item, rating, time = (np.frombuffer(c, c.typecode) if c else np.zeros(0) for c in columns)
    if not len(user):
        raise ConfigError(f"{file.name} has no interaction that can be used; is it the right file?")
    times = time if "timestamp" in reader.fields else None
    kept = without_duplicates(user, item, times, duplicates)
    if k:
        kept = kept[k_core(user[kept], item[kept], k)]
    if not len(kept):
        raise ConfigError(
            f"k_core={k} leaves none of the {len(user)} interactions of {file.name}; "
            "take a smaller one"
        )
    user, item, rating, time = user[kept], item[kept], rating[kept], time[kept]
    if "timestamp" in reader.fields:
        _report_times(file.name, float(time.min()), float(time.max()))
    else:
        getLogger().warning("%s: %s", file.name, _NO_TIMES)
    tables = {
        "user_id": (user, np.array(list(users), dtype=object)),
        "item_id": (item, np.array(list(items), dtype=object)),
        "rating": (rating, None),
        "timestamp": (time, None),
    }
    tables = {field: tables[field] for field in reader.fields}
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write("\t".join(f"{field}:{_TYPES[field]}" for field in tables) + "\n")
        for start in range(0, len(kept), _ROWS):
            cells = [
                map(float_cell, values[start : start + _ROWS])
                if names is None
                else names[values[start : start + _ROWS]]
                for values, names in tables.values()
            ]
            out.writelines("\t".join(row) + "\n" for row in zip(*cells))
    return {
        "lines": file.n_lines,
        "broken": file.n_broken,
        "kept": len(kept),
        "users": len(np.unique(user)),
        "items": len(np.unique(item)),
    }


def write_entities(
    lines_of: Callable[[Collection[str]], Entities],
    id_field: str,
    columns: dict[str, str],
    kept: Collection[str],
    path: Path,
) -> dict[str, int]:
    """Write the `.item` or `.user` file of what occurs in the interactions.

    Lines are written as they are read. The first line of an id counts; an id without one gets a
    line of empty cells at the end, as RecBole drops the interactions of items that have no line.

    Args:
        lines_of (Callable): the reader's `items` or `users`.
        id_field (str): `item_id` or `user_id`.
        columns (dict[str, str]): atomic types by field.
        kept (dict): ids of the interactions, in the order for those without a line.
        path (pathlib.Path): the file.

    Returns:
        dict: `lines`, `broken`, `kept`, `empty` (ids without a line of their own), and, where there
        are any, `unread cells`, which are left empty.
    """
    missing = dict.fromkeys(kept)
    file, lines = lines_of(missing)
    head = [f"{id_field}:token", *(f"{name}:{kind}" for name, kind in columns.items())]
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write("\t".join(head) + "\n")
        for n, parse in lines:
            try:
                token, cells = parse()
            except BrokenLine as reason:
                file.broken(n, reason)
                continue
            if token in missing:
                del missing[token]
                out.write("\t".join([token, *(cells.get(name, "") for name in columns)]) + "\n")
        _report(file)
        out.writelines(token + "\t" * len(columns) + "\n" for token in missing)
    if missing:
        getLogger().warning(
            "%d of %d have no line in %s, first %r; their other cells are empty",
            len(missing), len(kept), file.name, next(iter(missing)),
        )  # fmt: skip
    figures = {
        "lines": file.n_lines,
        "broken": file.n_broken,
        "kept": len(kept),
        "empty": len(missing),
    }
    return {**figures, "unread cells": file.unread.total()} if file.unread else figures


def ids_of(path: Path, field: str) -> dict[str, None]:
    """Ids in a column of an `.inter` file, in the order in which they appear; read in pieces."""
    found = {}
    pieces = pd.read_csv(
        path,
        sep="\t",
        usecols=[f"{field}:token"],
        dtype=str,
        keep_default_na=False,
        quoting=3,
        chunksize=1_000_000,
    )
    for piece in pieces:
        found.update(dict.fromkeys(piece[f"{field}:token"].unique()))
    return found


def _report_times(name: str, first: float, last: float) -> None:
    """Say from when to when interactions are, which shows times of another unit."""
    if last > _FAR:
        getLogger().warning(
            "%s: times up to %s seconds since 1970, which is far in the future; if they are "
            "milliseconds, a table takes --date_format=ms (or us, ns)", name, float_cell(last),
        )  # fmt: skip
        return
    days = np.array([first, last]).astype(np.int64).astype("datetime64[s]").astype("datetime64[D]")
    getLogger().info("%s: times from %s to %s", name, *days)


def _report(file: LineFile) -> None:
    if file.n_broken:
        getLogger().warning("%s; skipped", file.summary())
    if file.unread:
        getLogger().warning("%s; left empty", file.summary_of_cells())
