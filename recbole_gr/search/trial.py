"""One trial: a run with some parameters, or the fit of a tokenizer with some."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.search.space import Params
from recbole_gr.search.task import Task
from recbole_gr.untrusted.shapes import OrNone, Rule, at_least

TOKENIZERS, TRIALS = "tokenizers", "trials"  # the studies
FINISHED, FAILED = "finished", "failed"
Record = dict[str, Any]
_METRICS = OrNone({...: OrNone(float)})
#: What is stored of a trial.
RECORD = {
    "number": at_least(0),
    "params": dict,
    "status": Rule("finished or failed", lambda status: status in (FINISHED, FAILED)),
    "message?": str,
    "seconds": OrNone(float),
}
#: What is beside that where it came to its end.
OF_STUDY = {
    TOKENIZERS: {
        "figures": {...: OrNone(float)}, "collapsed?": [str], "sid_digest": str
    },
    TRIALS: {
        "valid_score": float, "valid_result?": _METRICS, "test_result?": _METRICS,
        "best_epoch?": OrNone(int), "checkpoint?": OrNone(str), "example?": OrNone(dict),
        "test_interval?": OrNone({"users": at_least(2), "metrics": {...: [float]}}),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A trial to run: its number in the study, parameters, and what they are parameters of."""

    number: int
    params: Params
    task: Task


def run_trial(job: Job) -> Record:
    """Train and test one model; scored on the validation targets alone.

    Returns:
        dict: `valid_score`, `valid_result`, `test_result` (for the record, nothing chooses by it),
        `test_interval`, `best_epoch`, `checkpoint` and `example`.
    """
    from recbole_gr.run.model import WarmStart, run_model

    # A name of its own: one that follows from the time may come back once it was removed.
    file = checkpoint_of(job.task.checkpoints, job.number)
    result = run_model(job.task.config(job.params), start=WarmStart(checkpoint=file))
    same = ("test_result", "test_interval", "best_epoch", "sid_digest", "checkpoint", "example")
    return {
        "valid_score": result["best_valid_score"],
        "valid_result": result["best_valid_result"],
        **{key: result[key] for key in same},
    }


def fit_tokenizer(job: Job) -> Record:
    """Learn SIDs, which stay in `sid_dir` for the runs that follow, and judge them.

    Returns:
        dict: `figures` of the report (see `recbole_gr.report.tokenizers`), `collapsed` (reasons
        of the gate and of dead codes, whatever `sid_gate` says) and `sid_digest`.
    """
    from recbole_gr.pipeline.item_sids import learned_sids
    from recbole_gr.quality.gate import codes_in_order, collapse_reasons
    from recbole_gr.report.tokenizers import comparison_row

    config = job.task.config(job.params)
    sids = learned_sids(config)
    limits = config["sid_min_distinct"], config["sid_min_utilisation"]
    return {
        "figures": comparison_row(sids.report),
        "collapsed": collapse_reasons(sids.report, *limits, codes_in_order(config)),
        "sid_digest": sids.table.digest(),
    }


def recorded(objective: Any, job: Job) -> Record:
    """The record of a trial, also of one that fails; only Ctrl-C and exits go through."""
    began = perf_counter()
    try:
        outcome = {"status": FINISHED, **objective(job)}
        score = outcome.get("valid_score", 0.0)
        if score is None or not math.isfinite(score):
            raise ValueError(f"the validation score is {score}")
    except Exception as error:
        message = f"{type(error).__name__}: {error}".strip()
        outcome = {"status": FAILED, "message": message}
        log = logging.getLogger()
        if isinstance(error, ConfigError):
            log.error("Trial %d failed: %s", job.number, message)
        else:
            log.exception("Trial %d failed", job.number)
    return record_of(job, outcome, perf_counter() - began)


def record_of(job: Job, outcome: dict[str, Any], seconds: float | None) -> Record:
    """What is stored of a trial with its `status` and what it gave, or a `message`."""
    return {"number": job.number, "params": job.params, **outcome, "seconds": seconds}


def checkpoint_of(checkpoints: str, number: int) -> str:
    """The checkpoint of a trial of a search whose checkpoints' names begin in this way."""
    return f"{checkpoints}-{number}.pth"


def discard(checkpoints: str, number: int) -> None:
    """Remove what a trial kept that another one has beaten, PIT's warm-up included."""
    path = Path(checkpoint_of(checkpoints, number))
    path.unlink(missing_ok=True)
    path.with_name(f"{path.stem}-warmup{path.suffix}").unlink(missing_ok=True)
