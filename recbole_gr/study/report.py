"""The report of a study: means and spreads, paired differences with intervals, and costs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_gr.pages.study import write_study_page
from recbole_gr.report.figure import interval_rows, panels, shared_legend
from recbole_gr.report.metrics import metric_columns, metric_title
from recbole_gr.report.table import Column, table_text, write_files
from recbole_gr.study.buckets import Bucket, by_frequency, by_ties
from recbole_gr.study.comparison import Comparison, compare
from recbole_gr.study.curves import Curves, curves_of, plot_curves
from recbole_gr.study.plan import Cell, Study
from recbole_gr.study.provenance import provenance_text
from recbole_gr.study.ranks import LIKELIHOOD, PROTOCOLS
from recbole_gr.study.sids import sid_figures_of, sid_table
from recbole_gr.study.statistics import Difference, spread
from recbole_gr.study.store import Finished

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COSTS = {  # of a result: column, and what its value is divided by
    "epochs_run": (Column("epochs", "{:.1f}"), 1),
    "seconds_per_epoch": (Column("s/epoch", "{:.3g}"), 1),
    "seconds_total": (Column("seconds", "{:.3g}"), 1),
    "parameters": (Column("parameters", "{:,.0f}"), 1),
    "peak_memory_bytes": (Column("peak MiB", "{:,.0f}"), 2**20),
}
_TITLES = {**PROTOCOLS, LIKELIHOOD: "mean log-likelihood of the target in nats, without a ranking"}
_WHOLE_RUN_COSTS = ("epochs_run", "seconds_total")  # not of the last part of an interrupted one
_ABOUT = """\
± is the standard deviation over seeds. A difference is that of each user and seed, averaged; its
95 % interval is over users and seeds, by a bootstrap of 2,000 draws. "ahead" and "behind" stand
where the interval leaves 0 out. The number of seeds that would be needed supposes that the
difference stays as it is; more seeds do not help where the users of the data set are too few for
it. No correction is made for the number of comparisons. Costs are means over seeds; epochs and
seconds are of runs that were not interrupted, seconds from data to test."""


def write_study_report(
    study: Study,
    results: Mapping[Cell, Finished],
    failed: Mapping[str, str],
    folder: Path,
    tuning: Mapping[str, Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `report.md`, `.csv`, `.json`, `.png` and `curves.png` into the folder of a study.

    Args:
        study: what its rows are.
        results: what finished.
        failed: reasons by run.
        folder: of the study.
        tuning: by data set and row what trials have come to
            (:meth:`recbole_gr.study.tuning.Trials.outcome`).
        provenance: of the runs (:func:`recbole_gr.study.provenance.provenance_of`).

    Returns:
        dict: `table` (markdown), `report` (what the JSON holds) and `files` by "md", "csv", "json",
        "png", "html" and, where runs were validated while they trained, "curves".
    """
    parts, sets, lines = [f"# Study: {study.name}"], {}, [list(_CSV)]
    comparisons: dict[str, Comparison] = {}
    curves: dict[str, Curves] = {}
    for dataset in study.datasets:
        own = {(c.row, c.seed): kept for c, kept in results.items() if c.dataset == dataset}
        runs = {
            row: {seed: own[row, seed] for seed in study.seeds if (row, seed) in own}
            for row in study.rows
        }
        runs = {row: by_seed for row, by_seed in runs.items() if by_seed}
        if not runs:
            continue
        found = comparisons[dataset] = compare(runs, study.baseline)
        costs, buckets, ties = _costs(runs), by_frequency(runs), by_ties(runs)
        curves[dataset] = curves_of(runs)
        figures = {**found.plain(), "costs": costs, "buckets": buckets, "ties": ties}
        figures["curves"], figures["sids"] = curves[dataset], sid_figures_of(runs)
        figures["trained"] = {row: _trained(by_seed) for row, by_seed in runs.items()}
        sets[dataset] = {**figures, "tuning": tuning.get(dataset)}
        parts += [f"## {dataset}", *_page_of(found, costs, buckets, ties, study.baseline)]
        if figures["sids"]:
            parts += ["SIDs before the collision policy:", sid_table(figures["sids"])]
        parts += _tuning_part(tuning.get(dataset, {}))
        if tuning and dataset not in tuning:
            parts.append(f"Settings as chosen on {study.tune_on[0]}.")
        lines += [[dataset, *line] for line in _csv_lines(found)]
    if failed:
        reasons = "\n".join(f"* {run}: {reason}" for run, reason in failed.items())
        parts.append(f"Failed, and tried again by the next call:\n\n{reasons}")
    table = "\n\n".join(parts[1:])
    report = {
        "study": study.name, "baseline": study.baseline, "seeds": study.seeds,
        "rows": study.rows, "settings": study.settings, "datasets": sets, "failed": dict(failed),
        "provenance": provenance, "command": [sys.executable, *sys.argv],
    }  # fmt: skip
    page = "\n\n".join([*parts, _ABOUT, provenance_text(provenance)]) + "\n"
    figure = plot_differences(comparisons, study.baseline)
    files = write_files(folder, "report", md=page, rows=lines, data=report, figure=figure)
    learning = write_files(folder, "curves", figure=plot_curves(curves))
    if learning:
        files["curves"] = learning["png"]
    files["html"] = write_study_page(folder)
    return {
        "table": table, "report": report,
        "files": {kind: str(path) for kind, path in files.items()},
    }  # fmt: skip


