"""The other protocol beside the first: test metrics with the history left out of the ranking, and
the rank of each target as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_gr.report.metrics import metric_columns
from recbole_gr.report.table import Column, table_text
from recbole_gr.storage.files import atomic_write

if TYPE_CHECKING:
    import os


def without_history_table(results: list[dict[str, Any]]) -> str:
    """A markdown table with a row per model; an empty string where there is none.

    Args:
        results (list[dict]): as `run_recbole_gr` returns them; `test_result_without_history` is
            read.
    """
    key = "test_result_without_history"
    metrics = metric_columns(result.get(key) for result in results)
    rows = [[r["model"], *map((r.get(key) or {}).get, metrics)] for r in results]
    return table_text([Column("model"), *metrics.values()], rows) if metrics else ""


def metric_of(ranks: np.ndarray, name: str) -> np.ndarray:
    """`[N]` Recall@k or NDCG@k of single targets, which RecBole's are the means of.

    Args:
        ranks: `[N]` of the target, 0 the best; -1 is not in the list.
        name: `recall@10` or `ndcg@10`.
    """
    kind, _, k = name.partition("@")
    hit = (ranks >= 0) & (ranks < int(k))
    return hit / np.log2(np.maximum(ranks, 0) + 2.0) if kind == "ndcg" else hit.astype(np.float64)


def write_ranks(results: list[dict[str, Any]], folder: str | os.PathLike[str]) -> None:
    """Write the `test_ranks` of each result that has them as `ranks-<model>.npz` into `folder`, to
    be read by `numpy.load`; a few bytes a target."""
    for result in results:
        if result.get("test_ranks"):
            write_rank_file(Path(folder, f"ranks-{result['model']}.npz"), result["test_ranks"])


def write_rank_file(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to one file, texts among them, without pickles."""
    plain: dict[str, Any] = {name: np.asarray(values) for name, values in arrays.items()}
    plain = {name: v.astype(str) if v.dtype == object else v for name, v in plain.items()}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **plain)
