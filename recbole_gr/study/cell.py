"""One run of a study, in a process of its own: `python -m recbole_gr.study.cell FOLDER`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.registry import get_model, spans_periods
from recbole_gr.storage.run_files import held
from recbole_gr.study import store
from recbole_gr.terminal.command_line import exit_code, stopped_as_by_ctrl_c
from recbole_gr.terminal.log import show

#: Seconds for a run whose study or node was killed to save its place and end; NFS lets go of the
#: locks of a machine that died after 90.
PATIENCE = 120


def run_cell(folder: Path, gpu: str | None = None) -> None:
    """Do the run that a folder's task tells of, from where it was interrupted; keep what it gives,
    or why it gives nothing.

    Args:
        folder: of the run.
        gpu: the one to use, as of `gpu_id`, unless the settings name some.

    Raises:
        KeyboardInterrupt: a signal to stop came; the training goes on from there another time.
    """
    from recbole_gr.config import Config
    from recbole_gr.run.model import WarmStart, run_model
    from recbole_gr.storage.manifest import write_manifest

    try:
        task = store.read_task(folder)
        here = {"checkpoint_dir": str(folder), "show_progress": False}
        gpus = {} if gpu is None else {"gpu_id": gpu}
        settings = {**gpus, **task["settings"], **here}
        if spans_periods(get_model(task["model"])):
            store.keep_periods(folder, over_periods(folder, task, settings), task["key"])
            return
        config = Config(task["model"], task["dataset"], config_dict=settings)
        if "weights" in task:
            result = run_model(config, start=WarmStart(tested=task["weights"], train=False))
            store.keep(folder, result, task["key"], resumed=False)
            return
        left = store.left_to_go_on_from(folder)
        if left is not None:
            config["resume"] = str(left)
        result = run_model(config, start=WarmStart(checkpoint=str(folder / store.CHECKPOINT)))
        write_manifest([result], folder, saved=True)
        store.keep(folder, result, task["key"], resumed=left is not None)
    except Exception as error:
        if isinstance(error, ConfigError):
            logging.getLogger().error("%s", error)
        else:
            logging.getLogger().exception("The run failed")
        store.note_failure(folder, f"{type(error).__name__}: {error}".strip())


def over_periods(
    folder: Path, task: Mapping[str, Any], settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Do a run over periods, whose parts that are finished are found again; returns its results."""
    from recbole_gr.config.user_settings import UserSettings
    from recbole_gr.continual.runner import ContinualRun

    here = {"continual_dir": str(folder / "periods"), "result_dir": str(folder / "reports")}
    given = UserSettings.read(None, {**settings, **here}, None)
    outcome = ContinualRun([task["model"]], task["dataset"], given).run()
    assert outcome is not None  # there is one process
    return outcome["results"]


def work(argv: list[str]) -> int:
    """Run the cell of a folder, on the GPU that is named after it; standard input ends when the
    study does."""
    folder = Path(argv[0])
    threading.Thread(target=_stop_with_the_study, daemon=True).start()
    show(logging.INFO)
    try:
        with stopped_as_by_ctrl_c(), _alone_in(folder):
            if not (folder / store.RESULT).is_file():  # by one that was waited for
                run_cell(folder, *argv[1:])
    except KeyboardInterrupt as stop:
        print(f"Stopped. {stop}".strip(), file=sys.stderr)
        return exit_code(stop)
    return 0 if (folder / store.RESULT).is_file() else 1


def _stop_with_the_study() -> None:
    """Stop as by Ctrl-C when the process that reads the results is no more, even if it was killed:
    the same command goes on from there, in a process of its own."""
    with contextlib.suppress(OSError):  # not by sys.stdin, which is locked at the end of a program
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Inside the block no other process runs this cell; one that is ending is waited for."""
    last = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(folder, "end it"))
                break
            except ConfigError as error:
                if time.monotonic() > last:
                    store.note_failure(folder, str(error))
                    raise SystemExit(1) from error
                time.sleep(0.2)
        yield


if __name__ == "__main__":
    sys.exit(work(sys.argv[1:]))
