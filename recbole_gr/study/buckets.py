"""The metrics of a study's rows apart by what their targets are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recbole_gr.report.ranks import metric_of
from recbole_gr.study.ranks import LIKELIHOOD, PROTOCOLS, TIED, has_likelihood, ranked
from recbole_gr.study.store import Finished

#: Row, bucket, mean number of targets over seeds, and by metric the values of the seeds.
Bucket = tuple[str, str, float, dict[str, list[float]]]
Figures = Mapping[str, Any]  # numbers or None; with `targets`, of one seed


def by_frequency(runs: Mapping[str, Mapping[int, Finished]]) -> list[Bucket]:
    """By how often the target occurs in training, as the runs measured it."""
    return _listed(runs, lambda kept: kept.result["test_buckets"] or {})


def by_ties(runs: Mapping[str, Mapping[int, Finished]]) -> list[Bucket]:
    """By whether the target has the time of its user's event before it: Recall and NDCG of the
    first ranking of each run, which is that of its test metrics, and the log-likelihood."""
    return _listed(runs, _tied_and_untied)


def _tied_and_untied(kept: Finished) -> dict[str, Figures]:
    ranks = kept.ranks
    if ranks is None or TIED not in ranks:
        return {}
    values: dict[str, np.ndarray] = {}
    for places in [ranks[name] for name in PROTOCOLS if name in ranks][:1]:
        values |= {m: metric_of(places, m) for m in kept.result["test_result"] if ranked(m)}
    if has_likelihood(ranks):
        values[LIKELIHOOD] = ranks[LIKELIHOOD].astype(np.float64)
    parts: dict[str, Figures] = {}
    for name, rows in (("tied", ranks[TIED]), ("untied", ~ranks[TIED])):
        n = int(rows.sum())
        means = {metric: float(v[rows].mean()) for metric, v in values.items()} if n else {}
        parts[name] = {"targets": n, **means}
    return parts


def _listed(
    runs: Mapping[str, Mapping[int, Finished]],
    parts_of: Callable[[Finished], Mapping[str, Figures]],
) -> list[Bucket]:
    lines: list[Bucket] = []
    for row, by_seed in runs.items():
        parts = [parts_of(kept) for kept in by_seed.values()]
        for bucket in dict.fromkeys(name for part in parts for name in part):
            figures = [part[bucket] for part in parts if bucket in part]
            names = dict.fromkeys(name for each in figures for name in each if name != "targets")
            if not any(f["targets"] for f in figures):
                continue
            values = {m: [f[m] for f in figures if f.get(m) is not None] for m in names}
            lines.append((row, bucket, float(np.mean([f["targets"] for f in figures])), values))
    return lines
