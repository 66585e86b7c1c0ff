"""Workers of a search: trials one after another in this process, or by RecBole's Ray Tune."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search.trial import FAILED, Job, Record, record_of, recorded
from recbole_gr.terminal.log import say

TOOLS = ("auto", "ray", "optuna")
Objective = Callable[[Job], Record]  # what a trial is
Done = Callable[[Record], None]
Workers = Callable[[Objective, list[Job], Done], None]


def choose_workers(tool: str) -> Workers:
    """What runs trials: `ray`, `optuna` (in this process), or `auto`: Ray where it can be used.

    Raises:
        ConfigError: no such tool, or Ray Tune cannot be imported though it is asked for.
    """
    if tool not in TOOLS:
        raise ConfigError(f"--tool={tool}: none of {', '.join(TOOLS)}{did_you_mean(tool, TOOLS)}")
    if tool == "optuna":
        return in_process
    try:
        import pyarrow  # noqa: F401 (Ray Tune ends every search with it)
        import ray.tune  # noqa: F401
    except ImportError as error:
        if tool == "ray":
            raise ConfigError(
                f'--tool=ray: {error}. pip install "recbole_gr[ray]", or take --tool=optuna'
            ) from error
        say("Ray Tune cannot be used (%s): trials run one by one", error)
        return in_process
    return with_ray


def in_process(objective: Objective, jobs: list[Job], done: Done) -> None:
    """Run jobs in their order; `done` takes the record of each when it ends."""
    for job in jobs:
        done(recorded(objective, job))


def with_ray(objective: Objective, jobs: list[Job], done: Done) -> None:
    """Run jobs as RecBole does, by `ray.tune.run`: as many at once as there are GPUs (or cores).

    An existing cluster is taken where `RAY_ADDRESS` names it.
    """
    import ray
    from ray import tune

    class Keep(tune.Callback):
        """Notes each trial at once: a kill loses no more than those that run."""

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            done(trial.last_result["record"])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            lost = {"status": FAILED, "message": "its process ended, see ray_log"}
            done(record_of(jobs[trial.config["job"]], lost, None))

    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    tune.run(
        tune.with_parameters(_ray_trial, objective=objective, jobs=jobs, folder=os.getcwd()),
        config={"job": tune.grid_search(list(range(len(jobs))))},
        resources_per_trial={"cpu": 1, "gpu": 1 if torch.cuda.is_available() else 0},
        callbacks=[Keep()],
        storage_path=str(Path("ray_log").absolute()),
        raise_on_failed_trial=False,
        verbose=0,
    )


def _ray_trial(config: dict, objective: Objective, jobs: list[Job], folder: str) -> dict:
    os.chdir(folder)  # Ray starts it in a folder of its own; data paths may be relative
    return {"record": recorded(objective, jobs[config["job"]])}
