"""SIDs as fields of a data set's `.item` file, in a new folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from recbole_gr.data.item_file import ItemFile
from recbole_gr.errors import ConfigError
from recbole_gr.sid.table import sid_keys
from recbole_gr.storage.files import atomic_write

if TYPE_CHECKING:
    from recbole_gr.config import Config
    from recbole_gr.sid.table import SIDTable

FIELD = "sid_{}"  # the prefix of so many levels
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio (Knuth, 6.4)


def prefix_tokens(table: SIDTable, hash_size: int | None = None) -> list[list[str]]:
    """One token per item and prefix length; the suffix of a collision policy is no level.

    The prefix 12, 7 is the token `12-7`; with `hash_size` it is one of as many numbers, on which
    several prefixes may fall.

    Args:
        table (SIDTable): of the items.
        hash_size (int | None): tokens per field at most.

    Returns:
        list[list[str]]: per prefix length the tokens of items 1, 2, ...

    Raises:
        ConfigError: `hash_size` is no positive integer.
    """
    if hash_size is not None and (type(hash_size) is not int or hash_size < 1):
        raise ConfigError(f"hash_size: {hash_size!r} must be a positive integer")
    levels = table.content_levels
    codes, columns = table.codes[1:].cpu(), []
    for depth in range(1, levels + 1):
        if hash_size is None:
            rows = codes[:, :depth].tolist()
            columns.append(["-".join(map(str, row)) for row in rows])
        else:
            keys = sid_keys(codes[:, :depth], table.sizes[:depth]).numpy().astype(np.uint64)
            mixed = (keys + np.uint64(depth)) * _MULTIPLIER >> np.uint64(32)
            columns.append((mixed % np.uint64(hash_size)).astype(str).tolist())
    return columns


def write_sid_dataset(
    config: Config,
    table: SIDTable,
    item_tokens: Sequence[str],
    folder: str | Path,
    hash_size: int | None = None,
) -> dict[str, Any]:
    """Write a copy of a data set whose `.item` file has the fields `sid_1`, `sid_2`, ...

    The data set it comes from is not touched. Items without a line in its `.item` file get one with
    empty cells for its fields; a data set without such a file gets one of ids and SIDs.

    Args:
        config (Config): of a context-aware model on the data set it comes from.
        table (SIDTable): of its items.
        item_tokens (list[str]): by internal id, "[PAD]" first.
        folder (str | os.PathLike): parent of the new data set, made if missing.
        hash_size (int | None): see `prefix_tokens`.

    Returns:
        dict: `dataset` (name), `folder` (to give as `data_path`), `fields` (names), `files`, and
        `settings` for a run on it (`load_col` and, where there is one, `threshold`), which are also
        written as `<dataset>.yaml`.

    Raises:
        ConfigError: the new folder is that of the data set itself, or the `.item` file has such
            fields already.
    """
    source, name = Path(config["data_path"]), f"{config['dataset']}-sid"
    target = Path(folder) / name
    if target.resolve() == source.resolve():
        raise ConfigError(f"output: {target} is the data set itself; give another folder")
    columns = prefix_tokens(table, hash_size)
    fields = [FIELD.format(depth) for depth in range(1, len(columns) + 1)]
    files = [_write_items(config, fields, columns, item_tokens, target / f"{name}.item")]
    for path in sorted(source.glob(f"{config['dataset']}.*")):
        rest = path.name[len(config["dataset"]) :]
        if rest.split(".")[-1] in ("inter", "user", "kg", "link", "net"):
            files.append(target / f"{name}{rest}")
            with atomic_write(files[-1]) as temporary:
                shutil.copyfile(path, temporary)
    load_col = {source: list(names) for source, names in (config["load_col"] or {}).items()}
    load_col["item"] = [*load_col.get("item", [config["ITEM_ID_FIELD"]]), *fields]
    settings = {"load_col": load_col}
    if config["threshold"]:
        settings["threshold"] = dict(config["threshold"])
    files.append(target / f"{name}.yaml")
    with atomic_write(files[-1]) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return {
        "dataset": name,
        "folder": str(folder),
        "fields": fields,
        "files": files,
        "settings": settings,
    }


def _write_items(
    config: Config,
    fields: list[str],
    columns: list[list[str]],
    item_tokens: Sequence[str],
    path: Path,
) -> Path:
    separator, id_field = config["field_separator"] or "\t", config["ITEM_ID_FIELD"]
    rows = [dict(zip(fields, row)) for row in zip(*columns)]
    sid_of = dict(zip(map(str, item_tokens[1:]), rows))
    if os.path.isfile(os.path.join(config["data_path"], f"{config['dataset']}.item")):
        file = ItemFile(config)
        known, types = file.cells, file.columns
        taken = sorted(set(fields) & set(types))
        if taken:
            raise ConfigError(f"{file.path} already has the fields {taken}; SIDs would repeat them")
    else:
        known, types = {id_field: []}, {id_field: "token"}
    listed = set(known[id_field])
    missing = [token for token in sid_of if token not in listed]
    if missing:
        getLogger().warning(
            "%d items have no line in the .item file, first %r; their other fields are empty",
            len(missing),
            missing[0],
        )
    head = {**types, **dict.fromkeys(fields, "token")}
    lines = [separator.join(f"{name}:{kind}" for name, kind in head.items())]
    cells = zip(*(known[name] for name in types))
    empty = [[token if n == id_field else "" for n in types] for token in missing]
    place = list(types).index(id_field)
    for row in [*cells, *empty]:
        sid = sid_of.get(row[place], {})
        lines.append(separator.join([*row, *(sid.get(field, "") for field in fields)]))
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding=config["encoding"] or "utf-8")
    return path
