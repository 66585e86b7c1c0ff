"""Vectors of items that took time to make, kept by the hash of what made them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbole_gr.errors import ConfigError
from recbole_gr.storage.cache import cached
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.hashes import digest_of
from recbole_gr.untrusted.archives import load_npz

if TYPE_CHECKING:
    from recbole_gr.config import Config


def cache_folder(config: Config) -> str:
    """The folder of `content_cache_dir`."""
    return config["content_cache_dir"] or os.path.join("saved", "content")


def cached_vectors(
    config: Config, source: str, inputs: str, tokens: list[str], compute: Callable[[], np.ndarray]
) -> tuple[np.ndarray, str]:
    """Vectors from the cache if they are there and what was written, else computed and kept.

    Args:
        config (Config): names the folder.
        source (str): where they come from.
        inputs (str): hash of what they are made from.
        tokens (list[str]): [n_items] names of the items.
        compute (callable): makes them, float32 [n_items, d].

    Returns:
        tuple: the vectors, and the hash of these very vectors.
    """

    def load(path: Path) -> tuple[np.ndarray, str]:
        try:
            file = load_npz(path)
            vectors, kept = file["vectors"], bytes(file["sha256"]).hex()
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{path} is damaged") from error
        if (digest := digest_of(source, tokens, vectors)) != kept:
            raise ConfigError(f"{path} was changed")
        return vectors, digest

    def make() -> tuple[np.ndarray, str]:
        vectors = compute()
        return vectors, digest_of(source, tokens, vectors)

    def save(path: Path, made: tuple[np.ndarray, str]) -> None:
        sha256 = np.frombuffer(bytes.fromhex(made[1]), np.uint8)
        with atomic_write(path) as temporary, open(temporary, "wb") as out:
            np.savez(out, vectors=made[0], sha256=sha256)

    path = Path(cache_folder(config), f"{config['dataset']}-{source}-{inputs[:16]}.npz")
    return cached(path, load, make, save, "set another content_cache_dir")
