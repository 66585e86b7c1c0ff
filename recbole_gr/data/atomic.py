"""RecBole's atomic files: their typed header, their rows, and what a run needs of them."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

import pandas as pd
from recbole.utils import ModelType

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.config import Config, Settings

TYPES = ("token", "token_seq", "float", "float_seq")


def atomic_path(config: Settings, suffix: str) -> str:
    """Path of the atomic file `<dataset>.<suffix>` (`data_path` ends in its folder)."""
    return os.path.join(config["data_path"], f"{config['dataset']}.{suffix}")


def read_header(path: str, separator: str = "\t", encoding: str = "utf-8") -> dict[str, str]:
    """Columns of an atomic file.

    Args:
        path (str): the file; its first line is `name:type`, separated by `separator`.

    Returns:
        dict[str, str]: type of each column by its name, in the order of the file.

    Raises:
        ConfigError: a column has no type or an unknown one.
    """
    with open(path, encoding=encoding or "utf-8") as file:
        head = file.readline().rstrip("\r\n")
    columns = {}
    for column in head.split(separator):
        name, _, kind = column.rpartition(":")
        if not name or kind not in TYPES:
            raise ConfigError(
                f"{path}: the header has {column!r} where `name:type` is expected, with a type of "
                f"{list(TYPES)}; is field_separator={separator!r} right?"
            )
        columns[name] = kind
    return columns


def read_strings(
    path: str, separator: str = "\t", encoding: str = "utf-8"
) -> tuple[pd.DataFrame, dict[str, str]]:
    """All cells of an atomic file as strings, row i being its i-th data line.

    Quotes have no meaning and empty cells are empty strings.

    Returns:
        tuple[pandas.DataFrame, dict[str, str]]: the cells, and the type of each column.

    Raises:
        ConfigError: a bad header, or a line with too many cells.
    """
    columns = read_header(path, separator, encoding)
    try:
        table = pd.read_csv(
            path,
            sep=separator,
            header=None,
            skiprows=1,
            names=list(columns),
            index_col=False,
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            encoding=encoding or "utf-8",
            engine="c" if len(separator) == 1 else "python",
        )
    except pd.errors.EmptyDataError:
        table = pd.DataFrame({name: pd.Series(dtype=str) for name in columns})
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as an atomic file: {error}") from error
    return table.fillna(""), columns


def check_inter_files(config: Config) -> None:
    """See that the interaction files are there with the fields that the model needs.

    Raises:
        ConfigError: a file is absent (the message names the path expected) or has no usable user,
            item or, for sequential models, time field (the message names the columns found).
    """
    names = config["benchmark_filename"]
    suffixes = ["inter"] if names is None else [f"{name}.inter" for name in names]
    for suffix in suffixes:
        path = atomic_path(config, suffix)
        if not os.path.isfile(path):
            raise ConfigError(
                f"no interactions for the data set {config['dataset']!r}: {path} does not exist; "
                "give its parent folder as data_path"
            )
        _check_fields(config, path, needs_time=names is None)


def _check_fields(config: Config, path: str, needs_time: bool) -> None:
    columns = read_header(path, config["field_separator"], config["encoding"])
    needed = {"USER_ID_FIELD": "token", "ITEM_ID_FIELD": "token"}
    if needs_time and config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        needed["TIME_FIELD"] = "float"
    load = (config["load_col"] or {}).get("inter") if config["load_col"] is not None else None
    unload = (config["unload_col"] or {}).get("inter") or []
    for key, kind in needed.items():
        field = config[key]
        if field not in columns:
            raise ConfigError(
                f"{path} has no column {field!r} ({key}); its columns are {list(columns)}"
            )
        if columns[field] != kind:
            raise ConfigError(
                f"{path}: the column {field!r} ({key}) is of type {columns[field]}, not {kind}"
            )
        if field in unload or (load is not None and load != "*" and field not in load):
            raise ConfigError(
                f"{path} has the column {field!r} ({key}), but load_col={config['load_col']} and "
                f"unload_col={config['unload_col']} leave it out"
            )
