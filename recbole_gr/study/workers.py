"""Workers of a study: its runs side by side, each in a process of its own, here or by Ray."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from recbole_gr.distributed.ray_cluster import Place, on_ray
from recbole_gr.storage.run_files import take_from_the_dead
from recbole_gr.study.cell import PATIENCE
from recbole_gr.study.store import FAILED, LOG, RESULT, note_failure

#: Takes the folders of runs and how many to do at a time, where None is for it to say; gives each
#: folder, with the exit code of its process, when that has ended.
Workers = Callable[[Sequence[Path], int | None], Iterator[tuple[Path, int]]]


def in_processes(folders: Sequence[Path], jobs: int | None = 1) -> Iterator[tuple[Path, int]]:
    """Run `recbole_gr.study.cell` for each folder, `jobs` at a time; as :data:`Workers`.

    Each has its share of the threads (those of OMP_NUM_THREADS, else of the cores) and, where there
    are GPUs, one of those that CUDA_VISIBLE_DEVICES leaves. If the iteration is ended or
    interrupted, all are told to stop and waited for; they save their places.
    """
    jobs = jobs or 1
    threads = max(1, _given_threads(_cores()) // jobs)
    gpus, places = _gpus(), queue.SimpleQueue[int]()
    for place in range(jobs):
        places.put(place)
    running: set[subprocess.Popen] = set()
    stopping = threading.Event()

    def run(folder: Path) -> int:
        place = places.get()
        try:
            with _process(folder, gpus[place % len(gpus)] if gpus else None, threads) as process:
                running.add(process)
                if stopping.is_set():
                    process.terminate()
                code = process.wait()
                running.discard(process)
                return code
        finally:
            places.put(place)

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, folder): folder for folder in folders}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            stopping.set()
            for future in futures:
                future.cancel()
            for process in list(running):
                process.terminate()


def by_ray(folders: Sequence[Path], jobs: int | None = None) -> Iterator[tuple[Path, int]]:
    """As :func:`in_processes`, on the nodes of a cluster: see
    :func:`recbole_gr.distributed.ray_cluster.on_ray`. A run whose node died goes on elsewhere."""
    shared = os.path.commonpath([folder.absolute() for folder in folders])
    with contextlib.closing(on_ray(_at_a_node, folders, shared, jobs)) as ended:
        for folder, gave, reason in ended:
            code, left = gave or (1, None)
            if reason:
                note_failure(folder, reason)
            elif left:
                _wait_for(folder / left)
            yield folder, code


def _at_a_node(folder: Path, place: Place) -> tuple[int, str | None]:
    """The run of a folder: its exit code, and the name of the file that says how it ended."""
    if place.again:
        take_from_the_dead(folder, PATIENCE)
    threads = min(place.threads, _given_threads(place.threads))
    with _process(folder, place.gpu, threads) as process:
        try:
            while (code := process.poll()) is None:
                # In parts: Ray interrupts Python, not what it waits for.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
        except BaseException:
            process.terminate()
            process.wait()  # it saves its place
            raise
    return code, next((name for name in (RESULT, FAILED) if (folder / name).is_file()), None)


def _wait_for(file: Path) -> None:
    """Until what another node has written is seen here too: NFS may remember for a minute that a
    file was not there."""
    last = time.monotonic() + PATIENCE
    while not file.is_file() and time.monotonic() < last:
        time.sleep(0.2)


@contextlib.contextmanager
def _process(folder: Path, gpu: str | None, threads: int) -> Iterator[subprocess.Popen]:
    """A process that runs the cell of a folder; waited for at the end of the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the modules of this one
    command = [sys.executable, "-m", "recbole_gr.study.cell", str(folder)]
    command += [] if gpu is None else [gpu]
    with (
        open(folder / LOG, "ab") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
            start_new_session=True,  # Ctrl-C comes to the study, which hands it on once
        ) as process,
    ):  # fmt: skip
        yield process


def _given_threads(others: int) -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else others


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs of this machine, by what RecBole's `gpu_id` calls them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]
