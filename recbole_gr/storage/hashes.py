"""Hashes: of files and folders by their bytes, and of the values that something is made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def digest_of(*parts: Any) -> str:
    """sha256 (hexadecimal) of what something is made from.

    Args:
        *parts: tensors, arrays, numbers, texts, None, and dicts (in any order), lists and tuples of
            these. The type of each counts, as do the shapes of arrays.
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            data = np.ascontiguousarray(part)
            head, body = f"{data.dtype}{data.shape}", data.data.cast("B") if data.size else b""
        elif isinstance(part, dict):
            values = [value for key in sorted(part, key=str) for value in (str(key), part[key])]
            head, body = "dict", digest_of(*values).encode()
        elif isinstance(part, (list, tuple)):
            texts = all(isinstance(value, str) for value in part)
            head, body = "list", ("\x1f".join(part) if texts else digest_of(*part)).encode()
        else:
            head, body = type(part).__name__, str(part).encode()
        sha.update(f"{head}:{len(body)}:".encode())
        sha.update(body)
    return sha.hexdigest()


def hash_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 (hexadecimal) of tensors by name, on the CPU: what lies in a file beside them."""
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name}:{value.dtype}{list(value.shape)}:".encode())
        sha.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def sha256(path: str | os.PathLike[str]) -> str | None:
    """The hash of a file's bytes (hexadecimal), None where there is no such file."""
    if not os.path.isfile(path):
        return None
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def folder_sha256(folder: str | os.PathLike[str]) -> str:
    """The hash of the names and bytes of all files in a folder."""
    sha = hashlib.sha256()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        sha.update(f"{path.relative_to(folder)}\0{sha256(path)}\n".encode())
    return sha.hexdigest()
