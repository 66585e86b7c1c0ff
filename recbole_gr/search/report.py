"""The outcome of a search: its trials in the order of their validation, and the best command."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_gr.report.table import aligned_table, csv_text
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.search.task import Task
from recbole_gr.search.trial import FINISHED, Record
from recbole_gr.storage.files import atomic_write


def write_search_report(
    file: Path,
    task: Task,
    outcome: dict[str, Any],
    order: Callable[[Record], Any],
    metric: str,
    criterion: str,
) -> dict[str, Any]:
    """Write `.md` and `.csv` beside the file of the trials.

    Args:
        file: of the trials.
        task: what they have in common.
        outcome: `best`, `trials` and `tokenizers`.
        order: sorts trials, the best one first.
        metric: that of the validation.
        criterion: figure that tokenizers are ranked by.

    Returns:
        dict: `table`, `command` (None where every trial failed) and `files` by "md", "csv",
        "jsonl".
    """
    trials = sorted(outcome["trials"], key=order)
    table = trial_table(trials, metric)
    command = best_command(task, outcome["best"]) if outcome["best"] else None
    page = [f"# Search: {task.model} on {task.dataset}", table]
    if command:
        page += [f"Best by {metric} on the validation targets:", f"```bash\n{command}\n```"]
    if outcome["tokenizers"]:
        page += ["Tokenizers by their SIDs:", tokenizer_table(outcome["tokenizers"], criterion)]
    files = {"md": file.with_suffix(".md"), "csv": file.with_suffix(".csv"), "jsonl": file}
    with atomic_write(files["md"]) as temporary:
        temporary.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    with atomic_write(files["csv"]) as temporary:
        temporary.write_text(trial_csv(trials), encoding="utf-8")
    return {"table": table, "command": command, "files": {k: str(v) for k, v in files.items()}}


def trial_table(trials: list[Record], metric: str) -> str:
    """A markdown table of trials: parameters, the metric on both splits, seconds or what failed."""
    names = _names(trial["params"] for trial in trials)
    lines = [["trial", *names, f"valid {metric}", f"test {metric}", "seconds", "status"]]
    for trial in trials:
        test = _metric(trial.get("test_result"), metric)
        status = trial["status"]
        if status != FINISHED:
            status += ": " + " ".join(trial["message"].split())[:80].replace("|", "/")
        numbers = [trial.get("valid_score"), test]
        cells = ["-" if number is None else f"{number:.4f}" for number in numbers]
        seconds = "-" if trial["seconds"] is None else f"{trial['seconds']:.0f}"
        shown = [_short(trial["params"].get(name, "")) for name in names]
        lines.append([str(trial["number"]), *shown, *cells, seconds, status])
    return aligned_table(lines)


def tokenizer_table(records: list[Record], criterion: str) -> str:
    """A markdown table of the first stage: parameters, the criterion, what is against one."""
    names = _names(record["params"] for record in records)
    title, form, _ = COLUMNS[criterion]
    lines = [["tokenizer", *names, title, "collapsed or failed"]]
    for record in records:
        value = record.get("figures", {}).get(criterion)
        why = record.get("message") or "; ".join(record.get("collapsed", ()))
        shown = [_short(record["params"].get(name, "")) for name in names]
        cell = "-" if value is None else form.format(value)
        lines.append([str(record["number"]), *shown, cell, " ".join(why.split()).replace("|", "/")])
    return aligned_table(lines)


def trial_csv(trials: list[Record]) -> str:
    """All trials with all their metrics."""
    names = _names(trial["params"] for trial in trials)
    splits = ("valid_result", "test_result")
    metrics = {s: _names(trial.get(s) or {} for trial in trials) for s in splits}
    heads = [f"{split.partition('_')[0]} {name}" for split in splits for name in metrics[split]]
    lines = [["trial", *names, "valid score", *heads, "seconds", "status", "message"]]
    for trial in trials:
        values = [(trial.get(s) or {}).get(name, "") for s in splits for name in metrics[s]]
        params = [_text(trial["params"].get(name, "")) for name in names]
        last = [trial["seconds"], trial["status"], trial.get("message", "")]
        lines.append([trial["number"], *params, trial.get("valid_score", ""), *values, *last])
    return csv_text(lines)


def best_command(task: Task, record: Record) -> str:
    """The command line that trains with the parameters of a trial."""
    files = [f"--config_files={','.join(task.files)}"] if task.files else []
    settings = {**task.settings, **record["params"]}
    arguments = [f"--{name}={_text(value)}" for name, value in settings.items()]
    parts = [f"--model={task.model}", f"--dataset={task.dataset}", *files, *arguments]
    return shlex.join(["python", "run_recbole_gr.py", *parts])


def _names(groups: Any) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _metric(result: dict[str, float] | None, name: str) -> float | None:
    return {key.lower(): value for key, value in (result or {}).items()}.get(name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else _text(value)
