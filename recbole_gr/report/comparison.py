"""Results of finished runs as a table (markdown, CSV), as JSON and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.data.ties import tied_text
from recbole_gr.report.bucket_table import bucket_table
from recbole_gr.report.epochs import plot_epochs
from recbole_gr.report.figure import interval_rows, panels
from recbole_gr.report.lines import interval_text
from recbole_gr.report.metrics import metric_columns
from recbole_gr.report.ranks import without_history_table, write_rank_file, write_ranks
from recbole_gr.report.redistribution import plot_redistribution
from recbole_gr.report.table import Column, table_text, write_files

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

_COST = (
    Column("best epoch", "{:,.0f}"), Column("s/epoch", "{:.3g}"),
    Column("parameters", "{:,.0f}"), Column("peak MiB", "{:,.0f}"),
)  # fmt: skip
# What a model may have for itself: names of files, its key in a result, and its picture.
_OWN_FILES = {
    "epochs": ("epoch_figures", plot_epochs),
    "redistribution": ("redistribution", plot_redistribution),
}
_TIE_ORDER = {
    "file": "that of the file (`tie_order: file`)",
    "shuffled": "drawn by the seed (`tie_order: shuffled`)",
}


def comparison_table(results: list[dict[str, Any]]) -> tuple[list[Column], list[list]]:
    """One row a model: its test metrics, then what it cost.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them for one model.

    Returns:
        tuple[list[Column], list[list]]: columns, and rows of values; None where a model has no such
        metric. Metrics are ordered as by :func:`~recbole_gr.report.metrics.metric_columns`.
    """
    metrics = metric_columns(result.get("test_result") for result in results)
    rows = []
    for result in results:
        test, peak = result.get("test_result") or {}, result.get("peak_memory_bytes")
        costs = map(result.get, ("best_epoch", "seconds_per_epoch", "parameters"))
        mib = None if peak is None else peak / 2**20
        rows.append([result["model"], *map(test.get, metrics), *costs, mib])
    return [Column("model"), *metrics.values(), *_COST], rows


def markdown_table(results: list[dict[str, Any]]) -> str:
    """The comparison as a markdown table; the best value of each metric is bold."""
    return table_text(*comparison_table(results))


def write_report(results: list[dict[str, Any]], folder: str | os.PathLike[str]) -> dict[str, str]:
    """Write `results.md`, `results.csv`, `results.json` and `results.png` into `folder`.

    Where a result has `epoch_figures`, also `epochs-<model>.json` and `epochs-<model>.png`; where
    it has a `redistribution`, that as JSON and PNG likewise; and its `test_ranks` and `walk` (SIDs
    of before and after), which are in no other file, as `ranks-<model>.npz`, `walk-<model>.npz`.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them for one model, at least one.
        folder (str | os.PathLike): made if missing; files of an earlier call are replaced.

    Returns:
        dict[str, str]: the paths, by "md", "csv", "json" and "png".
    """
    columns, rows = comparison_table(results)
    files = write_files(
        folder,
        "results",
        md=_markdown_page(results),
        rows=[[column.title for column in columns], *rows],
        data=[{k: v for k, v in r.items() if k not in ("test_ranks", "walk")} for r in results],
        figure=plot_results(results),
    )
    write_ranks(results, folder)
    for result in results:
        for name, (key, plot) in _OWN_FILES.items():
            data, model = result.get(key), result["model"]
            if data:
                write_files(folder, f"{name}-{model}", data=data, figure=plot(data, model))
        if result.get("walk"):
            write_rank_file(Path(folder, f"walk-{result['model']}.npz"), result["walk"])
    return {kind: str(path) for kind, path in files.items()}


def plot_results(results: list[dict[str, Any]]) -> Figure:
    """The test metrics with their intervals over users, a panel a metric with a row a model; of one
    model one panel, with a row a metric."""
    metrics = metric_columns(result.get("test_result") for result in results)
    found = {name: [with_interval(result, name) for result in results] for name in metrics}
    models = [str(result["model"]) for result in results]
    if len(results) == 1:
        figure, (panel,) = panels(1, size=(6.0, 1.2 + 0.35 * max(2, len(metrics))))
        titles = [column.title for column in metrics.values()]
        interval_rows(panel, titles, {"": [each for (each,) in found.values()]})
        panel.set_title(f"{models[0]} on {_title(results)}, test")
        return figure
    across = max(1, sum(name.startswith(next(iter(metrics)).partition("@")[0]) for name in metrics))
    size = (3.6, 1.0 + 0.35 * max(2, len(models)))
    figure, places = panels(len(metrics), size, max(2, across), sharey=True)
    for panel, (name, column) in zip(places, metrics.items()):
        interval_rows(panel, models, {"": found[name]})
        panel.set_title(column.title)
    figure.suptitle(f"{_title(results)}, test")
    return figure


def with_interval(result: dict[str, Any], name: str) -> tuple[float, float, float] | None:
    """A metric and the ends of its interval, which are itself where they are not known."""
    value = (result.get("test_result") or {}).get(name)
    ends = ((result.get("test_interval") or {}).get("metrics") or {}).get(name)
    return None if value is None else (value, *(ends or (value, value)))


def _markdown_page(results: list[dict[str, Any]]) -> str:
    costs = (
        "Metrics are on the test split. Epochs count from 0. s/epoch is training time alone. peak "
        "MiB is GPU memory of tensors on a GPU, resident memory of the process elsewhere."
    )
    page = f"# {_title(results)}\n\n{markdown_table(results)}\n\n{costs}\n"
    other = without_history_table(results)
    if other:
        page += f"\nWith the history of each user left out of the ranking:\n\n{other}\n"
    sure = [f"* {r['model']}: {interval_text(r)}\n" for r in results if r.get("test_interval")]
    if sure:
        page += "\nHow sure the test metrics are:\n\n" + "".join(sure)
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


def _title(results: list[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(str(result.get("dataset", "results")) for result in results))
