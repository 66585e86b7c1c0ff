"""The folder of a study: one a run, with what it is, what came out or why nothing did."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.quality.measures import QualityReport
from recbole_gr.report.ranks import write_rank_file
from recbole_gr.report.tokenizers import comparison_row
from recbole_gr.storage.checkpoint import stopped_beside
from recbole_gr.storage.json_files import load_json, save_json
from recbole_gr.study.earlier import is_run_of, siblings
from recbole_gr.study.plan import Cell
from recbole_gr.study.ranks import LIKELIHOOD, PROTOCOLS, TIED, load_ranks
from recbole_gr.untrusted.shapes import OrNone, at_least, require

TASK, RESULT, FAILED = "task.json", "result.json", "failed.json"
RANKS, CHECKPOINT, LOG = "ranks.npz", "model.pth", "run.log"
_REMEDY = "Remove its folder, and the run is done again."
_METRICS = OrNone({...: OrNone(float)})
#: What a report reads of a method in a period, of a run over periods.
PERIOD = {
    "period": at_least(0), "model": str, "method": str,
    "tokenizer": OrNone(str), "recommender": str,
    "test_result": {...: OrNone(float)}, "churn": OrNone(dict), "ranks": OrNone(str),
    "epochs_run": at_least(0), "seconds_per_epoch": OrNone(float), "total_seconds": float,
    "tokenizer_seconds": OrNone(float), "parameters": OrNone(int),
    "peak_memory_bytes": OrNone(int),
}  # fmt: skip
#: What a report reads of a result.
SHAPE = {
    "key": str,
    "best_valid_score": OrNone(float),
    "test_result": {...: OrNone(float)},
    "test_result_without_history": _METRICS,
    "test_buckets": OrNone({...: {...: OrNone(float)}}),
    "test_targets": OrNone(dict),
    "epochs_run": at_least(0),
    "seconds_per_epoch": OrNone(float),
    "seconds_total": float,
    "resumed": bool,
    "parameters": OrNone(int),
    "peak_memory_bytes": OrNone(int),
    "ranks": bool,
    "valid_curve?": OrNone([[OrNone(float)]]),
    "sid_figures?": OrNone({...: OrNone(float)}),
    "periods?": [PERIOD],
}
RESULT_KEYS = (
    *("model", "dataset", "best_valid_score", "best_valid_result", "test_result"),
    *("test_result_without_history", "test_interval", "test_buckets", "test_targets"),
    *("best_epoch", "epochs_run", "seconds_per_epoch", "seconds_total", "parameters"),
    *("valid_curve", "peak_memory_bytes", "sid_digest", "checkpoint", "example", "generation"),
)


@dataclass(frozen=True)
class Finished:
    """What a run gave: plain figures, and the rank of each user's target, None where its model
    ranks nothing; `folder` where it stands."""

    result: dict[str, Any]
    ranks: dict[str, Any] | None
    folder: Path


def prepare(folder: Path, cell: Cell) -> None:
    """Write down what is to be run in a folder; what a run before it left to go on from stays."""
    task = {"model": cell.model, "dataset": cell.dataset, "key": cell.key}
    if cell.weights is not None:
        task["weights"] = cell.weights
    save_json(folder / TASK, {**task, "settings": cell.settings, "inputs": cell.inputs})
    (folder / FAILED).unlink(missing_ok=True)


def read_task(folder: Path) -> dict[str, Any]:
    """What :func:`prepare` wrote."""
    task = load_json(folder / TASK)
    shape = {"model": str, "dataset": str, "key": str, "settings": dict, "weights?": str}
    require(task, shape, folder, _REMEDY)
    return task


def left_to_go_on_from(folder: Path) -> Path | None:
    """The checkpoint of a training that was interrupted there: where it was stopped, else its best
    epoch so far."""
    best = folder / CHECKPOINT
    return next((file for file in (stopped_beside(best), best) if file.is_file()), None)


def keep(folder: Path, result: dict[str, Any], key: str, resumed: bool) -> None:
    """Keep what a run gave; the file of the figures comes last, and says that it is finished."""
    ranks = result.get("test_ranks")
    if ranks is not None:  # users and items by their tokens, which are the same in every run
        tokens = {name: ranks.get(f"{name}_token", ranks[name]) for name in ("user", "item")}
        others = {name: ranks[name] for name in (*PROTOCOLS, LIKELIHOOD, TIED) if name in ranks}
        write_rank_file(folder / RANKS, {**tokens, **others})
    figures = {name: result.get(name) for name in RESULT_KEYS}
    if result.get("sid"):
        figures["sid_figures"] = comparison_row(QualityReport.of_dict(result["sid"]))
    save_json(
        folder / RESULT, {**figures, "key": key, "resumed": resumed, "ranks": ranks is not None}
    )


def keep_periods(folder: Path, results: list[dict[str, Any]], key: str) -> None:
    """Keep what a run over periods gave: the results of its methods by period, with their ranks in
    files named from the folder of the run on."""
    periods = [{name: result.get(name) for name in PERIOD} for result in results]
    for each in periods:
        each["ranks"] = each["ranks"] and os.path.relpath(each["ranks"], folder)
    kept: dict[str, Any] = dict.fromkeys(name.rstrip("?") for name in SHAPE)
    seconds = sum(float(e["total_seconds"] or 0) + (e["tokenizer_seconds"] or 0) for e in periods)
    kept |= {"key": key, "test_result": {}, "epochs_run": 0, "seconds_total": seconds}
    save_json(folder / RESULT, {**kept, "resumed": False, "ranks": False, "periods": periods})


def finished(folder: Path, cell: Cell) -> Finished | None:
    """What the run of a cell gave, in its folder or, by an earlier version of the program, in one
    beside it; None where it is not finished.

    Raises:
        ConfigError: a file of it is damaged or of something else; names it.
    """
    if (folder / RESULT).is_file():
        return _finished(folder, cell.key)
    for other in siblings(folder):
        if (other / RESULT).is_file() and (other / TASK).is_file():
            task = load_json(other / TASK, remedy=_REMEDY)
            if isinstance(task, dict) and is_run_of(task.get("inputs"), cell):
                return _finished(other, str(task.get("key")))
    return None


def _finished(folder: Path, key: str) -> Finished:
    file = folder / RESULT
    result = load_json(file, remedy=_REMEDY)
    require(result, SHAPE, file, _REMEDY)
    if result["key"] != key:
        raise ConfigError(f"'{file}' is of another run. {_REMEDY}")
    return Finished(result, load_ranks(folder / RANKS) if result["ranks"] else None, folder)


def note_failure(folder: Path, reason: str) -> None:
    """Keep why a run gave nothing."""
    save_json(folder / FAILED, {"reason": reason})


def reason_of(folder: Path, code: int) -> str:
    """Why a run whose process ended with an exit code gave nothing."""
    if (folder / FAILED).is_file():
        return str(load_json(folder / FAILED, remedy=_REMEDY).get("reason"))
    if code < 0:
        want = ", perhaps for want of memory" if code == -9 else ""
        return f"its process was killed by signal {-code}{want}; see '{folder / LOG}'"
    return f"its process ended with exit code {code}; see '{folder / LOG}'"
