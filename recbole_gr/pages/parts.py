"""Parts that several pages have: metrics with intervals, buckets, settings, provenance."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_gr import registry
from recbole_gr.config.defaults import default_settings
from recbole_gr.config.layers import COMPUTED_KEYS
from recbole_gr.errors import ConfigError
from recbole_gr.report import charts
from recbole_gr.report.metrics import cut_off, metric_columns, metric_title
from recbole_gr.report.page import Section, chart, command, details, link, panels, paragraph, table
from recbole_gr.report.table import Column
from recbole_gr.storage.json_files import finite

SID_PAGE = "sids.html"  # beside what has SIDs
# What a run finds out for itself, and what says where its files are.
_OF_THE_RUN = {"model", "dataset", "data_path", "local_rank", "use_gpu", "state"}

#: Names of rows, and of each its metrics and their intervals, by the names of metrics.
Measured = Mapping[str, tuple[Mapping[str, float], Mapping[str, Sequence[float]]]]


def row_height(n_rows: int) -> int:
    """Pixels of a figure with a row a name."""
    return 60 + 28 * max(2, n_rows)


def by_cut_off(figures: Mapping[str, str]) -> list[str]:
    """Figures by the names of their metrics: those of the largest cut-off are shown, the others are
    folded."""
    largest = max(map(cut_off, figures), default=0)
    shown = [figure for metric, figure in figures.items() if cut_off(metric) == largest]
    others = [figure for metric, figure in figures.items() if cut_off(metric) != largest]
    return [panels(shown), *([details("Other metrics", panels(others))] if others else [])]


def interval_panels(measured: Measured) -> list[str]:
    """A figure a metric with a row a name; one name alone has one figure, with a row a metric."""
    metrics = list(metric_columns(values for values, _ in measured.values()))
    if len(measured) == 1:
        (values, ends) = next(iter(measured.values()))
        names = [metric_title(metric) for metric in metrics]
        shown = [values.get(metric) for metric in metrics]
        intervals = [ends.get(metric) for metric in metrics]
        lone = charts.intervals(names, {"": (shown, intervals)}, "test metrics, 95 % interval")
        return [chart(lone, row_height(len(names)))] if metrics else []
    figures = {}
    for metric in metrics:
        names = [name for name, (values, _) in measured.items() if metric in values]
        shown = [measured[name][0][metric] for name in names]
        intervals = [measured[name][1].get(metric) for name in names]
        figure = charts.intervals(names, {"": (shown, intervals)}, metric_title(metric))
        figures[metric] = chart(figure, row_height(len(names)))
    return by_cut_off(figures)


def metric_table(rows: Mapping[str, Mapping[str, float]], head: str = "model") -> str:
    """A table of metrics, one row a name."""
    columns = metric_columns(rows.values())
    lines = [[name, *map(values.get, columns)] for name, values in rows.items()]
    return table([Column(head), *columns.values()], lines)


def bucket_parts(
    lines: Sequence[tuple[str, str, float, Mapping[str, float | None]]], what: str
) -> list[str]:
    """A figure, where there are several buckets, and a table of metrics by what their targets are.

    Args:
        lines: row, bucket, number of targets, metrics.
        what: the buckets are of, such as "interactions of the target in training".
    """
    lines = [line for line in lines if line[2]]
    metrics = metric_columns({m: 0 for m in values} for *_, values in lines)
    if not lines or not metrics:
        return []
    rows = [[name, bucket, n, *map(values.get, metrics)] for name, bucket, n, values in lines]
    head = [Column("model"), Column(what), Column("targets", "{:,.0f}"), *metrics.values()]
    shown = max(metrics, key=lambda m: (cut_off(m), m.startswith("recall")))
    groups: dict[str, tuple[list[str], list[float | None]]] = {}
    counts = {bucket: n for _, bucket, n, _ in lines}
    for name, bucket, _, values in lines:
        names, heights = groups.setdefault(name, ([], []))
        names.append(f"{bucket} ({counts[bucket]:,.0f})")
        heights.append(values.get(shown))
    title = f"{metric_title(shown)} by {what} (targets)"
    drawn = [chart(charts.bars(groups, title))] if len(counts) > 1 else []
    return [*drawn, table(head, rows, mark_best=False)]


def changed_settings(run: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of a run that are not today's defaults, with those.

    Args:
        run: its `config`, whole, and `given`, the keys that the user set. Without those, as of runs
            of former versions, what a model works out for itself (`auto`, none) is left out.

    Returns:
        dict: value and default by key; None for the default of a key that has none. Empty where
        the model is none that this process knows.
    """
    config = run["config"]
    try:
        model = registry.get_model(config["model"])
        values = default_settings(model, config["dataset"], config.get("tokenizer")).values
    except (ConfigError, ImportError):
        return {}
    known = json.loads(json.dumps(finite(values), default=str))
    given = run.get("given")
    keys = [k for k in config if known.get(k) not in (None, "auto")] if given is None else given
    return {
        key: (config[key], known.get(key))
        for key in keys
        if key in config and key not in COMPUTED_KEYS | _OF_THE_RUN
        and not _same(config[key], known.get(key))
    }  # fmt: skip


