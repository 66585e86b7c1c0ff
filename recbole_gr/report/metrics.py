"""Spelling and order of the metrics of results, in every table and line of a run."""

from collections.abc import Iterable, Mapping
from typing import Any

from recbole_gr.report.table import Column


def metric_columns(results: Iterable[Mapping[str, Any] | None]) -> dict[str, Column]:
    """The metrics of results as columns by their names, `recall@5`.

    Those of one kind stand together, by their cut-off, and kinds as they appear, which is as the
    setting `metrics` has them, those without a cut-off first: AUC, Recall@5, Recall@10, NDCG@5...

    Args:
        results: such as `test_result` of several models; None where there is none.
    """
    names = dict.fromkeys(name for result in results for name in result or {})
    kinds = list(dict.fromkeys(name.partition("@")[0] for name in names))

    def place(name: str) -> tuple[bool, int, int]:
        return "@" in name, kinds.index(name.partition("@")[0]), cut_off(name)

    return {
        name: Column(metric_title(name), "{:.4f}", getattr(_known(name), "smaller", False))
        for name in sorted(names, key=place)
    }


def metric_title(name: str) -> str:
    """`Recall@5` of `recall@5`: a metric as RecBole spells it; one that it does not have stays."""
    kind, at, cut = name.partition("@")
    return getattr(_known(name), "__name__", kind) + at + cut


def cut_off(name: str) -> int:
    """5 of `recall@5`; 0 of a metric without one."""
    cut = name.partition("@")[2]
    return int(cut) if cut.isdigit() else 0


def _known(name: str) -> type | None:
    """RecBole's class of a metric."""
    from recbole.evaluator.register import metrics_dict

    return metrics_dict.get(name.partition("@")[0].lower())
