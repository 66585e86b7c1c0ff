"""Events of a user at one time: in which order they stand, and how many targets depend on it.

Where a log knows days alone, what a user did on the last one has no order. That of the file is none
of time: in Amazon's reviews it nearly always ascends with the item id, which a model can learn.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

    from recbole_gr.config import Settings

ORDERS = ("file", "shuffled")


def shuffled(ranks: np.ndarray, lines: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of rows in the order of time, with equal times in an order drawn by the seed.

    Each line of the file draws a number, by which equal times are ordered. So the order depends on
    the seed and on the line's number alone: not on the rows that are left out, nor on lines that
    are appended to the file later.

    Args:
        ranks (numpy.ndarray): [n] places in time, equal times sharing one (`numbers.ranks`).
        lines (numpy.ndarray): [n] number of each row's line in the file.
        seed (int): of the run.

    Returns:
        tuple[numpy.ndarray, numpy.ndarray]: [n] places, each its own, and [n] the time (as its
        place in `ranks`) of each place.
    """
    draws = np.random.default_rng(seed).random(int(lines.max(initial=0)) + 1)[lines]
    order = np.lexsort((draws, ranks))
    places = np.empty_like(ranks)
    places[order] = np.arange(len(ranks))
    return places, ranks[order]


def in_order(
    ranks: np.ndarray, lines: np.ndarray, config: Settings
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `shuffled` where `tie_order` says so; otherwise the ranks as they are, and None."""
    if config["tie_order"] == "shuffled":
        return shuffled(ranks, lines, config["seed"])
    return ranks, None


class Ties(NamedTuple):
    """Of a log by user and time, which events are at the time of the user's previous one.

    Attributes:
        users (numpy.ndarray): [n] ascending.
        tied (numpy.ndarray): [n] bool; which of two such events is the later one, nothing says.
    """

    users: np.ndarray
    tied: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> Ties | None:
        """Of a data set before it is split; None where it is not put in the order of time."""
        evaluation: dict[str, Any] = dataset.config["eval_args"] or {}
        times = getattr(dataset, "times_of_rows", lambda: None)()
        if times is None or dataset.uid_field is None or evaluation.get("order") != "TO":
            return None
        users = np.asarray(dataset.inter_feat[dataset.uid_field])
        order = np.argsort(users, kind="stable")
        users, times = users[order], times[order]
        tied = np.zeros(len(users), dtype=bool)
        tied[1:] = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
        return cls(users, tied)

    def of_targets(self, targets: np.ndarray) -> np.ndarray:
        """Which targets are tied: those of a user are the last events in time.

        Args:
            targets (numpy.ndarray): [m] user of each target; those of one user in the order of
                time.

        Returns:
            numpy.ndarray: [m] bool.
        """
        n_users = int(max(self.users.max(initial=0), targets.max(initial=0))) + 1
        n_targets = np.bincount(targets, minlength=n_users)
        ends = np.bincount(self.users, minlength=n_users).cumsum()
        order = np.argsort(targets, kind="stable")
        users = targets[order]
        place = np.arange(len(users)) - (n_targets.cumsum() - n_targets)[users]
        found = np.empty(len(targets), dtype=bool)
        found[order] = self.tied[ends[users] - n_targets[users] + place]
        return found


def tied_pairs(dataset: Dataset, users: np.ndarray, items: np.ndarray) -> np.ndarray | None:
    """Which (user, item) pairs of a tested data set are tied in time with the user's event before
    them; of a pair that it holds twice, whether one of them is.

    Args:
        dataset: with the `tied_targets` of `data_preparation`; else None is returned.
        users, items (numpy.ndarray): [n] ids, of pairs that are tested.

    Returns:
        numpy.ndarray | None: [n] bool.
    """
    tied = getattr(dataset, "tied_targets", None)
    if tied is None:
        return None
    rows = dataset.inter_feat
    pairs = rows[dataset.uid_field].numpy() * dataset.item_num + rows[dataset.iid_field].numpy()
    return np.isin(users.astype(np.int64) * dataset.item_num + items, pairs[tied])


def check_same_order(then: Mapping[str, Any], now: Settings, file: str | os.PathLike[str]) -> None:
    """See that a training goes on with the order that it began with: another one has other targets,
    of which some were trained on.

    Args:
        then (dict): configuration of the checkpoint.
        now (Config): of the run that goes on.
        file: the checkpoint, for the message.

    Raises:
        ConfigError: they differ in `tie_order`, or in the seed that it draws by.
    """
    began = {"tie_order": then.get("tie_order") or ORDERS[0], "seed": then.get("seed")}
    present = {"tie_order": now["tie_order"] or ORDERS[0], "seed": now["seed"]}
    drawn = "shuffled" in (began["tie_order"], present["tie_order"])
    for key, value in began.items():
        if drawn and value != present[key]:
            raise ConfigError(
                f"resume: '{file}' was trained with {key}={value}, which decides the order of "
                f"events at one time; give --{key}={value}, or train from the start"
            )


def tied_text(tied: int, count: int) -> str:
    """The share of tied targets in words."""
    share = f" ({tied / count:.1%})".replace("%", " %") if count else ""
    return (
        f"test targets tied in time with another event of their user: {tied:,} of {count:,}{share}"
    )


def tested_targets(dataset: Dataset) -> dict[str, Any] | None:
    """How many (user, item) pairs are tested, a digest of them in any order, and how many are tied
    in time with the user's event before them (None where the log is not in the order of time)."""
    if dataset.uid_field is None:
        return None
    users = dataset.id2token(dataset.uid_field, dataset.inter_feat[dataset.uid_field].numpy())
    items = dataset.id2token(dataset.iid_field, dataset.inter_feat[dataset.iid_field].numpy())
    pairs = sorted(zip(map(str, users), map(str, items)))
    digest = hashlib.sha256("\n".join("\t".join(pair) for pair in pairs).encode()).hexdigest()
    tied = getattr(dataset, "tied_targets", None)
    count = None if tied is None else int(tied.sum())
    return {"count": len(pairs), "digest": digest, "tied": count}
