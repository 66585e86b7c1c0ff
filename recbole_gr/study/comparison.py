"""The runs of one data set side by side: metrics by seed, and differences paired by user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recbole_gr.errors import ConfigError
from recbole_gr.report.ranks import metric_of
from recbole_gr.study.ranks import (
    LIKELIHOOD,
    PROTOCOLS,
    Ranks,
    Targets,
    has_likelihood,
    ranked,
)
from recbole_gr.study.statistics import Difference, paired_differences, spread
from recbole_gr.study.store import Finished

Runs = Mapping[str, Mapping[int, Finished]]  # by row and seed
_MEASURED = (*PROTOCOLS, LIKELIHOOD)
_OF_ITSELF = (LIKELIHOOD, LIKELIHOOD)  # as of a protocol and a metric


@dataclass(frozen=True)
class Comparison:
    """What the rows of one data set have come to.

    Attributes:
        means: by protocol, row and metric the values of the seeds. `log_likelihood` stands beside
            the protocols, a protocol and metric of its own.
        differences: by protocol, row and metric what the row is ahead of the baseline.
        remarks: what is not compared, and why.
    """

    means: dict[str, dict[str, dict[str, list[float]]]]
    differences: dict[str, dict[str, dict[str, Difference]]]
    remarks: list[str]

    def plain(self) -> dict[str, Any]:
        """All of it as plain data, with means and deviations."""
        metrics = {
            protocol: {
                row: {
                    name: dict(zip(("mean", "deviation"), spread(np.asarray(v))), seeds=v)
                    for name, v in values.items()
                }
                for row, values in rows.items()
            }
            for protocol, rows in self.means.items()
        }
        differences = {
            protocol: {
                row: {name: asdict(d) for name, d in values.items()} for row, values in rows.items()
            }
            for protocol, rows in self.differences.items()
        }
        return {"metrics": metrics, "differences": differences, "remarks": self.remarks}


def compare(runs: Runs, baseline: str | None) -> Comparison:
    """Metrics of all runs of one data set, and what each row is ahead of the baseline.

    Means are those that the runs measured, and of exact rankings those of their ranks. Differences
    are of the seeds that both rows have finished. With one target a user, as leave-one-out has
    it, they are those of the means.

    Args:
        runs: those that finished.
        baseline: a row; None for no comparison.

    Raises:
        ConfigError: runs with the same seed were tested on different targets; names them.
    """
    _require_same_targets(runs)
    means = _means(runs)
    remarks = [remark for row, by_seed in runs.items() for remark in _unlikely(row, by_seed)]
    differences: dict[str, dict[str, dict[str, Difference]]] = {}
    base = runs.get(baseline or "", {})
    if baseline is not None and not base:
        remarks.append(f"{baseline}, the baseline, has no finished run here; nothing is compared.")
    for row in runs if base else ():
        if row == baseline:
            continue
        seeds = [s for s in runs[row] if s in base and runs[row][s].ranks and base[s].ranks]
        if not seeds:
            remarks.append(f"{row} is not compared: no seed has ranks of it and of {baseline}.")
            continue
        for name, found in _differences(runs[row], base, seeds).items():
            protocol, metric = name
            differences.setdefault(protocol, {}).setdefault(row, {})[metric] = found
    return Comparison(means, differences, remarks)


def _unlikely(row: str, by_seed: Mapping[int, Finished]) -> list[str]:
    """Why a row has no log-likelihood, though some of its runs have one for each target."""
    found = {seed: kept.ranks for seed, kept in by_seed.items() if kept.ranks is not None}
    scored = {seed: ranks for seed, ranks in found.items() if LIKELIHOOD in ranks}
    remarks = []
    if scored and len(scored) < len(found):
        others = ", ".join(str(seed) for seed in found if seed not in scored)
        remarks.append(
            f"{row} has no mean log-likelihood: its scores are no logarithms of probabilities "
            f"(seeds: {others})."
        )
    if any(not has_likelihood(ranks) for ranks in scored.values()):
        remarks.append(
            f"{row} has runs without a mean log-likelihood: some targets have probability 0."
        )
    return remarks


def _require_same_targets(runs: Runs) -> None:
    """See that all rows were tested on the same pairs of user and item, seed by seed."""
    first: dict[int, tuple[str, Any]] = {}
    for row, by_seed in runs.items():
        for seed, kept in by_seed.items():
            targets = kept.result["test_targets"]
            if targets is None:
                continue
            other, there = first.setdefault(seed, (row, targets))
            if there["digest"] != targets["digest"]:
                raise ConfigError(
                    f"{other} and {row} (seed {seed}) were tested on different targets "
                    f"({there['count']:,} and {targets['count']:,} of them), so they cannot be "
                    "compared: give all rows the same eval_args, filters and history; users with "
                    "fewer than 3 interactions are one cause, which "
                    "user_inter_num_interval: '[3,inf)' leaves out"
                )


def _means(runs: Runs) -> dict[str, dict[str, dict[str, list[float]]]]:
    means: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in _MEASURED}
    for row, by_seed in runs.items():
        likely = all(has_likelihood(kept.ranks) for kept in by_seed.values())
        for kept in by_seed.values():
            for protocol in _MEASURED if likely else PROTOCOLS:
                for name, value in _measured(kept, protocol).items():
                    means[protocol].setdefault(row, {}).setdefault(name, []).append(value)
    return {protocol: rows for protocol, rows in means.items() if rows}


def _measured(kept: Finished, protocol: str) -> dict[str, float]:
    """A run's metrics by one protocol; none where it does not have that."""
    result, ranks = kept.result, kept.ranks
    if protocol == LIKELIHOOD:
        return {LIKELIHOOD: float(_values(_ranks(kept), *_OF_ITSELF).mean())}
    if protocol.startswith("exact"):
        if ranks is None or protocol not in ranks:
            return {}
        names = [name for name in result["test_result"] if ranked(name)]
        return {name: float(metric_of(ranks[protocol], name).mean()) for name in names}
    left_out = ranks is not None and "with_history" not in ranks
    first = "without_history" if left_out else "with_history"
    figures = result["test_result"] if protocol == first else None
    if protocol == "without_history" and figures is None:
        figures = result["test_result_without_history"]
    return {name: value for name, value in (figures or {}).items() if value is not None}


