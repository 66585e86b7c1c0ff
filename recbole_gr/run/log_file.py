"""The log of a run: RecBole's, with a file of its own for each model."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from colorama import deinit
from recbole.utils import init_logger

from recbole_gr.distributed import processes
from recbole_gr.storage.files import require_writable
from recbole_gr.storage.run_files import numbered
from recbole_gr.terminal.log import hide, level_of, logs_are_kept, show

if TYPE_CHECKING:
    from recbole.config import Config

_handlers: list[_OwnLogFile] = []  # the log of the model before


def start_log(config: Config) -> str | None:
    """RecBole's logger, with a file of its own for each model; returns that file or None.

    The file is a new one, and tensorboard's folder has its name. It keeps the whole log, of which
    the terminal shows what `log_level` says. RecBole's `init_logger` does nothing once the root
    logger has handlers, so those of the model before are taken away first. Where the application
    has some, they are all there is. Of several processes rank 0 alone logs.
    """
    root = logging.getLogger()
    for handler in _handlers:
        root.removeHandler(handler)
        handler.close()
    _handlers.clear()
    if not logs_are_kept():
        return None
    if not processes.is_rank_zero():  # what the others have to say, rank 0 says
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


class _OwnLogFile(logging.FileHandler):
    """The file that RecBole names by the second, or the first of those after it that is new."""

    of_a_run = True

    def __init__(self, path: str):
        for candidate in numbered(Path(path)):
            with contextlib.suppress(FileExistsError):
                super().__init__(candidate, "x")
                break
        self.mode = "a"  # where it is opened again
