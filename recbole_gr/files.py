"""Files that are either complete or absent."""

import contextlib
import os
import secrets
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path):
    """Write a file so that a reader, or the next run after a crash, never sees half of it.

    Yields a temporary path in the folder of `path` (made if it is missing) with the same suffix,
    for the caller to write. On a normal exit it replaces `path` in one step; if the block raises,
    it is removed and an older `path` stays as it was.

        with atomic_write("saved/table.npy") as tmp:
            numpy.save(tmp, array)

    Args:
        path (str | os.PathLike): where the file shall end up.

    Yields:
        pathlib.Path: the temporary path, which does not exist yet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Same folder: os.replace is atomic only within one file system.
    tmp = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield tmp
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
