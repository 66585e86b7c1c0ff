"""Worker processes of a study: its runs side by side, each in a process of its own."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from recbole_gr.study.store import LOG

#: Takes the folders of runs and how many to do at a time; gives each folder, with the exit code of
#: its process, when that has ended.
Workers = Callable[[Sequence[Path], int], Iterator[tuple[Path, int]]]


def in_processes(folders: Sequence[Path], jobs: int) -> Iterator[tuple[Path, int]]:
    """Run `recbole_gr.study.cell` for each folder, `jobs` at a time; as :data:`Workers`.

    Each has its share of the threads (those of OMP_NUM_THREADS, else of the cores) and, where there
    are GPUs, one of those that CUDA_VISIBLE_DEVICES leaves. If the iteration is ended or
    interrupted, all are told to stop and waited for; they save their places.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdigit() else _cores()
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads // jobs))}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the modules of this one
    gpus, places = _gpus(), queue.SimpleQueue[int]()
    for place in range(jobs):
        places.put(place)
    running: set[subprocess.Popen] = set()
    stopping = threading.Event()

    def run(folder: Path) -> int:
        place = places.get()
        command = [sys.executable, "-m", "recbole_gr.study.cell", str(folder)]
        command += [gpus[place % len(gpus)]] if gpus else []
        try:
            with (
                open(folder / LOG, "ab") as log,
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
                    start_new_session=True,  # Ctrl-C comes to the study, which hands it on once
                ) as process,
            ):  # fmt: skip
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
