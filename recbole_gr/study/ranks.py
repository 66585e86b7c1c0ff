"""Ranks of each user's target: kept with a run, matched between runs, and turned into metrics."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recbole_gr.errors import ConfigError

Ranks = Mapping[str, np.ndarray]
#: Protocols by the arrays that hold their ranks.
PROTOCOLS = {
    "with_history": "items of the user's history may be ranked",
    "without_history": "items of the user's history are left out of the ranking",
    "exact_with_history": "exact scores of all items, the history among them",
    "exact_without_history": "exact scores of all items but those of the history",
}
LIKELIHOOD = "log_likelihood"  # of each target, in nats; in no ranking
TIED = "tied"  # whether a target has the time of its user's event before it
_RANKED = ("recall", "ndcg")  # what is compared by user


@dataclass(frozen=True)
class Targets:
    """The (user, item) pairs of a test in one order, by users.

    Attributes:
        pairs: `[2, N]` tokens of users and of items, sorted.
        of_user: `[N]` number of each pair's user, from 0.
        count: `[U]` pairs of each user.
        order: `[N]` rows of the run's arrays in that order.
    """

    pairs: np.ndarray
    of_user: np.ndarray
    count: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, ranks: Ranks) -> Targets:
        """The targets of one run."""
        users, items = (np.asarray(ranks[name]).astype(str) for name in ("user", "item"))
        order = np.lexsort((items, users))
        of_user, count = np.unique(users[order], return_inverse=True, return_counts=True)[1:]
        return cls(np.stack([users[order], items[order]]), of_user, count, order)

    def same(self, other: Targets) -> bool:
        """Whether another run was tested on the same pairs."""
        return np.array_equal(self.pairs, other.pairs)

    def same_users(self, other: Targets) -> bool:
        """Whether another run was tested on as many pairs of the same users."""
        return np.array_equal(self.pairs[0], other.pairs[0])

    def user_means(self, values: np.ndarray) -> np.ndarray:
        """`[U]` means over each user's targets of what the run has by row, `[N]`."""
        return np.bincount(self.of_user, weights=values[self.order]) / self.count


def ranked(name: str) -> bool:
    """Whether a metric is one of single targets' ranks, as :func:`metric_of` takes it."""
    return name.partition("@")[0] in _RANKED


def has_likelihood(ranks: Ranks | None) -> bool:
    """Whether a run has a mean log-likelihood of its targets."""
    return LIKELIHOOD in (ranks or ()) and bool(np.isfinite((ranks or {})[LIKELIHOOD]).all())


def load_ranks(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """What :func:`~recbole_gr.report.ranks.write_rank_file` wrote.

    Raises:
        ConfigError: no such file, or none of ranks; names it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ranks = {name: arrays[name] for name in arrays.files}
        lengths = {values.shape for values in ranks.values()}
        if not {"user", "item"} <= ranks.keys() or len(lengths) != 1:
            raise ValueError("it does not hold one rank a user and item")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"'{path}' cannot be read ({error}); remove its folder, and the run is done again"
        ) from error
    return ranks
