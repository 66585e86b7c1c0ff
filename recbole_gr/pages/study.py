"""The page of a study: paired differences with intervals, means, costs, buckets, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from recbole_gr.config.command_lines import export_command, recommend_command
from recbole_gr.pages.parts import (
    bucket_parts,
    by_cut_off,
    copyable,
    hash_table,
    record_parts,
    row_height,
    setting_text,
    typed,
)
from recbole_gr.report import charts
from recbole_gr.report.metrics import metric_columns, metric_title
from recbole_gr.report.page import Section, chart, paragraph, table, write_page
from recbole_gr.report.table import Column
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.storage.json_files import load_json

if TYPE_CHECKING:
    import os

SOURCE = "report.json"
_PROTOCOLS = {
    "with_history": "history in the ranking",
    "without_history": "history left out",
    "exact_with_history": "exact, history in the ranking",
    "exact_without_history": "exact, history left out",
}
_COSTS = (
    ("epochs_run", Column("epochs", "{:.1f}")), ("seconds_per_epoch", Column("s/epoch", "{:.3g}")),
    ("seconds_total", Column("seconds", "{:.3g}")),
    ("parameters", Column("parameters", "{:,.0f}")),
    ("peak_memory_bytes", Column("peak MiB", "{:,.0f}")),
)  # fmt: skip


class Spread(float):
    """A mean that is written with the standard deviation of its seeds."""

    def __new__(cls, values: Sequence[float]) -> Spread:
        made = super().__new__(cls, fmean(values))
        made.deviation = stdev(values) if len(values) > 1 else None
        return made

    deviation: float | None

    def __format__(self, form: str) -> str:
        around = "" if self.deviation is None else f" ± {float(self.deviation):{form}}"
        return f"{float(self):{form}}{around}"

    __repr__ = float.__repr__


def write_study_page(
    folder: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> Path:
    """Write `report.html` from the `report.json` of a study; returns its path.

    Args:
        folder: of the study.
        to: the folder of the page, if it is not to lie there.

    Raises:
        ConfigError: the JSON cannot be read.
    """
    folder = Path(folder)
    report = load_json(folder / SOURCE)
    sections = []
    for dataset, found in report["datasets"].items():
        sections += _sections_of(dataset, found, report["baseline"])
    if report.get("failed"):
        rows = [[run, reason] for run, reason in report["failed"].items()]
        head = [Column("run"), Column("reason")]
        sections.append(Section("Failed runs", [table(head, rows, texts=True)]))
    sections += [_settings(report), _provenance(report["provenance"]), _commands(report)]
    seeds = ("seed " if len(report["seeds"]) == 1 else "seeds ") + ", ".join(
        map(str, report["seeds"])
    )
    return write_page(
        Path(to or folder, "report.html"), f"Study: {report['study']}", sections, seeds
    )


def _sections_of(dataset: str, found: Mapping[str, Any], baseline: str | None) -> list[Section]:
    means = [_means(name, rows) for name, rows in found["metrics"].items()]
    learning = [_curves(found.get("curves") or {})]
    cells = [[row, *map(costs.get, dict(_COSTS))] for row, costs in found["costs"].items()]
    sids = found.get("sids") or {}
    lines = [[row, *(fmean(v[n]) if n in v else None for n in COLUMNS)] for row, v in sids.items()]
    shown = [n for n, name in enumerate(COLUMNS) if any(line[n + 1] is not None for line in lines)]
    known = [[line[0], *(line[n + 1] for n in shown)] for line in lines]
    heads = [column for n, column in enumerate(COLUMNS.values()) if n in shown]
    return [
        Section(f"{dataset}: differences", _differences(found["differences"], baseline)),
        Section(f"{dataset}: test", [*sum(means, []), *map(paragraph, found["remarks"])]),
        Section(f"{dataset}: learning", [part for part in learning if part]),
        Section(f"{dataset}: which targets are found", [
            *bucket_parts(_mean_lines(found["buckets"]), "interactions of the target in training"),
            *bucket_parts(_mean_lines(found["ties"]), "time of the target"),
        ]),
        Section(f"{dataset}: SIDs", [table([Column("model"), *heads], known)] if known else []),
        Section(f"{dataset}: costs", [
            table([Column("model"), *(column for _, column in _COSTS)], cells, mark_best=False)
        ]),
        Section(f"{dataset}: settings chosen", _tuning(found.get("tuning") or {})),
    ]  # fmt: skip


def _differences(found: Mapping[str, Any], baseline: str | None) -> list[str]:
    """Figures of the largest cut-off, the others folded, and every verdict in a table."""
    metrics = metric_columns(v for rows in found.values() for v in rows.values())
    figures = {}
    for metric in metrics:
        rows = list(dict.fromkeys(r for v in found.values() for r in v if metric in v[r]))
        groups = {}
        for protocol, by_row in found.items():
            own = [by_row.get(row, {}).get(metric) for row in rows]
            values = [None if d is None else d["mean"] for d in own]
            ends = [None if d is None else (d["low"], d["high"]) for d in own]
            if any(own):
                groups[_PROTOCOLS.get(protocol, protocol)] = (values, ends)
        if not groups:
            continue
        title = f"{metric_title(metric)} minus that of {baseline}"
        figure = charts.intervals(rows, groups, title, line=0.0)
        size = row_height(len(rows) * max(1, len(groups)) * 2 // 3)
        figures[metric] = chart(figure, size + 30)
    verdicts = [
        [row, metric_title(metric), _PROTOCOLS.get(protocol, protocol), d["mean"],
         f"[{d['low']:+.4f}, {d['high']:+.4f}]", d["verdict"], d["needed_seeds"]]
        for protocol, rows_of in found.items() for row, by_metric in rows_of.items()
        for metric, d in by_metric.items()
    ]  # fmt: skip
    if not verdicts:
        return []
    names = ("model", "metric", "ranking", "difference", "95 %", "verdict", "seeds needed")
    head = [Column(n, "{:+.4f}" if n == "difference" else "{}") for n in names]
    sure = "95 % intervals over users and seeds, by a bootstrap of paired differences."
    return [*by_cut_off(figures), paragraph(sure), table(head, verdicts, mark_best=False)]


def _means(protocol: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    columns = metric_columns(rows.values())
    lines = [
        [row, *(Spread(v[m]["seeds"]) if m in v else None for m in columns)]
        for row, v in rows.items()
    ]
    title = _PROTOCOLS.get(protocol, protocol.replace("_", " "))
    several = any(len(v[m]["seeds"]) > 1 for v in rows.values() for m in v)
    what = "mean ± standard deviation over seeds" if several else "of one seed"
    return [paragraph(f"{title[0].upper()}{title[1:]}; {what}:"),
            table([Column("model"), *columns.values()], lines)]  # fmt: skip


def _curves(found: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Validation scores by epoch: the mean of the seeds where all of them have one."""
    lines: dict[str, tuple[Sequence[Any], Sequence[float | None]]] = {}
    for row, by_seed in found.items():
        scores = [{epoch: score for epoch, score in curve} for curve in by_seed.values()]
        epochs = sorted(set.intersection(*map(set, scores)))
        lines[row] = (epochs, [fmean(seed[epoch] for seed in scores) for epoch in epochs])
    return chart(charts.curves(lines, "validation score while training"), 420) if lines else ""