def _differences(
    row: Mapping[int, Finished], base: Mapping[int, Finished], seeds: list[int]
) -> dict[tuple[str, str], Difference]:
    """By protocol and metric, from the ranks of both; the draws are the same for all of them."""
    runs = [kept for seed in seeds for kept in (row[seed], base[seed])]
    protocols = [p for p in PROTOCOLS if all(p in _ranks(kept) for kept in runs)]
    common = set.intersection(*(set(kept.result["test_result"]) for kept in runs))
    metrics = [m for m in row[seeds[0]].result["test_result"] if m in common and ranked(m)]
    names = [(protocol, metric) for protocol in protocols for metric in metrics]
    names += [_OF_ITSELF] if all(has_likelihood(kept.ranks) for kept in runs) else []
    if not names:
        return {}
    first, values = Targets.of(_ranks(base[seeds[0]])), []
    for seed in seeds:
        ours, theirs = _ranks(row[seed]), _ranks(base[seed])
        own, other = Targets.of(ours), Targets.of(theirs)
        if not (own.same(other) and own.same_users(first)):
            raise ConfigError(
                f"seed {seed}: runs were tested on different targets, or seeds on different users, "
                "so they cannot be compared; give all rows the same eval_args and filters"
            )
        values.append(
            [
                own.user_means(_values(ours, *name)) - other.user_means(_values(theirs, *name))
                for name in names
            ]
        )
    found = paired_differences(np.asarray(values).transpose(0, 2, 1), first.count)
    return dict(zip(names, found))


def _values(ranks: Ranks, protocol: str, metric: str) -> np.ndarray:
    """`[N]` of single targets."""
    if protocol == LIKELIHOOD:
        return np.asarray(ranks[LIKELIHOOD], dtype=np.float64)
    return metric_of(ranks[protocol], metric)


def _ranks(kept: Finished) -> dict[str, Any]:
    assert kept.ranks is not None  # else its seed is left out
    return kept.ranks