def _trained(by_seed: Mapping[int, Finished]) -> dict[str, Any]:
    """The checkpoint of a row's first seed, and what it may be asked."""
    result = next(iter(by_seed.values())).result
    return {key: result.get(key) for key in ("checkpoint", "example", "sid_digest")}


def _page_of(
    found: Comparison,
    costs: Mapping[str, Any],
    buckets: Sequence[Bucket],
    ties: Sequence[Bucket],
    baseline: str | None,
) -> list[str]:
    parts = []
    for protocol, rows in found.means.items():
        metrics = list(dict.fromkeys(name for row in rows.values() for name in row))
        head = [Column("model"), Column("seeds"), *(Column(metric_title(m)) for m in metrics)]
        lines = [
            [row, len(next(iter(values.values()))), *(_spread_text(values.get(m)) for m in metrics)]
            for row, values in rows.items()
        ]
        parts += [f"Test, {_TITLES[protocol]}:", table_text(head, lines)]
        if found.differences.get(protocol):
            head = [Column(t) for t in ("model", "metric", "difference", "95 %", "verdict")]
            lines = [
                [row, metric_title(metric), *_interval_cells(d), d.text]
                for row, by_metric in found.differences[protocol].items()
                for metric, d in by_metric.items()
            ]
            parts += [f"Minus {baseline}, paired:", table_text(head, lines)]
    parts += found.remarks
    head = [Column("model"), *(column for column, _ in _COSTS.values())]
    parts += ["Costs:", table_text(head, [[row, *v.values()] for row, v in costs.items()])]
    parts += _bucket_part("By training frequency of the target:", "in training", buckets)
    title = "By whether the target has the time of its user's event before it:"
    parts += _bucket_part(title, "target", ties)
    return parts


def _bucket_part(title: str, kind: str, buckets: Sequence[Bucket]) -> list[str]:
    """A table of metrics apart by their targets; nothing where there are none."""
    if not buckets:
        return []
    metrics = list(dict.fromkeys(name for *_, values in buckets for name in values))
    head = [Column("model"), Column(kind), Column("targets", "{:,.0f}")]
    head += [Column(metric_title(m)) for m in metrics]
    lines = [[*line, *map(_spread_text, map(v.get, metrics))] for *line, v in buckets]
    return [title, table_text(head, lines)]


