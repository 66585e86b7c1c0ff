"""Workers of a search: trials one after another in this process, or by Ray on a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from recbole_gr.distributed.ray_cluster import Place, on_ray, require_ray
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search.trial import FAILED, Job, Record, record_of, recorded
from recbole_gr.terminal.log import say

TOOLS = ("auto", "ray", "optuna")
Objective = Callable[[Job], Record]  # what a trial is
Done = Callable[[Record], None]
Workers = Callable[[Objective, list[Job], Done], None]


def choose_workers(tool: str, jobs: int | None = None) -> Workers:
    """What runs trials: `ray`, `optuna` (in this process), or `auto`: Ray where it can be used.

    Args:
        jobs: trials at a time by Ray, at most.

    Raises:
        ConfigError: no such tool, or Ray cannot be used though it is asked for.
    """
    if tool not in TOOLS:
        raise ConfigError(f"--tool={tool}: none of {', '.join(TOOLS)}{did_you_mean(tool, TOOLS)}")
    if tool == "optuna":
        return in_process
    try:
        require_ray()
    except ConfigError as error:
        if tool == "ray":
            raise ConfigError(f"--tool=ray: {error}, or take --tool=optuna") from error
        say("Trials run one by one. %s", error)
        return in_process
    return partial(by_ray, most=jobs)


def in_process(objective: Objective, jobs: list[Job], done: Done) -> None:
    """Run jobs in their order; `done` takes the record of each when it ends."""
    for job in jobs:
        done(recorded(objective, job))


def by_ray(objective: Objective, jobs: list[Job], done: Done, most: int | None = None) -> None:
    """Run jobs on the nodes of a cluster, `most` at a time; `done` takes each record at once: a
    kill loses no more than those that run. See
    :func:`recbole_gr.distributed.ray_cluster.on_ray`."""
    shared = Path(jobs[0].task.checkpoints).parent
    shared.mkdir(parents=True, exist_ok=True)
    ended = on_ray(partial(_at_a_node, objective), jobs, shared, most)
    with contextlib.closing(ended):
        for job, record, reason in ended:
            if record is None:
                record = record_of(job, {"status": FAILED, "message": reason}, None)
            done(record)


def _at_a_node(objective: Objective, job: Job, place: Place) -> Record:
    gpus = {} if place.gpu is None else {"gpu_id": place.gpu}
    task = replace(job.task, settings={**gpus, **job.task.settings})
    return recorded(objective, replace(job, task=task))
