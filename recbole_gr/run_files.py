"""The files of a run: its log, its checkpoint, the folder of its report.

Runs may start in the same second, so a name is never taken by a look at what is there: it is held
by a lock, or made in a step that fails where it exists.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from colorama import deinit
from recbole.utils import init_logger

from recbole_gr import processes
from recbole_gr.errors import ConfigError
from recbole_gr.files import require_writable
from recbole_gr.terminal.log import hide, level_of, show
from recbole_gr.trainer.interrupt import best_of, stopped_beside

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from recbole.config import Config

IN_USE = ".in-use"  # what the name of a hidden file that holds another name ends in
_handlers: list[_OwnLogFile] = []  # the log of the model before
_without_logs = False


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Runs inside the block leave neither logs nor event files behind."""
    global _without_logs
    before, _without_logs = _without_logs, True
    try:
        yield
    finally:
        _without_logs = before


def logs_are_kept() -> bool:
    """False inside of `without_logs`."""
    return not _without_logs


def start_log(config: Config) -> str | None:
    """RecBole's logger, with a file of its own for each model; returns that file or None.

    The file is a new one, and tensorboard's folder has its name. It keeps the whole log, of which
    the terminal shows what `log_level` says. RecBole's `init_logger` does nothing once the root
    logger has handlers, so those of the model before are taken away first. Where the application
    has some, they are all there is. Of several processes the main one alone logs.
    """
    root = logging.getLogger()
    for handler in _handlers:
        root.removeHandler(handler)
        handler.close()
    _handlers.clear()
    if not logs_are_kept():
        return None
    if not processes.is_main():  # what the others have to say, the main process says
        root.setLevel(logging.ERROR)
        return None
    hide()
    before = set(root.handlers)
    # RecBole's folders. It looks for them and then makes them, and runs may start together.
    for folder in (Path("log", config["model"]), "log_tensorboard"):
        require_writable(folder, "start the run in another working directory")
    make, logging.FileHandler = logging.FileHandler, _OwnLogFile  # type: ignore[assignment,misc]
    try:
        init_logger(config)
        deinit()  # RecBole has colorama end every line of the terminal with a code
    finally:
        logging.FileHandler = make  # type: ignore[misc]
    made = [handler for handler in root.handlers if handler not in before]
    _handlers[:] = [handler for handler in made if isinstance(handler, _OwnLogFile)]
    for other in set(made).difference(_handlers):  # for the terminal, without a filter
        root.removeHandler(other)
    for log in _handlers:
        show(level_of(config), log.level)
        return log.baseFilename
    return None


def _time() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def _numbered(path: Path) -> Iterator[Path]:
    """`path`, `path-2`, `path-3`..."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


class _OwnLogFile(logging.FileHandler):
    """The file that RecBole names by the second, or the first of those after it that is new."""

    of_a_run = True

    def __init__(self, path: str):
        for candidate in _numbered(Path(path)):
            with contextlib.suppress(FileExistsError):
                super().__init__(candidate, "x")
                break
        self.mode = "a"  # where it is opened again


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
    for candidate in _numbered(Path(config["checkpoint_dir"], name)):
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
    for candidate in _numbered(Path(path)):
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
