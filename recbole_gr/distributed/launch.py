"""Launch of a run's processes: their start, the wait for their end, and the outcome of rank 0."""

import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from recbole_gr.distributed import failures, processes
from recbole_gr.distributed.layout import Layout, layout_of
from recbole_gr.distributed.rendezvous import RankInfo, port_in_use
from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import decode, encode
from recbole_gr.terminal.command_line import stopped_as_by_ctrl_c

PORT = 5678  # RecBole's
GRACE_PERIOD = 10.0  # seconds for the other processes to end once one has failed
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


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
        What ``fn`` returned on rank 0; None where that is on another machine, and under torchrun
        on all other ranks.

    Raises:
        ConfigError: the layout cannot be used, or ``fn`` raised one.
        KeyboardInterrupt: a signal to stop came, to this process or to one of those it started.
        MachineLost: another machine was cut off, or its processes killed; tells how to go on.
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
                for worker in context.processes:
                    worker.kill()  # if it is still there; no signal waits
        if error is not None:
            raise error
        outcome = Path(folder, "outcome")
        return decode(torch.load(outcome, weights_only=True)) if outcome.is_file() else None


def _wait(workers: Sequence[Any], folder: str) -> BaseException | None:
    """Wait until all processes of this machine have ended; what one of them failed with, or None.

    A signal to stop goes to all of them, and they end when they have saved their place; a second
    one does not wait. Where one fails the others cannot go on. (Not torch's `ProcessContext.join`:
    it sends another signal to those that are saving their place, and kills them after 30 seconds.)
    """
    waiting = {worker.sentinel: worker for worker in workers}
    stop: KeyboardInterrupt | None = None
    killed = None  # the first that a signal has ended
    kill_at: float | None = None
    while waiting:
        timeout = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        try:
            ended = [waiting.pop(sentinel) for sentinel in connection.wait(list(waiting), timeout)]
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
        if failed and not (stop or kill_at or failures.was_told_to_stop(folder)):
            killed = next((worker for worker in failed if worker.exitcode < 0), None)
            kill_at = time.monotonic() + GRACE_PERIOD
            for worker in waiting.values():
                worker.terminate()
        elif kill_at is not None and time.monotonic() >= kill_at:
            for worker in waiting.values():
                worker.kill()  # it waits in a call that no signal ends
    if killed is not None:
        return failures.killed_error(workers.index(killed), -killed.exitcode, folder)
    is_failed = any(worker.exitcode for worker in workers)
    return failures.first_error(folder, stop) if is_failed else None


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
    failures.keep_in(folder)
    rank = layout.group_offset + index
    # As many threads in all as a run of one process has; torchrun leaves each process one.
    torch.set_num_threads(max(1, n_threads // layout.nproc))
    file = None if layout.port else str(Path(folder, "store"))
    n = layout.nproc
    processes.set_rank(RankInfo(rank, layout.world_size, index, layout.ip, layout.port, file, n))
    try:
        with stopped_as_by_ctrl_c():
            outcome = fn(*args)
        if rank == 0:
            torch.save(encode(outcome), Path(folder, "outcome"))
    except BaseException as error:
        if not isinstance(error, (ConfigError, KeyboardInterrupt)):
            processes.await_verdict()
        failures.keep_error(Path(folder, f"error-{index}"), rank, error)
        sys.exit(1)
    finally:
        with contextlib.suppress(RuntimeError):  # of a connection that another process closed
            processes.destroy_process_group()


def _under_torchrun(fn: Callable, args: tuple, settings: dict) -> Any:
    """Call ``fn`` in this process, which is the rank that torchrun's environment says."""
    rank, size, local_rank = (int(os.environ[name]) for name in _TORCHRUN[:3])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    for key, started in (("nproc", here), ("world_size", size)):
        given = settings.get(key)
        if given not in (None, -1, started):
            raise ConfigError(
                f"{key}: {given} was asked for, but torchrun has started {started}; leave --{key} "
                "out under torchrun"
            )
    processes.set_rank(RankInfo(rank, size, local_rank, n_local=here))
    try:
        outcome = fn(*args)
    except Exception as error:
        if not isinstance(error, ConfigError):
            processes.await_verdict()
        raise
    finally:
        processes.destroy_process_group()
    return outcome if rank == 0 else None
