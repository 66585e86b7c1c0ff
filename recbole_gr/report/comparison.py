"""Results of finished runs as a table (markdown, CSV), as JSON and as a bar plot."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.data.ties import tied_text
from recbole_gr.report.bucket_table import bucket_table
from recbole_gr.report.epochs import write_epochs
from recbole_gr.report.lines import interval_lines
from recbole_gr.report.redistribution import write_redistribution
from recbole_gr.report.table import aligned_table, csv_text
from recbole_gr.storage.files import atomic_write

if TYPE_CHECKING:
    import os

_COST = ("best epoch", "s/epoch", "parameters", "peak MiB")
_MISSING = "-"
_TIE_ORDER = {
    "file": "that of the file (`tie_order: file`)",
    "shuffled": "drawn by the seed (`tie_order: shuffled`)",
}


def comparison_table(results: list[dict[str, Any]]) -> tuple[list[str], list[list]]:
    """One row a model: its test metrics, then what it cost.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them for one model.

    Returns:
        tuple[list[str], list[list]]: column names, and rows of values; None where a model has no
        such metric. Metrics are ordered by their cut-off: Recall@5, NDCG@5, MRR@5, Recall@10...
    """
    metrics = _metric_columns(results)
    rows = []
    for result in results:
        test = _by_lower_name(result.get("test_result"))
        peak = result.get("peak_memory_bytes")
        rows.append(
            [
                result["model"],
                *(test.get(metric.lower()) for metric in metrics),
                result.get("best_epoch"),
                result.get("seconds_per_epoch"),
                result.get("parameters"),
                None if peak is None else peak / 2**20,
            ]
        )
    return ["model", *metrics, *_COST], rows


def markdown_table(results: list[dict[str, Any]]) -> str:
    """The comparison as a markdown table; the best value of each metric is bold."""
    columns, rows = comparison_table(results)
    cells = [[_format(value, column) for column, value in zip(columns, row)] for row in rows]
    n_metrics = len(columns) - 1 - len(_COST)
    for index in range(1, 1 + n_metrics if len(rows) > 1 else 1):
        best = _best([row[index] for row in rows], smaller=_smaller_is_better(columns[index]))
        for row, cell in zip(rows, cells):
            if best is not None and row[index] == best:
                cell[index] = f"**{cell[index]}**"
    return aligned_table([columns, *cells])


def write_report(results: list[dict[str, Any]], folder: str | os.PathLike[str]) -> dict[str, str]:
    """Write `results.md`, `results.csv`, `results.json` and `results.png` into `folder`.

    Where a result has `epoch_figures`, also `epochs-<model>.json` and `epochs-<model>.png`; where
    it has a `redistribution`, that as JSON and PNG likewise.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them for one model, at least one.
        folder (str | os.PathLike): made if missing; files of an earlier call are replaced.

    Returns:
        dict[str, str]: the paths, by "md", "csv", "json" and "png".
    """
    files = {kind: Path(folder, f"results.{kind}") for kind in ("md", "csv", "json", "png")}
    with atomic_write(files["md"]) as tmp:
        tmp.write_text(_markdown_page(results), encoding="utf-8")
    with atomic_write(files["csv"]) as tmp:
        tmp.write_text(_csv_text(results), encoding="utf-8")
    with atomic_write(files["json"]) as tmp:
        tmp.write_text(json.dumps(_json_safe(results), indent=2) + "\n", encoding="utf-8")
    with atomic_write(files["png"]) as tmp:
        plot_results(results, tmp)
    for result in results:
        if result.get("epoch_figures"):
            write_epochs(result["epoch_figures"], Path(folder), result["model"])
        if result.get("redistribution"):
            write_redistribution(result["redistribution"], Path(folder), result["model"])
    return {kind: str(path) for kind, path in files.items()}


def plot_results(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of the test metrics, one group a metric and one bar a model, as PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, rows = comparison_table(results)
    metrics = columns[1 : len(columns) - len(_COST)]
    figure = Figure(figsize=(max(6.0, 1.2 * len(metrics) + 2), 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        left = [index - 0.4 + width * (number + 0.5) for index in range(len(metrics))]
        heights = [0.0 if value is None else value for value in row[1 : 1 + len(metrics)]]
        axes.bar(left, heights, width, label=row[0])
    axes.set_xticks(range(len(metrics)), metrics)
    axes.set_ylabel("test")
    axes.set_title(_title(results))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(ncols=min(len(rows), 5), fontsize="small")
    figure.savefig(path, dpi=150)


def _markdown_page(results: list[dict[str, Any]]) -> str:
    costs = (
        "Metrics are on the test split. Epochs count from 0. s/epoch is training time alone. peak "
        "MiB is GPU memory of tensors on a GPU, resident memory of the process elsewhere."
    )
    page = f"# {_title(results)}\n\n{markdown_table(results)}\n\n{costs}\n"
    sure = interval_lines(results)
    if sure:
        page += "\nHow sure the test metrics are:\n\n" + "".join(f"* {line}\n" for line in sure)
    ties = dict.fromkeys(filter(None, map(_tie_text, results)))
    page += "".join(f"\n{sentence}\n" for sentence in ties)
    buckets = bucket_table(results)
    if buckets:
        page += f"\nBy the number of training interactions of the target item:\n\n{buckets}\n"
    return page


def _tie_text(result: dict[str, Any]) -> str:
    """How many test targets are tied in time, and what decided their order; "" if not known."""
    targets = result.get("test_targets") or {}
    if targets.get("tied") is None:
        return ""
    text = tied_text(targets["tied"], targets["count"])
    order = (result.get("config") or {}).get("tie_order", "file")
    return f"{text[0].upper()}{text[1:]}; their order is {_TIE_ORDER[order]}."


def _csv_text(results: list[dict[str, Any]]) -> str:
    columns, rows = comparison_table(results)
    return csv_text([columns, *rows])


def _title(results: list[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(str(result.get("dataset", "results")) for result in results))


def _metric_columns(results: list[dict[str, Any]]) -> list[str]:
    """Metrics of all models in their usual spelling, by cut-off, then by appearance."""
    names: dict[str, str] = {}
    for result in results:
        wanted = (result.get("config") or {}).get("metrics") or ["Recall", "NDCG", "MRR"]
        spelling = {str(metric).lower(): str(metric) for metric in wanted}
        for name in result.get("test_result") or {}:
            metric, at, k = name.partition("@")
            names.setdefault(name.lower(), spelling.get(metric.lower(), metric) + at + k)
    return sorted(
        names.values(), key=lambda name: int(re.sub(r"\D", "", name.partition("@")[2]) or 0)
    )


def _by_lower_name(result: Mapping[str, float] | None) -> dict[str, float]:
    return {name.lower(): value for name, value in (result or {}).items()}


def _smaller_is_better(column: str) -> bool:
    return column.partition("@")[0].lower() in (
        "logloss",
        "mae",
        "rmse",
        "averagepopularity",
        "giniindex",
    )


def _best(values: Iterable[float | None], smaller: bool) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return (min if smaller else max)(known) if known else None


def _format(value: Any, column: str) -> str:
    if value is None:
        return _MISSING
    if isinstance(value, str):
        return value
    if column in ("parameters", "best epoch"):
        return f"{int(value):,}"
    if column == "peak MiB":
        return f"{value:,.0f}"
    if column == "s/epoch":
        return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
    return f"{value:.4f}"


def _json_safe(value: Any) -> Any:
    """JSON has no infinity and no NaN; they become null."""
    if isinstance(value, dict):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (str, int, bool, type(None))):
        return value
    return value.item() if hasattr(value, "item") else str(value)
