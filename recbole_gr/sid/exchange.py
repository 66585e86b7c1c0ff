"""SID files of other programs: JSON of tokens by item, and arrays of codes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_gr.errors import ConfigError
from recbole_gr.sid.formats import level_name, rows_of, tokens_without_padding
from recbole_gr.sid.table import SIDTable, check_codebooks, named
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.json_files import load_json
from recbole_gr.untrusted.archives import load_npy

_LARGE = 10**18
_TOKEN = re.compile(r"<([A-Za-z]+)_(-?[0-9]{1,18})>")


def write_json(table: SIDTable, path: str | Path, item_tokens: Sequence[str]) -> None:
    """Write ``{"item": ["<a_12>", "<b_7>", ...]}``, as LC-Rec, LETTER and MiniOneRec do."""
    tokens = tokens_without_padding(item_tokens, table.n_items)
    columns = []
    for level, size in enumerate(table.sizes):
        words = [f"<{level_name(level)}_{code}>" for code in range(size)]
        columns.append(map(words.__getitem__, table.codes[1:, level].tolist()))
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(dict(zip(tokens, zip(*columns))), file)


def read_json(
    path: str | Path, item_tokens: Sequence[str], sizes: Sequence[int] | None = None
) -> SIDTable:
    """Read ``{"item": ["<a_12>", "<b_7>", ...]}``; plain integers are accepted as codes too.

    Args:
        path: JSON file; keys are external item tokens.
        item_tokens: item tokens by internal id (entry 0 is the padding token).
        sizes: codebook sizes; by default the largest code of each level plus one.

    Raises:
        ConfigError: not such a file, SIDs of different lengths, malformed or negative
            codes, codes outside ``sizes``, or items without a SID.
    """
    sids = load_json(path, f"sid_file {path}")
    if not isinstance(sids, dict) or not sids:
        raise ConfigError(f'sid_file {path} must hold {{"item": ["<a_1>", "<b_2>"], ...}}')
    codes = _parse_sids(path, sids)
    rows = rows_of(path, list(sids), len(sids), item_tokens)
    sizes = _sizes(path, codes, sizes)
    meta = {"source": Path(path).name}
    return named(path, lambda: SIDTable.from_item_codes(codes[rows], sizes, meta))


def write_npy(
    table: SIDTable,
    path: str | Path,
    row_tokens: Sequence[str] | None = None,
    item_tokens: Sequence[str] = (),
) -> None:
    """Write the codes as an int32 array ``[N, L]``.

    Args:
        path: ``.npy`` file to write.
        row_tokens: item token of each row, such as the lines of an ``.item`` file; rows of
            items outside the table hold -1. None: row ``i`` is internal item id ``i + 1``.
        item_tokens: item tokens by internal id; needed with ``row_tokens``.
    """
    codes = table.codes.cpu().numpy().astype(np.int32)
    if row_tokens is None:
        codes = codes[1:]
    else:
        tokens = tokens_without_padding(item_tokens, table.n_items)
        id_of = dict(zip(tokens, range(1, table.n_items)))
        codes = codes[[id_of.get(str(token), 0) for token in row_tokens]]
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.save(file, codes, allow_pickle=False)


def read_npy(
    path: str | Path,
    row_tokens: Sequence[str] | None,
    item_tokens: Sequence[str],
    sizes: Sequence[int] | None = None,
) -> SIDTable:
    """Read integer codes ``[N, L]``.

    Args:
        path: ``.npy`` file.
        row_tokens: item token of each row; None if row ``i`` is internal item id ``i + 1``.
        item_tokens: item tokens by internal id (entry 0 is the padding token).
        sizes: codebook sizes; by default the largest code of each level plus one.

    Raises:
        ConfigError: not such a file, wrong number of rows, negative codes, codes outside
            ``sizes``, or items without a row.
    """
    try:
        array = load_npy(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"sid_file {path} cannot be read as .npy: {error}") from error
    if array.ndim != 2 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ConfigError(
            f"sid_file {path} must hold integers of shape [items, levels]; "
            f"it holds {array.dtype} of shape {list(array.shape)}"
        )
    codes = torch.from_numpy(array.astype(np.int64))
    sizes = _sizes(path, codes, sizes)
    codes = codes[rows_of(path, row_tokens, len(codes), item_tokens)]
    meta = {"source": Path(path).name}
    return named(path, lambda: SIDTable.from_item_codes(codes, sizes, meta))


def _sizes(path: str | Path, codes: torch.Tensor, sizes: Sequence[int] | None) -> list[int]:
    """The codebook sizes given, or those that the codes of a file ask for; checked."""
    found = list(sizes) if sizes else [code + 1 for code in codes.amax(0).clamp(min=0).tolist()]
    named(path, lambda: check_codebooks(found, len(codes)))
    return found


def _parse_sids(path: str | Path, sids: Mapping[str, Any]) -> torch.Tensor:
    """Codes ``[N, L]`` of the values of a SID JSON; each distinct token is parsed once."""
    lengths: dict[int, str] = {}
    for item, sid in sids.items():
        if not isinstance(sid, list) or not sid:
            raise ConfigError(f"SID file {path}: the SID of item '{item}' is not a list of codes")
        lengths.setdefault(len(sid), item)
    if len(lengths) > 1:
        (first, item), (second, other) = list(lengths.items())[:2]
        raise ConfigError(
            f"SID file {path} has SIDs of different lengths: {first} codes for item '{item}', "
            f"{second} for item '{other}'; all items need the same number of levels"
        )
    flat = list(chain.from_iterable(sids.values()))
    n_levels = next(iter(lengths))
    codes = np.empty((len(sids), n_levels), dtype=np.int64)
    for level in range(n_levels):
        words = flat[level::n_levels]
        parsed: dict[Any, int] = {}
        prefixes: dict[str, Any] = {}
        for word in _distinct(path, words):
            match = _TOKEN.fullmatch(word) if isinstance(word, str) else None
            whole = type(word) is int and abs(word) < _LARGE
            if match is None and not whole:
                raise ConfigError(
                    f"SID file {path}: {word!r} at level {level + 1} is no code; expected "
                    f"'<{level_name(level)}_12>'"
                )
            parsed[word] = int(match[2]) if match else word
            prefixes.setdefault(match[1] if match else "", word)
        if len(prefixes) > 1:
            raise ConfigError(
                f"SID file {path} mixes codes of different levels at level {level + 1}: "
                f"{', '.join(map(str, sorted(map(str, prefixes.values()))))}"
            )
        codes[:, level] = np.fromiter(map(parsed.__getitem__, words), np.int64, count=len(words))
    return torch.from_numpy(codes)


def _distinct(path: str | Path, words: Sequence[Any]) -> set[Any]:
    # By type first: a set takes 1, 1.0 and True for one and the same, and no lists.
    odd = set(map(type, words)) - {str, int}
    if odd & {list, dict}:
        raise ConfigError(f"SID file {path}: a code must be a token or an integer")
    return {word for word in words if type(word) in odd} or set(words)
