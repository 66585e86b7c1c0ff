"""Files that are made once: read where they are there and whole, else made and kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from recbole_gr.errors import ConfigError
from recbole_gr.storage.files import require_writable

T = TypeVar("T")


def cached(
    path: str | os.PathLike[str],
    load: Callable[[Path], T],
    make: Callable[[], T],
    save: Callable[[Path, T], object],
    remedy: str,
) -> T:
    """What the file `path` holds if it is whole, else what `make` gives, which is kept there.

    Args:
        path: whose name holds the hash of all that `make` depends on (see
            :func:`recbole_gr.storage.hashes.digest_of`), or whose folder belongs to one run.
        load: reads it; raises a ConfigError where it is damaged, was changed or holds something
            else, which is logged before it is made again.
        make: makes the value.
        save: writes it under a temporary name first.
        remedy: what to do where its folder cannot be written, such as "set another sid_dir"; known
            before anything is made.

    Raises:
        ConfigError: the folder cannot be written, or `make` raises it.
    """
    path = Path(path)
    if path.is_file():
        try:
            return load(path)
        except ConfigError as error:
            logging.getLogger().warning("%s; it is made again", error)
    require_writable(path.parent, remedy)
    value = make()
    save(path, value)
    return value
