"""The files of a run: its log, its checkpoint, the folder of its report."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recbole.utils import init_logger

from recbole_gr import processes

if TYPE_CHECKING:
    from recbole.config import Config

_handlers: list[logging.Handler] = []  # those that init_logger made for the model before
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

    RecBole's `init_logger` does nothing once the root logger has handlers, so what it made for the
    model before is taken away first. Handlers of the application stay. Of several processes the
    main one alone logs.
    """
    root = logging.getLogger()
    for handler in _handlers:
        root.removeHandler(handler)
        handler.close()
    if not logs_are_kept():
        return None
    if not processes.is_main():  # what the others have to say, the main process says
        root.setLevel(logging.ERROR)
        return None
    before = set(root.handlers)
    # RecBole's two folders. It looks for them and then makes them, and runs may start together.
    Path("log", config["model"]).mkdir(parents=True, exist_ok=True)
    init_logger(config)
    _handlers[:] = [handler for handler in root.handlers if handler not in before]
    files = [handler.baseFilename for handler in _handlers if hasattr(handler, "baseFilename")]
    return files[0] if files else None


def _time() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def unused_path(path: str | os.PathLike[str]) -> Path:
    """`path`, or the first of `path-2`, `path-3`... that is free: runs may start together."""
    candidate, number = Path(path), 1
    while candidate.exists():
        number += 1
        candidate = Path(path).with_name(f"{Path(path).stem}-{number}{Path(path).suffix}")
    return candidate


def checkpoint_file(config: Config) -> str:
    """Path for the checkpoint of a run, not taken yet."""
    name = f"{config['model']}-{config['dataset']}-{_time()}.pth"
    return str(unused_path(os.path.join(config["checkpoint_dir"], name)))


def report_folder(configs: Sequence[Config]) -> Path:
    """Folder for the report of one call, not taken yet."""
    models = "-".join(config["model"] for config in configs)
    first = configs[0]
    return unused_path(Path(first["result_dir"], f"{first['dataset']}-{models}-{_time()}"))
