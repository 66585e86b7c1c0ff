"""Names of the files of a run: its checkpoint, the folder of its report.

Runs may start in the same second, so a name is never taken by a look at what is there: it is held
by a lock, or made in a step that fails where it exists.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import best_of, stopped_beside
from recbole_gr.storage.files import require_writable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from recbole.config import Config

IN_USE = ".in-use"  # what the name of a hidden file that holds another name ends in


def _time() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def numbered(path: Path) -> Iterator[Path]:
    """`path`, `path-2`, `path-3`..."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def _hold(path: Path) -> int | None:
    """Take the name `path` for this process alone.

    What holds it is a lock on a hidden file beside it, which the system lets go of when the process
    ends in any way, so nothing that a killed run leaves is in use.

    Returns:
        int: what `_release` takes; None where another one holds it.
    """
    mark = in_use(path)
    while True:
        new = not mark.exists()
        try:
            descriptor = os.open(mark, os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0), 0o666)
        except (FileExistsError, FileNotFoundError):
            continue  # made or removed in between
        try:
            if fcntl is None:
                raise OSError("there are no locks here")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks: who makes the file has the name
            if not new:
                os.close(descriptor)
                return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(mark)):
                return descriptor
        os.close(descriptor)  # its holder removed it in between


def in_use(path: str | os.PathLike[str]) -> Path:
    """The hidden file that holds the name `path`."""
    return Path(path).with_name(f".{Path(path).name}{IN_USE}")


def _release(path: Path, descriptor: int) -> None:
    in_use(path).unlink(missing_ok=True)
    os.close(descriptor)


def _release_left_marks(folder: Path) -> None:
    """Remove the marks of killed runs, which hold nothing any more."""
    for mark in folder.glob(f".*{IN_USE}"):
        path = mark.with_name(mark.name[1:].removesuffix(IN_USE))
        descriptor = _hold(path)
        if descriptor is not None:
            _release(path, descriptor)


@contextlib.contextmanager
def held(path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Inside the block no other process that asks for the name `path` gets it.

    Args:
        path (str | os.PathLike): a file or folder, which need not exist.
        remedy (str): what to do where it is taken.

    Raises:
        ConfigError: another process has it.
    """
    path = Path(os.path.abspath(path))
    require_writable(path.parent, remedy)
    descriptor = _hold(path)
    if descriptor is None:
        raise ConfigError(
            f"'{path}' is in use by another run that has not ended. Wait for it, or {remedy}. (Its "
            f"mark is '{in_use(path)}'.)"
        )
    try:
        yield
    finally:
        _release(path, descriptor)


def take_from_the_dead(path: str | os.PathLike[str], patience: float) -> None:
    """Wait, so many seconds at most, until a name is free whose holder is on a machine that died,
    or is ending.

    The system lets go of a lock by itself, NFS when the lease of a machine has run out. On a file
    system without locks nobody does: there the name is free at the end.
    """
    mark, last, without_locks = in_use(path), monotonic() + patience, False
    while monotonic() < last:
        try:
            with open(mark, "rb+") as file:
                if fcntl is None:
                    raise OSError("there are no locks here")
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            without_locks = False
        except OSError:
            without_locks = True
        sleep(0.2)
    if without_locks:
        mark.unlink(missing_ok=True)


@contextlib.contextmanager
def own_checkpoint(config: Config) -> Iterator[str]:
    """A path for the checkpoint of a run that no other run gets, nor those named after it.

    With `resume` it is the one that training goes on in. Nothing is made there before there is
    something to save.

    Raises:
        ConfigError: another run goes on from the same checkpoint, or its folder is not writable.
    """
    if config["resume"]:
        file = best_of(config["resume"])
        with held(file, "go on from a copy of the checkpoint"):
            yield str(file)
        return
    require_writable(config["checkpoint_dir"], "set another checkpoint_dir")
    _release_left_marks(Path(config["checkpoint_dir"]))
    name = f"{config['model']}-{config['dataset']}-{_time()}.pth"
    for candidate in numbered(Path(config["checkpoint_dir"], name)):
        descriptor = _hold(candidate)
        if descriptor is None:
            continue
        try:
            if not (candidate.exists() or stopped_beside(candidate).exists()):
                yield str(candidate)
                return
        finally:
            _release(candidate, descriptor)


@contextlib.contextmanager
def report_folder(configs: Sequence[Config]) -> Iterator[Path]:
    """A new folder for the report of one call, removed at the end if nothing came into it."""
    models = "-".join(config["model"] for config in configs)
    first = configs[0]
    with new_folder(Path(first["result_dir"], f"{first['dataset']}-{models}-{_time()}")) as folder:
        yield folder


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`path`, or the first of `path-2`, `path-3`... that was not there and is made now; removed at
    the end if nothing came into it."""
    require_writable(Path(path).parent, "set another result_dir")
    for candidate in numbered(Path(path)):
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        break
    try:
        yield candidate
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            candidate.rmdir()
