"""One trial: a run with some parameters, or the fit of a tokenizer with some."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from recbole_gr.search.space import Params
from recbole_gr.search.store import FAILED, FINISHED, Record


@dataclass(frozen=True)
class Task:
    """What every trial has in common, as plain data that can be sent to another process.

    Attributes:
        model, dataset: names.
        files: of settings.
        settings: given beside them; parameters win over both.
        tokenizers: all that are tried. A key that only some of them know goes to these.
        checkpoints: what their names begin with.
    """

    model: str
    dataset: str
    files: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizers: tuple[str, ...] = ()
    checkpoints: str = "saved/search"

    def config(self, params: Params) -> Any:
        """The configuration of a trial; a ConfigError where it cannot be."""
        from recbole_gr.config import Config

        settings = {**self.settings, **params}
        return Config(
            self.model,
            self.dataset,
            list(self.files),
            settings,
            other_tokenizers=[t for t in self.tokenizers if t != settings.get("tokenizer")],
        )


@dataclass(frozen=True)
class Job:
    """A trial to run: its stage and number, parameters, and what they are parameters of."""

    stage: str
    number: int
    params: Params
    task: Task


def run_trial(job: Job) -> Record:
    """Train and test one model; scored on the validation targets alone.

    Returns:
        dict: `valid_score`, `valid_result`, `test_result` (for the record, nothing chooses by it),
        `test_interval`, `best_epoch`, `checkpoint` and `example`.
    """
    from recbole_gr.run.model import Start, run_model

    # A name of its own: one that follows from the time may come back once it was removed.
    file = checkpoint_of(job.task.checkpoints, job.number)
    result = run_model(job.task.config(job.params), start=Start(checkpoint=file))
    score = result["best_valid_score"]
    if score is None or score != score:
        raise ValueError(f"the validation score is {score}")
    return {
        "valid_score": score,
        "valid_result": result["best_valid_result"],
        "test_result": result["test_result"],
        "test_interval": result["test_interval"],
        "best_epoch": result["best_epoch"],
        "sid_digest": result["sid_digest"],
        "checkpoint": result["checkpoint"],
        "example": result["example"],
    }


def fit_tokenizer(job: Job) -> Record:
    """Learn SIDs, which stay in `sid_dir` for the runs that follow, and judge them.

    Returns:
        dict: `figures` of the report (see `recbole_gr.report.tokenizers`), `collapsed` (reasons
        of the gate and of dead codes, whatever `sid_gate` says) and `sid_digest`.
    """
    from recbole_gr.pipeline.item_sids import learned_sids
    from recbole_gr.quality.gate import collapse_reasons
    from recbole_gr.report.tokenizers import comparison_row

    config = job.task.config(job.params)
    sids = learned_sids(config)
    limits = config["sid_min_distinct"], config["sid_min_utilisation"]
    return {
        "figures": comparison_row(sids.report),
        "collapsed": collapse_reasons(sids.report, *limits),
        "sid_digest": sids.table.digest(),
    }


def recorded(function: Any, job: Job) -> Record:
    """The record of a trial, also of one that fails; only Ctrl-C and exits go through."""
    from recbole_gr.errors import ConfigError

    began = perf_counter()
    try:
        outcome = {"status": FINISHED, **function(job)}
    except Exception as error:
        message = f"{type(error).__name__}: {error}".strip()
        outcome = {"status": FAILED, "message": message}
        log = logging.getLogger()
        if isinstance(error, ConfigError):
            log.error("Trial %d failed: %s", job.number, message)
        else:
            log.exception("Trial %d failed", job.number)
    seconds = perf_counter() - began
    own = {"stage": job.stage, "number": job.number, "params": job.params}
    return {**own, **outcome, "seconds": seconds}


def checkpoint_of(checkpoints: str, number: int) -> str:
    """The checkpoint of a trial of a search whose checkpoints' names begin in this way."""
    return f"{checkpoints}-{number}.pth"


def discard(checkpoint: str) -> None:
    """Remove what a trial kept that another one has beaten, PIT's warm-up included."""
    path = Path(checkpoint)
    path.unlink(missing_ok=True)
    path.with_name(f"{path.stem}-warmup{path.suffix}").unlink(missing_ok=True)