def _mean_lines(
    buckets: Sequence[Sequence[Any]],
) -> list[tuple[str, str, float, dict[str, float | None]]]:
    return [
        (row, bucket, n, {metric: Spread(seeds) for metric, seeds in values.items() if seeds})
        for row, bucket, n, values in buckets
    ]


def _tuning(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = []
    for row, each in found.items():
        for trial in each["trials"]:
            chosen = "chosen" if trial["number"] == each["trial"] else trial.get("message", "")
            params = ", ".join(f"{key}={value}" for key, value in trial["params"].items())
            rows.append([row, params, trial.get("score"), chosen])
    metric = next((each["metric"] for each in found.values() if each["metric"]), "score")
    head = [
        Column("model"),
        Column("settings"),
        Column(f"validation {metric}", "{:.4f}"),
        Column("outcome"),
    ]
    return [table(head, rows, mark_best=False)] if rows else []


def _settings(report: Mapping[str, Any]) -> Section:
    rows = [
        [name, *(", ".join(f"{k}={setting_text(v)}" for k, v in row.items() if k != "model"),)]
        for name, row in {"all": report["settings"], **report["rows"]}.items()
    ]
    head = [Column("row"), Column("settings of the file")]
    return Section("Settings", [table(head, rows, texts=True)])


def _provenance(found: Mapping[str, Any]) -> Section:
    told = f"{found['runs']} runs, {found['seconds'] / 3600:.2f} hours of training and testing."
    parts = [paragraph(told)]
    for made in found.get("made_on", []):
        parts += [paragraph(f"{made['runs']} runs:"), *record_parts(made)]
    files = {name: value for own in found.get("data", {}).values() for name, value in own.items()}
    return Section("Provenance", [*parts, hash_table(files)])


def _commands(report: Mapping[str, Any]) -> Section:
    made = report.get("command")
    commands = {"The study, which goes on where it is": typed(made) if made else None}
    for dataset, found in report["datasets"].items():
        for row, kept in (found.get("trained") or {}).items():
            ask = recommend_command(kept["checkpoint"], kept["example"])
            commands[f"Recommend with {row} on {dataset}, first seed"] = ask
            if ask and kept["sid_digest"]:
                export = export_command(kept["checkpoint"])
                commands[f"Export {row} on {dataset}, first seed"] = export
    return Section("Commands", copyable(commands))
