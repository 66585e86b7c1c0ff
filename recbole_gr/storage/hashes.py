"""Hashes of files and folders by their bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


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
