"""Starting the processes of a run, and bringing home what they return or raise."""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.multiprocessing as mp

from recbole_gr.distributed import processes
from recbole_gr.distributed.processes import RankInfo, port_in_use
from recbole_gr.errors import ConfigError, ModelsFailed, ProcessKilled
from recbole_gr.storage.files import atomic_write
from recbole_gr.terminal.command_line import HungUp, Terminated, stopped_as_by_ctrl_c

PORT = 5678  # RecBole's
GRACE_PERIOD = 10.0  # seconds for the other processes to end once one has failed
# What a process may end with that is no fault of the code, the special ones first.
_KNOWN: tuple[type[BaseException], ...] = (
    ConfigError, ModelsFailed, Terminated, HungUp, KeyboardInterrupt,
)  # fmt: skip
_STOPS = tuple(kind.__name__ for kind in _KNOWN if issubclass(kind, KeyboardInterrupt))
_RESUME = "--resume="
_run_folder: str | None = (
    None  # what the processes of this machine leave for the one that started them
)
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Layout(NamedTuple):
    """How many processes there are and where: RecBole's keys of the same names.

    Attributes:
        nproc: processes on this machine.
        world_size: processes on all machines.
        ip, port: of the first machine.
        group_offset: rank of this machine's first process.
    """

    nproc: int
    world_size: int
    ip: str
    port: int | None
    group_offset: int


def layout_of(settings: Any) -> Layout:
    """The layout that settings ask for, checked; one process where they say nothing.

    Args:
        settings (dict): with some of the keys of :class:`Layout`; ``world_size: -1`` is ``nproc``.

    Raises:
        ConfigError: numbers that contradict each other; names key and remedy.
    """
    nproc = _whole(settings, "nproc", 1, 1)
    world_size = _whole(settings, "world_size", -1, -1)
    offset = _whole(settings, "group_offset", 0, 0)
    port = settings.get("port")
    if port is not None:
        port = _whole({"port": int(port) if str(port).isdigit() else port}, "port", None, 1)
        if port > 65535:
            raise ConfigError(f"port: {port} must be an integer from 1 to 65535")
    if world_size < 1:
        world_size = nproc + offset
    if offset + nproc > world_size:
        raise ConfigError(
            f"world_size: {world_size} processes on all machines are fewer than group_offset "
            f"{offset} + nproc {nproc} of this one. world_size is the sum of nproc over the "
            "machines, group_offset the sum over the machines before."
        )
    ip = str(settings.get("ip") or "localhost")
    return Layout(nproc, world_size, ip, port, offset)


def _whole(settings: Any, key: str, default: int | None, least: int) -> int:
    value = settings.get(key)
    value = default if value is None else value
    if type(value) is not int or value < least:
        raise ConfigError(f"{key}: {value!r} must be an integer of at least {least}")
    return value


def run_processes(fn: Callable, args: tuple, settings: dict, check: Callable | None = None) -> Any:
    """Call ``fn(*args)`` in as many processes as the settings ask for.

    One process: this one. Several on this machine: new ones, which are gone afterwards. Under
    torchrun this process is already one of them.

    Args:
        fn: a function of a module. In each process it makes a :class:`~recbole_gr.config.Config`,
            which meets the others.
        args: its arguments.
        settings: what the user gave, by key.
        check: called before new processes are started; raises what they would raise.

    Returns:
        What ``fn`` returned in process 0; None where that is on another machine, and under
        torchrun in all other processes.

    Raises:
        ConfigError: the layout cannot be used, or ``fn`` raised one.
        KeyboardInterrupt: a signal to stop came, to this process or to one of those it started.
        ProcessKilled: one of the processes was, by the system; names the signal and what is left.
        RuntimeError: ``fn`` raised something else, with its traceback; the others were ended.
    """
    if processes.is_launched():
        return fn(*args)
    if all(name in os.environ for name in _TORCHRUN):
        return _under_torchrun(fn, args, settings)
    layout = layout_of(settings)
    if layout.world_size == 1:
        return fn(*args)
    if check is not None:
        check()
    layout = layout._replace(port=_port(layout))
    with tempfile.TemporaryDirectory() as folder:
        with stopped_as_by_ctrl_c():
            context = mp.start_processes(
                _worker, (layout, torch.get_num_threads(), fn, args, folder), layout.nproc,
                join=False, start_method="spawn",
            )  # fmt: skip
            try:
                error = _wait(context.processes, folder)
            finally:
                _kill(context.processes)
        if error is not None:
            raise error
        outcome = Path(folder, "outcome")
        return torch.load(outcome, weights_only=True) if outcome.is_file() else None


def _wait(workers: Sequence[Any], folder: str) -> BaseException | None:
    """Wait until all processes of this machine have ended; what one of them failed with, or None.

    A signal to stop goes to all of them, and they end when they have saved their place; a second
    one does not wait. Where one fails the others cannot go on.
    """
    waiting = {worker.sentinel: worker for worker in workers}
    stop: KeyboardInterrupt | None = None
    killed = None  # the first that a signal has ended
    kill_at: float | None = None
    while waiting:
        patience = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        try:
            ended = [waiting.pop(sentinel) for sentinel in connection.wait(list(waiting), patience)]
        except KeyboardInterrupt as told:
            if stop is not None:
                raise
            stop = told
            for worker in waiting.values():
                worker.terminate()  # one that has got the same signal takes it for that
            continue
        for worker in ended:
            worker.join()
        failed = [worker for worker in ended if worker.exitcode]
        if failed and stop is None and kill_at is None and not _told_to_stop(folder):
            killed = next((worker for worker in failed if worker.exitcode < 0), None)
            kill_at = time.monotonic() + GRACE_PERIOD
            for worker in waiting.values():
                worker.terminate()
        elif kill_at is not None and time.monotonic() >= kill_at:
            for worker in waiting.values():
                worker.kill()  # it waits in a call that no signal ends
    if not any(worker.exitcode for worker in workers):
        return None
    if killed is not None:
        return _killed(workers.index(killed), -killed.exitcode, folder)
    error = _error_in(folder, stop)
    return type(stop)(*error.args) if stop and isinstance(error, KeyboardInterrupt) else error


