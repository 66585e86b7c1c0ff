"""Confidence intervals of top-k metrics over users, from the evaluation that gives the metric."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from recbole.evaluator.base_metric import TopkMetric

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset
    from recbole.evaluator.evaluator import Evaluator

Z = 1.959964  # of the normal distribution, for 95 %


class Intervals:
    """The 95 % intervals of the metrics of one evaluation.

    Attributes:
        found (dict[str, list[float]]): lower and upper end by the metric's name, `recall@10`.
        n_users (int): over how many users.
    """

    def __init__(self, dataset: Dataset | None = None):
        users = None if dataset is None or dataset.uid_field is None else dataset.inter_feat
        self._users = None if users is None else users[dataset.uid_field].numpy()  # type: ignore[union-attr]
        self.found: dict[str, list[float]] = {}
        self.n_users = 0

    def plain(self) -> dict[str, Any] | None:
        """`{"users": 943, "metrics": {"recall@10": [0.0896, 0.1288]}}`; None of no metrics."""
        return {"users": self.n_users, "metrics": self.found} if self.found else None

    def _note(self, metric: TopkMetric, name: str, value: np.ndarray) -> dict[str, float]:
        """In the place of RecBole's `topk_result`, which is given all rows' values `[N, k]`."""
        result = type(metric).topk_result(metric, name, value)
        rows = np.arange(len(value))
        if self._users is not None and len(self._users) == len(rows):  # else a row is a user
            rows = np.unique(self._users, return_inverse=True)[1]
        for k in metric.topk:
            ends = interval(value[:, k - 1], rows)
            if ends is not None:
                self.found[f"{name}@{k}"] = [round(end, metric.decimal_place) for end in ends]
        self.n_users = int(rows.max()) + 1 if len(rows) else 0
        return result


def interval(values: np.ndarray, users: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of a mean, by the normal approximation over users.

    A user may have several rows (targets); what they share does not count as evidence again: the
    variance is that of the users' sums of deviations (the linearised, or cluster-robust, one).

    Args:
        values: `[N]`, each of them from 0 to 1.
        users: `[N]`, the number of each row's user, from 0.

    Returns:
        tuple: lower and upper end, within 0 and 1; None for fewer than two users.
    """
    if len(values) == 0 or users.max() < 1:
        return None
    mean = float(values.mean())
    sums = np.bincount(users, weights=values - mean)
    n_users = len(sums)
    half = Z * float(np.sqrt(n_users / (n_users - 1) * np.square(sums).sum())) / len(values)
    return max(0.0, mean - half), min(1.0, mean + half)


@contextlib.contextmanager
def noting_intervals(evaluator: Evaluator, dataset: Dataset | None = None) -> Iterator[Intervals]:
    """Inside the block the evaluation also finds the intervals of its top-k metrics.

    Of several processes rank 0 finds them.

    Args:
        evaluator: of the trainer that evaluates.
        dataset: what it evaluates on, for the users of its rows.
    """
    intervals = Intervals(dataset)
    ranked = [m for m in evaluator.metric_class.values() if isinstance(m, TopkMetric)]
    for metric in ranked:
        metric.topk_result = partial(intervals._note, metric)
    try:
        yield intervals
    finally:
        for metric in ranked:
            del metric.topk_result
