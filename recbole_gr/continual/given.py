"""What a run over periods is given in place of what it would learn: SIDs, tokenizers, content."""

from __future__ import annotations

import os
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_gr.config.user_settings import option
from recbole_gr.data.content import ItemContent, content_source, item_content
from recbole_gr.data.vector_files import vectors_of_file
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.sids import item_file_tokens, read_sid_file
from recbole_gr.sid.exchange import read_npy
from recbole_gr.sid.suffix import add_suffix
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.hashes import digest_of
from recbole_gr.terminal.log import say
from recbole_gr.untrusted.archives import load_npy

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset

FILES = "files"
#: Keys whose files may lie beside the data, and are then given by their names alone.
LISTS = ("continual_cf_files", "continual_sid_files")
STARTS = ("continual_start_sids", "continual_start_tokenizer")


def beside_data(config: dict[str, Any]) -> None:
    """Find files that are given by their names where the data set lies; in place."""

    def found(path: str) -> str:
        beside = os.path.join(config["data_path"], path)
        return beside if not os.path.isfile(path) and os.path.isfile(beside) else path

    for key in LISTS:
        given = config[key]
        if isinstance(given, Mapping):
            config[key] = {name: [found(path) for path in paths] for name, paths in given.items()}
        elif given:
            config[key] = [found(path) for path in given]
    for key in STARTS:
        if config[key]:
            config[key] = found(config[key])


def sid_files(config: Config) -> dict[str, list[str]]:
    """The files of SIDs of each period by the name of their chain: ``files`` where the key
    ``continual_sid_files`` holds a list."""
    given = config["continual_sid_files"] or {}
    return dict(given) if isinstance(given, Mapping) else {FILES: given}


def check_names(given: Any) -> None:
    """See that a mapping of ``continual_sid_files`` holds lists of files by names.

    Raises:
        ConfigError: names the entry.
    """
    for name, paths in given.items() if isinstance(given, Mapping) else ():
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name)):
            raise ConfigError(f"continual_sid_files: the name {name!r} must be a word")
        files = isinstance(paths, list) and all(isinstance(path, str) for path in paths)
        if not files or len(paths) < 2:
            raise ConfigError(
                f"continual_sid_files: '{name}' must be a list of files, one for each period and "
                "two at least"
            )


def given_table(config: Mapping[str, Any], path: str, item_tokens: Sequence[str]) -> SIDTable:
    """SIDs of the items so far from a file, as :func:`~recbole_gr.pipeline.sids.read_sid_file`
    reads it with the policy suffix; unique.

    A ``.npy`` file with fewer rows than ``.item`` has lines holds those of its first lines, as the
    files of DACT's authors do.

    Args:
        config: of the continual run.
        path: of the file.
        item_tokens: names by item id, padding first.

    Raises:
        ConfigError: missing or malformed file, or items without SIDs.
    """
    numbering = option(config, "suffix_numbering")
    own = {"sid_file": path, "collision": "suffix", "suffix_numbering": numbering}
    given = ChainMap({**own, "suffix_size": None}, config)  # type: ignore[arg-type]
    if not path.endswith(".npy") or not os.path.isfile(path):
        return read_sid_file(given, item_tokens)
    rows, n_rows = item_file_tokens(config), _rows(path)
    if rows is None or not n_rows or n_rows >= len(rows) or n_rows == len(item_tokens) - 1:
        return read_sid_file(given, item_tokens)
    table = read_npy(path, rows[:n_rows], item_tokens)
    if len(table.codes[1:].unique(dim=0)) == table.n_items - 1:
        return table
    return suffixed(table, numbering)


def suffixed(table: SIDTable, numbering: str) -> SIDTable:
    """A table with one level more, which makes its SIDs unique."""
    codes, sizes = add_suffix(table.codes[1:], table.sizes, numbering)
    return SIDTable.from_item_codes(codes, sizes, {**table.meta, "content_levels": table.n_levels})


def _rows(path: str) -> int | None:
    try:
        return len(load_npy(path, mmap=True))
    except (OSError, ValueError, TypeError):
        return None  # what reads it says what is wrong


def with_suffix_level(table: SIDTable, levels: int, numbering: str, path: str) -> SIDTable:
    """A table with one level more than a tokenizer has, that which makes SIDs unique.

    Raises:
        ConfigError: other numbers of levels.
    """
    if table.n_levels == levels:
        table = suffixed(table, numbering)
    if table.n_levels != levels + 1:
        raise ConfigError(
            f"continual_start_sids: the SIDs in {path} have {table.n_levels} levels; one of "
            f"sid_levels={levels} takes {levels}, or one more that makes them unique"
        )
    return table


def content_of_all(
    config: Config, train: Dataset, cf_files: Sequence[str] | None = None
) -> ItemContent:
    """Content of the whole catalogue, of which every period takes the part that it knows.

    Made once, as vectors of text are coordinates along axes that depend on the catalogue: made
    again in each period they would mean something else to the tokenizer of the period before.
    Where there are no texts or vectors of the items, but collaborative vectors of every period
    (``continual_cf_files``), the content of an item is its vector in the period in which it
    arrives: that is known by then and stays.

    Args:
        config (Config): of a recommender in the last period of the data.
        train (SequentialDataset): its training split.
        cf_files: collaborative vectors of every period, or None.

    Raises:
        ConfigError: content that is made of interactions, which an item has not when it arrives.
    """
    if content_source(config, train) != "collaborative":
        return item_content(config, train)
    if not cf_files:
        raise ConfigError(
            "item_content: collaborative vectors of an item do not exist when it arrives; a "
            "continual run needs text or vectors of the items: item_content=text or embedding, or "
            "a file of collaborative vectors for each period, continual_cf_files"
        )
    tokens = [str(token) for token in train.field2id_token[train.iid_field]]
    vectors, known = np.zeros((0, 0), dtype=np.float32), 1
    for path, n_items in zip(cf_files, train.items_so_far):
        now = vectors_of_file(config, tokens, path, "continual_cf_files")
        vectors = vectors if len(vectors) else np.zeros_like(now)
        if now.shape != vectors.shape:
            raise ConfigError(
                f"continual_cf_files: {path} holds vectors of {now.shape[1]} dimensions, those "
                f"before {vectors.shape[1]}"
            )
        vectors[known : n_items + 1], known = now[known : n_items + 1], n_items + 1
    say(
        "'%s' has no texts or vectors of its items: the content of an item is its collaborative "
        "vector in the period in which it arrives (continual_cf_files)", config["dataset"],
    )  # fmt: skip
    about = {"source": "collaborative", "dim": vectors.shape[1]}
    digest = digest_of("arrival", tokens, vectors)
    return ItemContent(torch.from_numpy(vectors), "collaborative", digest, tokens, about)
