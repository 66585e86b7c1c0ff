"""Files that are either complete or absent."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from recbole_gr.errors import ConfigError

# No space left, the user's quota, the largest file that is allowed.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# What `atomic_write` calls its files: process, where that runs, and a random number.
_LEFTOVER = re.compile(r"\..+\.(?P<pid>\d+)-(?:(?P<here>[0-9a-f]{8})-)?[0-9a-f]{8}(?:\.[^.]*)?")
ABANDONED = 7 * 24 * 3600  # seconds


class DiskFull(ConfigError):
    """A file could not be written for want of space; the one that it was to replace is whole."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that a reader, or the next run after a crash, never sees half of it.

    Yields a temporary path in the folder of `path` (made if it is missing) with the same suffix,
    for the caller to write. On a normal exit it is brought to the disk and replaces `path` in one
    step; if the block raises, it is removed and an older `path` stays as it was.

        with atomic_write("saved/table.npy") as tmp:
            numpy.save(tmp, array)

    Args:
        path (str | os.PathLike): where the file shall end up.

    Yields:
        pathlib.Path: the temporary path, which does not exist yet.

    Raises:
        DiskFull: there is no space for it; names the file, the space left and the remedy.
        ConfigError: it cannot be written there for another reason.
    """
    path = Path(path)
    tmp = _temporary(path)  # same folder: os.replace is atomic only within one file system
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield tmp
        _sync(tmp)  # or its name may reach the disk before its contents
        os.replace(tmp, path)
        with contextlib.suppress(OSError):  # not every system lets a folder be opened or synced
            _sync(path.parent)
    except Exception as error:
        reason = _want_of_space(error)
        if reason is None:
            own = (tmp, path, *path.parents)
            if isinstance(error, OSError) and error.filename and Path(error.filename) in own:
                raise _unwritable(path, error, "Give another place", path.parents) from error
            raise
        tmp.unlink(missing_ok=True)
        raise DiskFull(
            f"'{path}' could not be written: the disk is full or the quota used up ({reason}, "
            f"{_free(path)} free). What it was to replace is whole. Make room and run again."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone, or could not be made
            tmp.unlink()


def require_writable(folder: str | os.PathLike[str], remedy: str) -> None:
    """Make a folder if it is missing, and see that files can be written there: before the work
    whose outcome they are to hold. What killed runs left there is removed.

    Args:
        folder (str | os.PathLike): where.
        remedy (str): what to do otherwise, such as "set another result_dir".

    Raises:
        ConfigError: they cannot.
    """
    folder = Path(folder)
    probe = _temporary(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
        remove_leftovers(folder)
    except OSError as error:
        places = (folder, *folder.parents)
        raise _unwritable(folder, error, remedy[0].upper() + remedy[1:], places) from error


def _unwritable(path: Path, error: OSError, remedy: str, folders: Sequence[Path]) -> ConfigError:
    """What to say of a path; `folders` are what of it should be folders."""
    files = [place for place in folders if place.is_file()]
    why = f"'{files[0]}' is a file, not a folder" if files and error.errno != errno.EISDIR else ""
    why = why or error.strerror or str(error)
    return ConfigError(f"'{path}' cannot be written: {why}. {remedy}, or make this one writable.")


def _temporary(path: Path) -> Path:
    own = f"{os.getpid()}-{_here()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.stem}.{own}{path.suffix}")


@cache
def _here() -> str:
    """What process numbers are unique in, as 8 hexadecimal digits: the machine since it started,
    and the container on it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes left of `atomic_write` in a folder and in those below it.

    A file goes if its process was one of this machine and runs no more. Those of other machines,
    which may share the folder, and of before a restart go once nobody has written them for a week.
    """
    for file in (*Path(folder).glob(".*"), *Path(folder).glob("*/.*")):
        found = _LEFTOVER.fullmatch(file.name)
        if found is None:
            continue
        with contextlib.suppress(OSError):  # it is gone, or not ours to remove
            if found["here"] == _here():
                dead = not _runs(int(found["pid"]))
            else:
                dead = time.time() - file.stat().st_mtime > ABANDONED
            if dead:
                file.unlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _want_of_space(error: BaseException | None) -> str | None:
    """The system's words, where an error or one that it comes from says that no more can be
    written; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error.strerror
        if isinstance(error, OSError) and "requested and" in str(error):  # numpy's, without a code
            return str(error)
        error = error.__cause__ or error.__context__
    return None


def _free(path: Path) -> str:
    """Free space on the disk of `path`, as text."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB"
