"""Failures of a run's processes, as files in a folder of the process that started them."""

import contextlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from recbole_gr.distributed.rendezvous import RankInfo
from recbole_gr.errors import ConfigError, MachineLost, ModelsFailed, ProcessKilled
from recbole_gr.storage.files import atomic_write
from recbole_gr.terminal.command_line import HungUp, Terminated

# What a process may end with that is no fault of the code, the special ones first.
_KINDS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (ConfigError, MachineLost, ModelsFailed, Terminated, HungUp, KeyboardInterrupt)
}
_STOPS = [name for name, kind in _KINDS.items() if issubclass(kind, KeyboardInterrupt)]
_folder: str | None = None  # of the run that this process is one of
_files: list[str] | None = None  # where the run goes on; empty: the command is to be given again


def keep_in(folder: str) -> None:
    """Keep what :func:`note_resume` is told in this folder."""
    global _folder
    _folder = folder


def note_resume(
    checkpoint: str | None, began_with: str | None = None, is_rank_zero: bool = True
) -> None:
    """Note how the run can go on, for the error of a process that is killed or cut off.

    Args:
        checkpoint (str | None): where the run keeps its best model; None where the command is to be
            given again.
        began_with (str | None): the checkpoint that it goes on from.
        is_rank_zero (bool): whether this process has the files; another one's machine may not.
    """
    global _files
    _files = [checkpoint, began_with or ""] if checkpoint else []
    if _folder is not None and is_rank_zero:
        with atomic_write(Path(_folder, "resume")) as file:  # it may be killed while it writes
            file.write_text("\n".join(_files), encoding="utf-8")


def killed_error(index: int, number: int, folder: str) -> ProcessKilled:
    """The error of process `index` of this machine, which signal `number` has ended."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    why = ", perhaps for want of memory" if name == "SIGKILL" else ""
    note, hint = Path(folder, "resume"), ""
    if note.is_file():
        hint = _resume_hint(note.read_text(encoding="utf-8").splitlines())
    killed = f"process {index} of this machine was killed by {name}{why}."
    return ProcessKilled(f"{killed} {hint}".strip())


def _resume_hint(files: Sequence[str]) -> str:
    """How a run goes on of which `note_resume` has noted this."""
    if not files:
        return "The same command goes on after what was finished."
    for file, where in zip(files, ("the best epoch so far", "where this run began")):
        if os.path.isfile(file):
            return f"--resume={file} goes on from {where}."
    return "Nothing was saved yet."


def end_lost(error: MachineLost, info: RankInfo) -> None:
    """End this process, whose main thread may wait for ever, with an error and what is left."""
    hint = "" if _files is None else _resume_hint(_files)
    if _files and info.first_rank and not os.path.isfile(_files[0]):
        file = _files[0]
        hint = (
            f"If the first machine has {file}, put it here too, and --resume={file} goes on from "
            "the best epoch so far."
        )
    is_cut, error = error.is_cut, MachineLost(f"{error} {hint}".strip())
    if _folder is not None:
        keep_error(Path(_folder, f"error-{info.local_rank}"), info.rank, error)
    else:  # torchrun has started this process
        print(f"error: {error}", file=sys.stderr, flush=True)
        if is_cut and info.first_rank:
            _end_torchrun()
    os._exit(1)


def _end_torchrun() -> None:
    """Kill torchrun on a machine that is cut off from its rendezvous, which it would wait for
    without end, in a call that no other signal ends."""
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process().parent()
        words = " ".join(parent.cmdline()) if parent is not None else ""
        if parent is not None and re.search(r"torchrun|torch\.distributed", words):
            parent.kill()


def keep_error(file: Path, rank: int, error: BaseException) -> None:
    """Write an error for the process that started this one."""
    kind = next((name for name, kind in _KINDS.items() if isinstance(error, kind)), "RuntimeError")
    text = str(error)
    if kind not in _KINDS:
        text = f"process {rank} of the run failed:\n{traceback.format_exc()}"
    record = {"time": time.time(), "kind": kind, "text": text}
    with atomic_write(file) as temporary:  # it is read as soon as another process has ended
        torch.save({**record, "table": getattr(error, "table", None)}, temporary)


def kept_errors(folder: str) -> list[dict[str, Any]]:
    """The errors that processes have kept: the first of a run is the cause of the others."""
    kept = [torch.load(file, weights_only=True) for file in Path(folder).glob("error-*")]
    return sorted(kept, key=lambda record: record["time"])


def was_told_to_stop(folder: str) -> bool:
    """Whether the first error is a signal to stop, after which the others stop by themselves."""
    return any(record["kind"] in _STOPS for record in kept_errors(folder)[:1])


def first_error(folder: str, stop: KeyboardInterrupt | None = None) -> BaseException:
    """The first error that a process has kept.

    Args:
        folder (str): the processes'.
        stop (KeyboardInterrupt | None): a signal that this process has got, and handed on to them.
    """
    kept = kept_errors(folder)
    if not kept:
        return stop or RuntimeError("a process of the run ended without a word; see its output")
    first = kept[0]
    if first["kind"] in _STOPS:  # the one that has saved the place says how to go on
        first = next((r for r in kept if r["kind"] in _STOPS and r["text"]), first)
    kind = _KINDS.get(first["kind"], RuntimeError)
    if stop is not None and issubclass(kind, KeyboardInterrupt):
        kind = type(stop)
    return kind(*filter(None, [first["text"], first["table"]]))
