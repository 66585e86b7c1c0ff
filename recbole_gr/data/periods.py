"""Periods of a log, and what each row is in one of them: arrays in, arrays out.

Source: the protocol of DACT (arXiv 2603.29705), as its published Tools files follow it row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from recbole_gr.errors import ConfigError

PAST, WAITING, HEAD, TRAIN, VALID, TEST = "past", "waiting", "head", "train", "valid", "test"
TARGETS = (TRAIN, VALID, TEST)
PUBLISHED = {"h": HEAD, "train": TRAIN, "valid": VALID, "test": TEST}


def periods_by_cuts(times: np.ndarray, cuts: Sequence[Any]) -> np.ndarray:
    """Period of each row, by shares of the rows or by dates.

    Args:
        times (numpy.ndarray): ``[n]`` seconds since 1970, ascending.
        cuts (list): where each period ends. Shares of all rows, ``[0.6, 0.7, 0.8, 0.9, 1.0]``: row
            ``r`` is in the first period whose share exceeds ``r / n``. Or dates, ``["2013-06-01",
            "2014-01-01"]``: a period holds what comes before its date (00:00 UTC), and a last one
            what is left.

    Returns:
        numpy.ndarray: ``[n]`` integers from 0.

    Raises:
        ConfigError: `cuts` is neither, or does not ascend, or a period would be empty.
    """
    if not isinstance(cuts, (list, tuple)) or not cuts:
        raise ConfigError(f"continual_cuts: {cuts!r} must be a list of shares or of dates")
    if all(isinstance(c, (int, float)) and not isinstance(c, bool) and 0 < c <= 1 for c in cuts):
        if cuts[-1] != 1:
            raise ConfigError(f"continual_cuts: the last share of {list(cuts)} must be 1.0")
        # Rounding must not move a boundary that falls on a row.
        ends = np.ceil(np.asarray(cuts) * len(times) - 1e-6).astype(int)
        ascending = list(cuts)
        period = np.searchsorted(ends, np.arange(len(times)), side="right")
        n_periods = len(cuts)
    else:
        ascending = [_seconds(cut) for cut in cuts]
        period = np.searchsorted(ascending, times, side="right")
        n_periods = len(cuts) + 1
    if any(a >= b for a, b in zip(ascending, ascending[1:])):
        raise ConfigError(f"continual_cuts: {list(cuts)} must ascend")
    missing = sorted(set(range(n_periods)) - set(period.tolist()))
    if missing:
        raise ConfigError(f"continual_cuts: no interaction is in period {missing[0]} of {cuts}")
    return period


def periods_by_column(values: np.ndarray, name: str) -> np.ndarray:
    """Period of each row from a column of the data; its values in ascending order (as numbers if
    all are numbers) are periods 0, 1, ...

    Returns:
        numpy.ndarray: ``[n]`` integers.
    """
    labels = labels_of(values)
    if any(pd.isna(label) or label == "" for label in labels):
        raise ConfigError(f"continual_field: the column {name!r} has empty cells")
    return pd.Categorical(values, categories=labels).codes.astype(int)


def labels_of(values: np.ndarray) -> list:
    """The distinct values of a column that holds periods, in the order of these."""
    labels = sorted(set(values), key=str)
    try:
        labels.sort(key=float)
    except ValueError:
        pass  # names stay in the order of the alphabet
    return labels


def parts_of(users: np.ndarray, periods: np.ndarray, present: int) -> np.ndarray:
    """What each row is in one period (DACT, the shipped Tools files).

    A user takes part from the first period in which they have an interaction and, with all before
    it, at least three. What they did in earlier periods, or else their very first interaction, is
    their head: history alone, never a target. In every period the last interaction of a user is
    the test target, the one before it the validation target, all before that train; with a single
    one there is only a test target. Targets of earlier periods never train again.

    Args:
        users (numpy.ndarray): ``[n]`` user of each row; rows in the order of time.
        periods (numpy.ndarray): ``[n]`` ascending for every user, none above `present`.
        present (int): the period.

    Returns:
        numpy.ndarray: ``[n]`` of `PAST` (targets and heads of earlier periods), `WAITING` (of users
        who do not take part yet), `HEAD` (of users who are new now), `TRAIN`, `VALID`, `TEST`.
    """
    rows = pd.DataFrame({"user": users, "period": periods})
    by_user = rows.groupby("user", sort=False)
    rows["number"] = by_user.cumcount() + 1  # interactions so far
    ends = rows.groupby(["user", "period"], sort=False)["number"].transform("max")
    qualifies = rows["period"].where(ends >= 3)
    rows["first"] = qualifies.groupby(rows["user"], sort=False).transform("min")  # NaN: not yet
    now = rows["period"] == present
    new = rows["first"] == present
    has_past = by_user["period"].transform("min") < present
    head = new & np.where(has_past, ~now, rows["number"] == 1)
    target = now & rows["first"].notna() & ~head
    left = ends - rows["number"]  # interactions of this user and period that come later
    part = np.full(len(rows), PAST, dtype=object)
    part[rows["first"].isna()] = WAITING
    part[head] = HEAD
    part[target] = TRAIN
    part[target & (left == 1)] = VALID
    part[target & (left == 0)] = TEST
    return part


def target_counts(users: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """How many targets each period trains, validates and tests on, by the rule of
    :func:`parts_of`.

    Args:
        users, periods: ``[n]`` as there.

    Returns:
        numpy.ndarray: ``[n_periods, 3]``.
    """
    rows = pd.DataFrame({"user": users, "period": periods})
    cells = rows.groupby(["user", "period"]).size().rename("n").reset_index()
    by_user = cells.groupby("user")
    qualifies = cells["period"].where(by_user["n"].cumsum() >= 3)
    first = qualifies.groupby(cells["user"]).transform("min")  # NaN: never takes part
    cells = cells.assign(head=by_user["period"].transform("min") == first, first=first)
    cells = cells[cells["period"] >= cells["first"]]
    n = cells["n"] - (cells["head"] & (cells["period"] == cells["first"]))
    found = np.zeros((int(periods.max()) + 1, 3), dtype=int)
    for column, count in enumerate((n - 2, n > 1, n > 0)):
        np.add.at(found[:, column], cells["period"], count.astype(int).clip(lower=0))
    return found


def _seconds(cut: Any) -> float:
    try:
        day = datetime.fromisoformat(str(cut))
    except ValueError:
        raise ConfigError(
            f"continual_cuts: {cut!r} is neither a share in (0, 1] nor a date such as 2014-01-31"
        ) from None
    return day.replace(tzinfo=day.tzinfo or UTC).timestamp()
