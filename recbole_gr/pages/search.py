"""The page of a search: its trials, the score by each setting, and the best command."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.config.command_lines import recommend_command
from recbole_gr.pages.parts import copyable, hash_table, record_parts, typed
from recbole_gr.report import charts
from recbole_gr.report.metrics import metric_title
from recbole_gr.report.page import Section, chart, panels, table, write_page
from recbole_gr.report.table import Column
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.storage.json_files import load_json

if TYPE_CHECKING:
    import os


def write_search_page(
    path: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> Path:
    """Write the page of a search beside its JSON; returns its path.

    Args:
        path: of the JSON, `saved/search/<model>-<dataset>-<params_file>.json`.
        to: the folder of the page, if it is not to lie there.

    Raises:
        ConfigError: the JSON cannot be read.
    """
    path = Path(path)
    found = load_json(path)
    title = metric_title(found["metric"].lower())
    sections = [
        Section("Trials", _trials(found["trials"], title)),
        Section("Tokenizers", _tokenizers(found["tokenizers"], found["criterion"])),
        *_made(found),
    ]
    name = f"Search: {found['model']} on {found['dataset']}"
    return write_page(Path(to or path.parent, f"{path.stem}.html"), name, sections)


def _made(found: Mapping[str, Any]) -> list[Section]:
    """Settings, provenance and commands; of a search of a former version its best command alone."""
    best, made = found.get("best") or {}, found.get("made") or {}
    rows = [[key, str(value), "given"] for key, value in found.get("settings", {}).items()]
    rows += [[name, str(value), "searched"] for name, value in found.get("parameters", {}).items()]
    head = [Column("key"), Column("value"), Column("")]
    ask = recommend_command(best.get("checkpoint"), best.get("example"))
    commands = {
        "The search, which goes on where it is": typed(made["command"]) if made else None,
        "Best by validation": found["command"],
        f"Recommend with trial {best.get('number')}": ask,
    }
    return [
        Section("Settings", [table(head, rows, texts=True)] if rows else []),
        Section("Provenance", [*record_parts(made), hash_table(made.get("data", {}))]),
        Section("Commands", copyable(commands)),
    ]


def _names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record["params"]))


def _trials(trials: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    done = [t for t in trials if t["valid_score"] is not None]
    numbers, scores = [t["number"] for t in done], [t["valid_score"] for t in done]
    plots = []
    if done:
        found = {"trial": (numbers, scores)}
        plots.append(chart(charts.points(found, f"validation {metric}", "trial")))
    for name in _names(done):
        values = [t["params"].get(name) for t in done]
        if len(set(map(str, values))) > 1:
            plots.append(chart(_by_setting(name, values, scores, numbers, metric)))
    names = _names(trials)
    rows = [
        [t["number"], *(t["params"].get(name) for name in names), t["valid_score"], t["test"],
         t["seconds"], f"{t['status']}: {t['message']}" if t["message"] else t["status"]]
        for t in trials
    ]  # fmt: skip
    head = [Column("trial"), *map(Column, names)]
    head += [Column(f"{split} {metric}", "{:.4f}", False) for split in ("valid", "test")]
    head += [Column("seconds", "{:,.0f}"), Column("status")]
    return [panels(plots) if plots else "", table(head, rows, mark_best=False)]


def _by_setting(
    name: str, values: list[Any], scores: list[float], numbers: list[int], metric: str
) -> charts.Figure:
    """Scores over a setting: numbers on a scale, of powers where they span more than two of ten."""
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    wide = plain and min(values) > 0 and math.log10(max(values) / min(values)) >= 1
    shown = values if plain else list(map(str, values))
    told = [f"trial {number}" for number in numbers]
    return charts.points({name: (shown, scores)}, f"{metric} by {name}", name, wide, told)


def _tokenizers(records: Sequence[Mapping[str, Any]], criterion: str) -> list[str]:
    if not records:
        return []
    names = _names(records)
    rows = [
        [r["number"], *(r["params"].get(name) for name in names), r["figure"], r["against"]]
        for r in records
    ]
    column = COLUMNS[criterion]
    head = [Column("tokenizer"), *map(Column, names), column, Column("collapsed or failed")]
    return [table(head, rows)]
