"""The outcome of a search: its trials in the order of their validation, and the best command."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_gr.pages.search import write_search_page
from recbole_gr.report.metrics import metric_columns, metric_title
from recbole_gr.report.table import Column, table_text, write_files
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.search.task import Task
from recbole_gr.search.trial import FINISHED, Record
from recbole_gr.storage.checkpoint import versions
from recbole_gr.storage.manifest import machine


def write_search_report(
    file: Path,
    task: Task,
    outcome: dict[str, Any],
    order: Callable[[Record], Any],
    metric: str,
    criterion: str,
    header: dict[str, Any],
) -> dict[str, Any]:
    """Write `.md`, `.csv`, `.json` and `.html` beside the file of the trials.

    Args:
        file: of the trials.
        task: what they have in common.
        outcome: `best`, `trials` and `tokenizers`.
        order: sorts trials, the best one first.
        metric: that of the validation.
        criterion: figure that tokenizers are ranked by.
        header: of the trials' file: the hashes of the data, the settings, the parameters.

    Returns:
        dict: `table`, `command` (None where every trial failed) and `files` by "md", "csv",
        "json", "html", "jsonl".
    """
    trials = sorted(outcome["trials"], key=order)
    table = trial_table(trials, metric)
    command = best_command(task, outcome["best"]) if outcome["best"] else None
    page = [f"# Search: {task.model} on {task.dataset}", table]
    if command:
        best = f"Best by {metric_title(metric)} on the validation targets:"
        page += [best, f"```bash\n{command}\n```"]
    if outcome["tokenizers"]:
        page += ["Tokenizers by their SIDs:", tokenizer_table(outcome["tokenizers"], criterion)]
    told = {
        "model": task.model, "dataset": task.dataset, "metric": metric, "criterion": criterion,
        "command": command, "trials": [_plain(trial, metric) for trial in trials],
        "tokenizers": [_plain_tokenizer(record, criterion) for record in outcome["tokenizers"]],
        "made": {
            "command": [sys.executable, *sys.argv], "versions": versions(), "machine": machine(),
            "data": header["data"],
        },
        "settings": header["settings"], "parameters": header["parameters"],
        "best": {k: (outcome["best"] or {}).get(k) for k in ("number", "checkpoint", "example")},
    }  # fmt: skip
    files = write_files(
        file.parent, file.stem, md="\n\n".join(page) + "\n", rows=trial_rows(trials), data=told
    )
    files["html"] = write_search_page(files["json"])
    names = {kind: str(path) for kind, path in files.items()}
    return {"table": table, "command": command, "files": {**names, "jsonl": str(file)}}


def _plain(trial: Record, metric: str) -> dict[str, Any]:
    """What the page of a search shows of a trial."""
    kept = ("number", "params", "valid_score", "seconds", "status", "message")
    test = (trial.get("test_result") or {}).get(metric)
    return {**{key: trial.get(key) for key in kept}, "test": test}


def _plain_tokenizer(record: Record, criterion: str) -> dict[str, Any]:
    against = record.get("message") or "; ".join(record.get("collapsed", ()))
    figure = record.get("figures", {}).get(criterion)
    kept = {key: record[key] for key in ("number", "params")}
    return {**kept, "figure": figure, "against": " ".join(against.split())}


def trial_table(trials: list[Record], metric: str) -> str:
    """A markdown table of trials: parameters, the metric on both splits, seconds or what failed."""
    names, title = _names(trials), metric_title(metric)
    scores = [Column(f"{split} {title}", "{:.4f}") for split in ("valid", "test")]
    rows = []
    for trial in trials:
        status, test = trial["status"], (trial.get("test_result") or {}).get(metric)
        if status != FINISHED:
            status += ": " + " ".join(trial["message"].split())[:80].replace("|", "/")
        shown = [_short(trial["params"].get(name, "")) for name in names]
        found = [trial.get("valid_score"), test, trial["seconds"], status]
        rows.append([trial["number"], *shown, *found])
    seconds = Column("seconds", "{:.0f}")
    columns = [Column("trial"), *map(Column, names), *scores, seconds, Column("status")]
    return table_text(columns, rows)


def tokenizer_table(records: list[Record], criterion: str) -> str:
    """A markdown table of the first stage: parameters, the criterion, what is against one."""
    names, rows = _names(records), []
    for record in records:
        value = record.get("figures", {}).get(criterion)
        why = record.get("message") or "; ".join(record.get("collapsed", ()))
        shown = [_short(record["params"].get(name, "")) for name in names]
        rows.append([record["number"], *shown, value, " ".join(why.split()).replace("|", "/")])
    ends = [COLUMNS[criterion], Column("collapsed or failed")]
    return table_text([Column("tokenizer"), *map(Column, names), *ends], rows, mark_best=False)


def trial_rows(trials: list[Record]) -> list[list[Any]]:
    """All trials with all their metrics, a row each; the first one is the head."""
    names = _names(trials)
    splits = {"valid": "valid_result", "test": "test_result"}
    metrics = {s: metric_columns(trial.get(key) for trial in trials) for s, key in splits.items()}
    heads = [f"{split} {name}" for split in splits for name in metrics[split]]
    rows: list[list[Any]] = [["trial", *names, "valid score", *heads]]
    rows[0] += ["seconds", "status", "message"]
    for trial in trials:
        results = {split: trial.get(key) or {} for split, key in splits.items()}
        values = [results[split].get(name) for split in splits for name in metrics[split]]
        params = [_text(trial["params"].get(name, "")) for name in names]
        last = [trial["seconds"], trial["status"], trial.get("message", "")]
        rows.append([trial["number"], *params, trial.get("valid_score"), *values, *last])
    return rows


def best_command(task: Task, record: Record) -> str:
    """The command line that trains with the parameters of a trial."""
    files = [f"--config_files={','.join(task.files)}"] if task.files else []
    settings = {**task.settings, **record["params"]}
    arguments = [f"--{name}={_text(value)}" for name, value in settings.items()]
    parts = [f"--model={task.model}", f"--dataset={task.dataset}", *files, *arguments]
    return shlex.join(["python", "run_recbole_gr.py", *parts])


def _names(records: list[Record]) -> list[str]:
    """The parameters of any of the records."""
    return list(dict.fromkeys(name for record in records for name in record["params"]))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else _text(value)