def _killed(number: int, by: int, folder: str) -> ProcessKilled:
    """The error of a process that a signal has ended, with what is left of the run."""
    name = signal.Signals(by).name if by in set(signal.Signals) else f"signal {by}"
    why = ", perhaps for want of memory" if name == "SIGKILL" else ""
    note = Path(folder, "going-on")
    hint = note.read_text(encoding="utf-8") if note.is_file() else ""
    if hint.startswith(_RESUME):
        best, *began = hint.removeprefix(_RESUME).splitlines()
        hint = "Nothing was saved yet."
        if os.path.isfile(best):
            hint = f"{_RESUME}{best} goes on from the best epoch so far."
        elif began and os.path.isfile(began[0]):
            hint = f"{_RESUME}{began[0]} goes on from where this run began."
    killed = f"process {number} of this machine was killed by {name}{why}."
    return ProcessKilled(f"{killed} {hint}".strip())


def note_resume(checkpoint: str | None, began_with: str | None = None) -> None:
    """Leave word for the process that started this one, should one of them be killed.

    Args:
        checkpoint (str | None): where the run keeps its best model; None where the command is to be
            given again.
        began_with (str | None): the checkpoint that it goes on from.
    """
    if _run_folder is not None:
        text = "The same command goes on after what was finished."
        if checkpoint:
            text = _RESUME + "\n".join(filter(None, [checkpoint, began_with]))
        with atomic_write(
            Path(_run_folder, "going-on")
        ) as file:  # it may be killed while it writes
            file.write_text(text, encoding="utf-8")


def _kill(workers: Iterable[Any]) -> None:
    """End what is still there; no signal waits."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def _port(layout: Layout) -> int | None:
    """The port to meet at, free if this machine has the first process; None: no port is needed."""
    if layout.port is None:
        return None if layout.nproc == layout.world_size else PORT
    if layout.group_offset == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", layout.port))
            except OSError as error:
                raise port_in_use(layout.port) from error
    return layout.port


def _worker(
    index: int, layout: Layout, n_threads: int, fn: Callable, args: tuple, folder: str
) -> None:
    """One process of this machine."""
    global _run_folder
    _run_folder = folder
    rank = layout.group_offset + index
    # As many threads in all as a run of one process has; torchrun leaves each process one.
    torch.set_num_threads(max(1, n_threads // layout.nproc))
    file = None if layout.port else str(Path(folder, "meeting"))
    processes.set_rank(RankInfo(rank, layout.world_size, index, layout.ip, layout.port, file))
    try:
        with stopped_as_by_ctrl_c():
            outcome = fn(*args)
        if rank == 0:
            torch.save(outcome, Path(folder, "outcome"))
    except BaseException as error:
        _keep_error(Path(folder, f"error-{index}"), rank, error)
        sys.exit(1)
    finally:
        with contextlib.suppress(RuntimeError):  # of a connection that another process closed
            processes.destroy_process_group()


def _keep_error(file: Path, rank: int, error: BaseException) -> None:
    """For the process that started this one; the first error of a run is the cause of others."""
    kind = next((kind for kind in _KNOWN if isinstance(error, kind)), RuntimeError)
    text = str(error)
    if kind is RuntimeError:
        text = f"process {rank} of the run failed:\n{traceback.format_exc()}"
    record = {"time": time.time(), "kind": kind.__name__, "text": text}
    with atomic_write(file) as temporary:  # it is read as soon as another process has ended
        torch.save({**record, "table": getattr(error, "table", None)}, temporary)


def _kept(folder: str) -> list[dict[str, Any]]:
    """The errors that processes have kept, the first one first."""
    kept = [torch.load(file, weights_only=True) for file in Path(folder).glob("error-*")]
    return sorted(kept, key=lambda record: record["time"])


def _told_to_stop(folder: str) -> bool:
    """Whether the first error is a signal to stop, after which the others stop by themselves."""
    return any(record["kind"] in _STOPS for record in _kept(folder)[:1])


def _error_in(folder: str, stop: KeyboardInterrupt | None) -> BaseException:
    """The first error that a process has kept; ``stop``, or an unknown one, where there is none."""
    kept = _kept(folder)
    if not kept:
        return stop or RuntimeError("a process of the run ended without a word; see its output")
    first = kept[0]
    if first["kind"] in _STOPS:  # the one that has saved the place says how to go on
        stops = (record for record in kept if record["kind"] in _STOPS)
        first = next((record for record in stops if record["text"]), first)
    if first["kind"] == "ModelsFailed":
        return ModelsFailed(first["text"], first["table"])
    kinds = {kind.__name__: kind for kind in _KNOWN}
    return kinds.get(first["kind"], RuntimeError)(*filter(None, [first["text"]]))


def _under_torchrun(fn: Callable, args: tuple, settings: dict) -> Any:
    rank, size, local_rank = (int(os.environ[name]) for name in _TORCHRUN[:3])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    for key, started in (("nproc", here), ("world_size", size)):
        given = settings.get(key)
        if given not in (None, -1, started):
            raise ConfigError(
                f"{key}: {given} was asked for, but torchrun has started {started}; leave --{key} "
                "out under torchrun"
            )
    processes.set_rank(RankInfo(rank, size, local_rank))
    try:
        outcome = fn(*args)
    finally:
        processes.destroy_process_group()
    return outcome if rank == 0 else None
