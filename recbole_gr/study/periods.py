"""Runs over periods as the report of a study takes them: their methods are the rows, and their
periods, apart and together, the data sets.

All methods of a seed go on from one and the same first period, so that they differ in what comes
after it alone. Targets of several periods stand together with the user as the unit: who was tested
in three periods counts as one user with three targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.report.ranks import metric_of
from recbole_gr.storage.hashes import digest_of
from recbole_gr.study.plan import Cell, Study
from recbole_gr.study.ranks import PROTOCOLS, TIED, Ranks, load_ranks, ranked
from recbole_gr.study.store import Finished

POPULARITY = "popularity of the period"
PARTS = {"": None, ", targets that train there": True, ", targets that do not train there": False}
Results = dict[Cell, Finished]


def by_period(study: Study, results: Mapping[Cell, Finished]) -> tuple[Study, Results]:
    """A study and its results with methods for rows and periods for data sets.

    The row :data:`POPULARITY` ranks the items for everybody by how many targets of the period they
    are in training. Of each row of the study there are: the later periods together, the targets
    that occur in the training of their period and those that do not, and each period.

    Args:
        study: over periods.
        results: of its runs.

    Raises:
        ConfigError: the baseline is none of the methods.
    """
    found: Results = {}
    datasets, rows = [], {}
    for cell, kept in results.items():
        periods = kept.result["periods"]
        methods = {p["method"] for p in periods}
        if study.baseline is not None and study.baseline not in methods:
            near = did_you_mean(study.baseline, methods)
            raise ConfigError(f"baseline: no method of {cell} is called '{study.baseline}'{near}")
        name = f"{cell.dataset}, {cell.row}"
        later = sorted({p["period"] for p in periods if p["period"]})
        spans = [
            (f"{name}, periods {later[0]} to {later[-1]}{t}", later, p) for t, p in PARTS.items()
        ]
        spans += [(f"{name}, period {p}", [p], None) for p in later]
        for title, some, part in spans:
            for method, each in _methods(kept, some).items():
                made = _joined(kept, each, part, method == POPULARITY)
                if made is not None:
                    datasets.append(title)
                    rows[method] = {"model": cell.model}
                    found[Cell(method, cell.model, title, cell.seed, {}, cell.key + title)] = made
    order = sorted(rows, key=lambda row: row == POPULARITY)
    return replace(
        study, rows={row: rows[row] for row in order}, datasets=list(dict.fromkeys(datasets))
    ), found


def _methods(kept: Finished, periods: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """The results of each method that there is in all of some periods, in their order."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for each in kept.result["periods"]:
        if each["period"] in periods and each["ranks"]:
            parts.setdefault(each["method"], []).append(each)
    parts = {method: each for method, each in parts.items() if len(each) == len(periods)}
    return parts | ({POPULARITY: next(iter(parts.values()))} if parts else {})


def _joined(
    kept: Finished, parts: Sequence[dict[str, Any]], trained: bool | None, popular: bool
) -> Finished | None:
    """One result of several periods; None where there are no such targets."""
    ranks = [_ranks(load_ranks(kept.folder / part["ranks"]), trained, popular) for part in parts]
    names = set.intersection(*(set(each) for each in ranks))
    joined = {name: np.concatenate([each[name] for each in ranks]) for name in sorted(names)}
    if not len(joined["user"]):
        return None
    metrics = [name for name in parts[0]["test_result"] if ranked(name)]
    order = np.lexsort((joined["item"], joined["user"]))
    pairs = digest_of(*(joined[name][order].tolist() for name in ("user", "item")))
    measured = {
        protocol: {name: float(metric_of(joined[protocol], name).mean()) for name in metrics}
        for protocol in PROTOCOLS
        if protocol in joined
    }
    known = [each["seconds_per_epoch"] for each in parts if each["seconds_per_epoch"] is not None]
    seconds = sum(each["total_seconds"] + (each["tokenizer_seconds"] or 0) for each in parts)
    result = {
        "test_result": measured.get("with_history", {}),
        "test_result_without_history": measured.get("without_history"),
        "test_buckets": None, "valid_curve": None, "resumed": False,
        "test_targets": {"digest": pairs, "count": len(order)},
        "epochs_run": 0 if popular else sum(each["epochs_run"] for each in parts),
        "seconds_per_epoch": None if popular or not known else float(np.mean(known)),
        "seconds_total": 0.0 if popular else seconds,
        "parameters": 0 if popular else parts[-1]["parameters"],
        "peak_memory_bytes": None if popular else parts[-1]["peak_memory_bytes"],
    }  # fmt: skip
    return Finished(result, joined, kept.folder)


def _ranks(ranks: Ranks, trained: bool | None, popular: bool) -> dict[str, np.ndarray]:
    """Ranks of the wanted targets: those that occur in training or those that do not."""
    arrays = {name: np.asarray(values) for name, values in ranks.items()}
    arrays |= {name: arrays.pop(f"{name}_token") for name in ("user", "item")}
    place = arrays.pop("popularity")
    arrays.pop(TIED, None)
    if popular:
        arrays = {**{name: arrays[name] for name in ("user", "item")}, "with_history": place}
    wanted = np.full(len(place), True) if trained is None else (place >= 0) == trained
    return {name: values[wanted] for name, values in arrays.items()}