def _same(value: Any, default: Any) -> bool:
    """Whether a value is a default; RecBole writes `mode: full` out for each split."""
    if isinstance(value, dict) and isinstance(default, dict):
        return all(_same(value.get(key), default[key]) for key in default)
    if isinstance(value, dict) and value:
        return all(_same(part, default) for part in value.values())
    return value == default


def settings_section(runs: Mapping[str, Mapping[str, Any]]) -> Section:
    """The settings that are not the defaults, a column a run, and all of them, folded.

    Args:
        runs: by name, as of :func:`changed_settings`; those without a `config` are left out.
    """
    runs = {name: run for name, run in runs.items() if run.get("config")}
    configs = {name: run["config"] for name, run in runs.items()}
    changed = {name: changed_settings(run) for name, run in runs.items()}
    columns = [Column("key"), *map(Column, configs), Column("default")]
    rows: list[list[Any]] = []
    for key in sorted({key for found in changed.values() for key in found}):
        default = next(found[key][1] for found in changed.values() if key in found)
        rows.append([key, *_values(key, configs), setting_text(default)])
    every = dict.fromkeys(key for config in configs.values() for key in config)
    whole = [[key, *_values(key, configs)] for key in every]
    if not whole:
        return Section("Settings", [])
    first = table(columns, rows, texts=True) if rows else paragraph("All are defaults.")
    rest = details("All settings", table(columns[:-1], whole, texts=True))
    return Section("Settings that differ from the defaults", [first, rest])


def record_parts(record: Mapping[str, Any]) -> list[str]:
    """Versions, machine and files of a manifest or of a part of a study."""
    versions = ", ".join(f"{name} {number}" for name, number in record.get("versions", {}).items())
    machine = record.get("machine") or {}
    shown = ", ".join(f"{k} {v}" for k, v in machine.items() if v is not None)
    return [
        paragraph(f"{head}: {text}.")
        for head, text in (("Versions", versions), ("Machine", shown))
        if text
    ]


def hash_table(files: Mapping[str, Any]) -> str:
    """Files and their sha256."""
    rows = [[name, value] for name, value in files.items()]
    return table([Column("file"), Column("sha256")], rows, texts=True) if rows else ""


def typed(arguments: Sequence[str]) -> str:
    """A command line as it is typed, from its arguments: a module of this package by its name."""
    program, script, *rest = [*arguments, ""][: max(2, len(arguments))]
    module = re.search(r"(?:^|/)(recbole_gr/.*)\.py$", script)
    if module:
        name = module[1].replace("/", ".").removesuffix(".__main__")
        return shlex.join([program.rpartition("/")[2], "-m", name, *rest])
    return shlex.join([program.rpartition("/")[2], script, *rest])


def walk_section(folder: Path) -> Section:
    """A link to the page of SIDs that lies in a folder; without parts where there is none."""
    there = (folder / SID_PAGE).is_file()
    return Section("SIDs", [link(SID_PAGE, "A walk through the SIDs")] if there else [])


def copyable(commands: Mapping[str, str | None]) -> list[str]:
    """Commands by what they do; those that are None are left out."""
    return [command(text, note) for note, text in commands.items() if text]


def _values(key: str, configs: Mapping[str, Mapping[str, Any]]) -> list[str | None]:
    return [setting_text(config[key]) if key in config else None for config in configs.values()]


def setting_text(value: Any) -> str:
    """The value of a setting as it is given, cut where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."
