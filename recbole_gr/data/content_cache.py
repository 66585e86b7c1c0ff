"""Vectors of items that took time to make, kept by the hash of what made them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_gr.storage.files import atomic_write, require_writable
from recbole_gr.untrusted.archives import load_npz

if TYPE_CHECKING:
    from recbole_gr.config import Config


def digest_of(*parts: Any) -> str:
    """sha256 in hexadecimal of arrays, strings, numbers and lists of strings."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data = np.ascontiguousarray(part)
            head, body = f"{data.dtype}{data.shape}", data.data.cast("B") if data.size else b""
        else:
            head, body = (
                type(part).__name__,
                ("\x1f".join(part) if isinstance(part, list) else str(part)).encode(),
            )
        sha.update(f"{head}:{len(body)}:".encode())
        sha.update(body)
    return sha.hexdigest()


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
    folder = cache_folder(config)
    path = Path(folder) / f"{config['dataset']}-{source}-{inputs[:16]}.npz"
    if path.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError):
            file = load_npz(path)
            vectors, kept = file["vectors"], bytes(file["sha256"]).hex()
            if (digest := digest_of(source, tokens, vectors)) == kept:
                return vectors, digest
        getLogger().warning("%s is damaged or was changed, and made anew", path)
    require_writable(folder, "set another content_cache_dir")
    vectors = compute()
    digest = digest_of(source, tokens, vectors)
    with atomic_write(path) as tmp, open(tmp, "wb") as out:
        np.savez(out, vectors=vectors, sha256=np.frombuffer(bytes.fromhex(digest), np.uint8))
    return vectors, digest
