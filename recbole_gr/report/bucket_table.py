"""The results of models by the training frequency of the target item, as a table."""

from typing import Any

from recbole_gr.report.table import aligned_table


def bucket_table(results: list[dict[str, Any]]) -> str:
    """A markdown table with a row per model and bucket; an empty string where there is none.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them; `test_buckets` is read.
    """
    metrics: list[str] = []
    rows = []
    for result in results:
        for name, figures in (result.get("test_buckets") or {}).items():
            metrics += [key for key in figures if key not in (*metrics, "targets")]
            rows.append((result["model"], name, figures))
    if not rows:
        return ""
    lines = [["model", "in training", "targets", *metrics]]
    for model, name, figures in rows:
        values = [figures.get(metric) for metric in metrics]
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        lines.append([model, name, f"{figures['targets']:,}", *cells])
    return aligned_table(lines)
