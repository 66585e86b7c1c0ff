"""The outcome of a search: its trials in the order of their validation, and the best command."""

import shlex
from collections.abc import Callable, Iterable
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
    page = [f"# Search: {task.model} on {task.dataset}", table]
    command = None
    if outcome["best"]:
        command = best_command(task, outcome["best"])
        page += [f"Best by {metric} on the validation targets:", f"```bash\n{command}\n```"]
    if outcome["tokenizers"]:
        page += ["Tokenizers by their SIDs:", tokenizer_table(outcome["tokenizers"], criterion)]
    texts = {"md": "\n\n".join(page) + "\n", "csv": trial_csv(trials)}
    for kind, text in texts.items():
        with atomic_write(file.with_suffix(f".{kind}")) as temporary:
            temporary.write_text(text, encoding="utf-8")
    files = {kind: str(file.with_suffix(f".{kind}")) for kind in texts}
    return {"table": table, "command": command, "files": {**files, "jsonl": str(file)}}


def trial_table(trials: list[Record], metric: str) -> str:
    """A markdown table of trials: parameters, the metric on both splits, seconds or what failed."""
    names = _names(trial["params"] for trial in trials)
    lines = [["trial", *names, f"valid {metric}", f"test {metric}", "seconds", "status"]]
    for trial in trials:
        status = trial["status"]
        if status != FINISHED:
            status += ": " + _line(trial["message"])[:80]
        test = {key.lower(): value for key, value in (trial.get("test_result") or {}).items()}
        scores = [_number(trial.get("valid_score"), "{:.4f}"), _number(test.get(metric), "{:.4f}")]
        last = [*scores, _number(trial["seconds"], "{:.0f}"), status]
        lines.append([str(trial["number"]), *_short(trial, names), *last])
    return aligned_table(lines)


def tokenizer_table(records: list[Record], criterion: str) -> str:
    """A markdown table of the first stage: parameters, the criterion, what is against one."""
    names = _names(record["params"] for record in records)
    title, form, _ = COLUMNS[criterion]
    lines = [["tokenizer", *names, title, "collapsed or failed"]]
    for record in records:
        figure = _number(record.get("figures", {}).get(criterion), form)
        why = record.get("message") or "; ".join(record.get("collapsed", ()))
        lines.append([str(record["number"]), *_short(record, names), figure, _line(why)])
    return aligned_table(lines)


def trial_csv(trials: list[Record]) -> str:
    """All trials with all their metrics."""
    names = _names(trial["params"] for trial in trials)
    metrics = [
        (split, name)
        for split in ("valid_result", "test_result")
        for name in _names(trial.get(split) or {} for trial in trials)
    ]
    heads = [f"{split.partition('_')[0]} {name}" for split, name in metrics]
    lines = [["trial", *names, "valid score", *heads, "seconds", "status", "message"]]
    for trial in trials:
        params = [_text(trial["params"].get(name, "")) for name in names]
        values = [(trial.get(split) or {}).get(name, "") for split, name in metrics]
        last = [trial["seconds"], trial["status"], trial.get("message", "")]
        lines.append([trial["number"], *params, trial.get("valid_score", ""), *values, *last])
    return csv_text(lines)


def best_command(task: Task, record: Record) -> str:
    """The command line that trains with the parameters of a trial."""
    settings = {"model": task.model, "dataset": task.dataset}
    if task.files:
        settings["config_files"] = ",".join(task.files)
    settings |= {**task.settings, **record["params"]}
    arguments = [f"--{name}={_text(value)}" for name, value in settings.items()]
    return shlex.join(["python", "run_recbole_gr.py", *arguments])


def _names(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _line(text: str) -> str:
    """Text for one cell of a table."""
    return " ".join(text.split()).replace("|", "/")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(record: Record, names: list[str]) -> list[str]:
    values = [record["params"].get(name, "") for name in names]
    return [f"{value:.5g}" if isinstance(value, float) else _text(value) for value in values]
