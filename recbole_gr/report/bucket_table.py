"""The results of models by the training frequency of the target item, as a table."""

from typing import Any

from recbole_gr.report.metrics import metric_columns
from recbole_gr.report.table import Column, table_text


def bucket_table(results: list[dict[str, Any]]) -> str:
    """A markdown table with a row per model and bucket; an empty string where there is none.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them; `test_buckets` is read.
    """
    buckets = [
        (result["model"], name, figures)
        for result in results
        for name, figures in (result.get("test_buckets") or {}).items()
    ]
    if not buckets:
        return ""
    parts = [figures for _, _, figures in buckets]
    # In the order of the whole's metrics, some of which may have no value in a bucket.
    known = metric_columns([*(result.get("test_result") for result in results), *parts])
    measured = {name for figures in parts for name in figures} - {"targets"}
    metrics = {name: column for name, column in known.items() if name in measured}
    head = [Column("model"), Column("in training"), Column("targets", "{:,}"), *metrics.values()]
    rows = [[model, name, f["targets"], *map(f.get, metrics)] for model, name, f in buckets]
    return table_text(head, rows, mark_best=False)
