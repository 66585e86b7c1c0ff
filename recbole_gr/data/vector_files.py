"""Vectors of items from files whose rows are the lines of `.item`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recbole_gr.data.atomic import atomic_path
from recbole_gr.data.item_file import ItemFile
from recbole_gr.errors import ConfigError
from recbole_gr.untrusted.archives import load_npy

if TYPE_CHECKING:
    from recbole_gr.config import Config
    from recbole_gr.data.dataset import GenerativeDataset


def collaborative_file(config: Config) -> str | None:
    """The file of collaborative vectors: ``cf_file`` if that is given, else
    ``<dataset>.itemcf.npy`` beside the data if it is there, else None.

    The latter is of the whole log, so in a period it would tell what is yet to come: it is not
    taken there."""
    if config["cf_file"]:
        return config["cf_file"]
    if config["continual_period"] is not None:
        return None
    path = atomic_path(config, "itemcf.npy")
    return path if os.path.isfile(path) else None


def collaborative_vectors(config: Config, dataset: GenerativeDataset) -> torch.Tensor:
    """Collaborative vectors of all items but padding, ``[n_items - 1, e]``, from a file.

    The file is read as a ``content_file`` is: row i belongs to the i-th data line of ``.item``.
    Items of which it knows nothing have zero rows.

    Raises:
        ConfigError: no such file, or one that does not fit the items.
    """
    path = collaborative_file(config)
    if path is None or not os.path.isfile(path):
        raise ConfigError(
            f"cf_file: {path} does not exist; give a .npy matrix of collaborative vectors, row i "
            "for the i-th data line of .item, or leave it out to train them"
        )
    tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field]]
    vectors = vectors_of_file(config, tokens, path, "cf_file")
    check_finite(vectors, tokens, "cf_file")
    return torch.from_numpy(vectors[1:])


def vectors_of_file(config: Config, tokens: Sequence[str], path: str, key: str) -> np.ndarray:
    """Vectors ``[n_items, d]`` from a file whose row i belongs to the i-th line of ``.item``."""
    array = load_array(path, key)
    item_file = ItemFile(config)
    if len(array) != len(item_file):
        raise ConfigError(
            f"{key} {path} has {len(array)} rows, but {item_file.path} has "
            f"{len(item_file)} items; row i must belong to the i-th data line"
        )
    rows = rows_or_warn(item_file, tokens)
    vectors = np.zeros((len(tokens), array.shape[1]), dtype=np.float32)
    vectors[rows >= 0] = array[rows[rows >= 0]]
    return vectors


def load_array(path: str | Path, key: str = "content_file") -> np.ndarray:
    """A matrix of numbers from a `.npy` file, mapped into memory rather than read.

    Raises:
        ConfigError: the file is missing, no plain `.npy` matrix, or holds something but numbers.
    """
    try:
        array = load_npy(path, mmap=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{key} {path} does not exist") from error
    except (ValueError, OSError) as error:
        raise ConfigError(f"{key} {path} is no plain .npy array: {error}") from error
    numeric = np.issubdtype(array.dtype, np.number)
    real = numeric and not np.issubdtype(array.dtype, np.complexfloating)
    if not real or array.ndim != 2 or not array.shape[1]:
        raise ConfigError(
            f"{key} {path} must hold a matrix [items, d] of numbers: {array.dtype} of shape "
            f"{array.shape}"
        )
    return array


def rows_or_warn(item_file: ItemFile, tokens: Sequence[str]) -> np.ndarray:
    """Line of each item in the `.item` file, -1 for padding and for absent items."""
    rows = np.concatenate([[-1], item_file.rows_of(tokens[1:])])
    warn_missing(rows[1:], item_file.path)
    return rows


def warn_missing(rows: np.ndarray, where: str) -> None:
    missing = int((rows < 0).sum())
    if missing:
        getLogger().warning(
            "%d of %d items are not in %s; their content is zero", missing, len(rows), where
        )


def check_finite(vectors: np.ndarray, tokens: Sequence[str], source: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ConfigError(
            f"item content ({source}): NaN or infinite values in {len(bad)} of {len(vectors)} "
            f"rows, the first of item {tokens[bad[0]]!r}. Mend its vector (content_file, "
            "content_field or the .npy beside the .item file), or give --item_content=text"
        )