def _tuning_part(tuning: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was chosen for each row of a data set; nothing where none was tuned."""
    if not tuning:
        return []
    head = [Column(t) for t in ("model", "chosen", "validation", "score", "trials", "failed")]
    head[3] = Column("score", "{:.4f}")
    lines = []
    for row, each in tuning.items():
        chosen = (each["chosen"] or {}).items()
        short = {key: f"{v:.4g}" if isinstance(v, float) else v for key, v in chosen}
        settings = ", ".join(f"{key}={value}" for key, value in short.items())
        n_failed = sum("message" in trial for trial in each["trials"])
        judged = each["metric"] or None, each["score"]
        lines.append([row, settings or None, *judged, len(each["trials"]), n_failed])
    title = "Settings chosen by the validation targets, with the first seed:"
    return [title, table_text(head, lines)]


def _interval_cells(d: Difference) -> tuple[str, str]:
    # 0 has no sign of its own
    mean, low, high = (f"{round(value, 4) + 0.0:+.4f}" for value in (d.mean, d.low, d.high))
    return mean, f"[{low}, {high}]"


def _spread_text(values: Sequence[float] | None) -> str | None:
    if not values:
        return None
    mean, deviation = spread(np.asarray(values))
    return f"{mean:.4f}" + (f" ± {deviation:.4f}" if len(values) > 1 else "")


def _costs(runs: Mapping[str, Mapping[int, Finished]]) -> dict[str, dict[str, float | None]]:
    """By row what its runs cost, as means over seeds; None where nothing is known."""
    costs = {}
    for row, by_seed in runs.items():
        costs[row] = {
            key: _mean(
                kept.result[key] / unit
                for kept in by_seed.values()
                if kept.result[key] is not None
                and not (kept.result["resumed"] and key in _WHOLE_RUN_COSTS)
            )
            for key, (_, unit) in _COSTS.items()
        }
    return costs


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.mean(known)) if known else None


_CSV = (
    *("dataset", "protocol", "model", "metric", "seeds", "mean", "deviation"),
    *("difference", "low", "high", "verdict", "needed_seeds"),
)


def _csv_lines(found: Comparison) -> list[list[Any]]:
    lines = []
    for protocol, rows in found.means.items():
        for row, values in rows.items():
            for metric, by_seed in values.items():
                line = [protocol, row, metric, len(by_seed), *spread(np.asarray(by_seed))]
                d = found.differences.get(protocol, {}).get(row, {}).get(metric)
                line += [d.mean, d.low, d.high, d.verdict, d.needed_seeds] if d else [None] * 5
                lines.append(line)
    return lines


def plot_differences(comparisons: Mapping[str, Comparison], baseline: str | None) -> Figure | None:
    """Intervals of the differences, one panel a metric; None where nothing is compared."""
    points: dict[str, list[tuple[str, str, Any]]] = {}
    for dataset, found in comparisons.items():
        for protocol, rows in found.differences.items():
            for row, by_metric in rows.items():
                for metric, difference in by_metric.items():
                    label = f"{row}, {dataset}" if len(comparisons) > 1 else row
                    points.setdefault(metric, []).append((label, protocol, difference))
    if not points:
        return None
    metrics = list(metric_columns([points]))
    labels = list(dict.fromkeys(label for each in points.values() for label, *_ in each))
    used = [p for p in _TITLES if any(p == q for each in points.values() for _, q, _ in each)]
    figure, places = panels(len(metrics), (4.5, 1.5 + 0.4 * len(labels)), 2, sharey=True)
    for panel, metric in zip(places, metrics):
        panel.axvline(0, color="grey", linewidth=1)
        own = {(label, protocol): d for label, protocol, d in points[metric]}
        groups = {
            protocol.replace("_", " "): [
                (d.mean, d.low, d.high) if (d := own.get((label, protocol))) else None
                for label in labels
            ]
            for protocol in used
        }
        interval_rows(panel, labels, groups)
        panel.set_title(metric_title(metric))
    shared_legend(figure)
    figure.suptitle(f"Difference to {baseline}, 95 % intervals over users and seeds")
    return figure
