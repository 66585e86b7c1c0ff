"""Tasks on a cluster by Ray: as many at once as it has room for, each counted once."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from recbole_gr.errors import ConfigError
from recbole_gr.terminal.command_line import STOPS
from recbole_gr.terminal.log import say

TIMES = 3  # that a task is given out whose node or worker died each time
PATIENCE = 120.0  # seconds for tasks that are told to stop to save their places and end
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """What a task has of the node it runs on.

    Attributes:
        gpu: its GPU, as of RecBole's `gpu_id`; None where the cluster has none.
        threads: its cores.
        again: it was given out before, to a node or worker that died.
    """

    gpu: str | None
    threads: int
    again: bool


class NotShared(ConfigError):
    """A node does not see the folder that all work in."""


def require_ray() -> Any:
    """The module `ray`.

    Raises:
        ConfigError: it cannot be imported; says what to install.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f'Ray cannot be used: {error}. pip install "recbole_gr[ray]"') from error
    return ray


def on_ray(
    function: Callable[[T, Place], Any],
    tasks: Sequence[T],
    folder: str | os.PathLike[str],
    most: int | None = None,
) -> Generator[tuple[T, Any, str], None, None]:
    """Run `function` on each task, on the cluster that RAY_ADDRESS names or that runs on this
    machine, else on the cores and GPUs of this machine.

    A task has a GPU where the cluster has any, and a share of the cores. One whose node or worker
    died is given out again, to any that lives, `TIMES` times in all. If the iteration is ended or
    interrupted, those that run are told to stop, by KeyboardInterrupt, and waited for.

    Args:
        function: of a module that all nodes have; what a task runs, in the working folder of this
            process.
        tasks: what it takes, as plain data.
        folder: which all nodes must see as this process does, as they must the working folder.
        most: tasks at a time; None is as many as there is room for.

    Returns:
        iterator: each task once, as it ends, with what it gave and an empty reason, or with None
        and the reason why it gave nothing.

    Raises:
        ConfigError: there is no Ray, no such cluster, or a node does not see the folder.
    """
    here = os.getcwd()
    with _connected() as ray, tempfile.NamedTemporaryFile(dir=folder, prefix=".ray-") as mark:
        threads, gpus = share(_nodes(ray), min(most or len(tasks), len(tasks)))
        # Lost tasks are given out again here and not by Ray, so that a task knows of it.
        options = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0}
        remote = ray.remote(**options, scheduling_strategy="SPREAD")(_at_a_node)
        left, lost = deque(range(len(tasks))), Counter[int]()
        running: dict[Any, tuple[Any, int]] = {}  # by future: Ray's reference, and which task
        try:
            while left or running:
                while left and len(running) < (most or len(tasks)):
                    number = left.popleft()
                    given = (function, tasks[number], here, os.path.abspath(mark.name))
                    reference = remote.remote(*given, threads, lost[number] > 0)
                    running[reference.future()] = reference, number
                # Not ray.wait, which makes every signal a plain KeyboardInterrupt.
                ended = wait(running, return_when=FIRST_COMPLETED).done
                for future in sorted(ended, key=lambda each: running[each][1]):
                    _, number = running.pop(future)
                    error = future.exception()
                    if error is None:
                        yield tasks[number], future.result(), ""
                    elif isinstance(error, ray.exceptions.RayTaskError):
                        if isinstance(error.cause, NotShared):
                            raise ConfigError(str(error.cause))
                        yield tasks[number], None, _in_words(error.cause or error)
                    else:
                        lost[number] += 1
                        if lost[number] < TIMES:
                            say("Ray lost a task, which is given out again: %s", _in_words(error))
                            left.appendleft(number)
                        else:
                            reason = f"lost {TIMES} times by Ray, at last: {_in_words(error)}"
                            yield tasks[number], None, reason
        finally:
            for reference, _ in running.values():
                ray.cancel(reference)
            wait(running, timeout=PATIENCE)


def share(nodes: Iterable[tuple[int, int]], wanted: int) -> tuple[int, int]:
    """The cores and GPUs of a task: as many cores as leave room for `wanted` tasks at a time, or
    for as many as can be, and no more than the smallest node has: any can take over.

    Args:
        nodes: cores and GPUs of each.

    Raises:
        ConfigError: none can run a task.
    """
    nodes = list(nodes)
    gpu = any(gpus for _, gpus in nodes)  # then nodes without one run nothing
    able = [(cores, gpus) for cores, gpus in nodes if cores and (gpus or not gpu)]
    if not able:
        raise ConfigError(
            "No node of the cluster has a core for a run"
            + (" beside its GPU" if gpu else "")
            + ": start Ray there with --num-cpus=N."
        )

    def places(threads: int) -> int:
        return sum(min(n // threads, gpus) if gpu else n // threads for n, gpus in able)

    wanted = min(wanted, places(1))
    smallest = min(cores for cores, _ in able)
    return max(n for n in range(1, smallest + 1) if places(n) >= wanted), int(gpu)


def _nodes(ray: Any) -> list[tuple[int, int]]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in alive]


@contextlib.contextmanager
def _connected() -> Iterator[Any]:
    """Ray, connected; what is connected already stays so."""
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    kept = {number: signal.getsignal(number) for number in STOPS}
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS")
        at = f"the cluster of RAY_ADDRESS={address}" if address else "Ray"
        raise ConfigError(f"{at} cannot be used: {_in_words(error)}") from error
    for number, handler in kept.items():
        if signal.getsignal(number) is not handler:  # Ray has one of its own for SIGTERM
            signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def _at_a_node(
    function: Callable[[Any, Place], Any], task: Any, here: str, mark: str, threads: int,
    again: bool,
) -> Any:  # fmt: skip
    """A task, in a process of Ray's."""
    import ray

    for path, seen in ((here, os.path.isdir(here)), (Path(mark).parent, os.path.isfile(mark))):
        if not seen:
            raise NotShared(
                f"The node {platform.node()} does not see '{path}' of this machine. Runs by Ray "
                "need a folder that all nodes have at the same path, on storage that they share."
            )
    os.chdir(here)
    gpus = ray.get_gpu_ids()
    return function(task, Place(str(gpus[0]) if gpus else None, threads, again))


def _in_words(error: BaseException) -> str:
    """An error in a line: Ray's have many."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}".removesuffix(": ")
