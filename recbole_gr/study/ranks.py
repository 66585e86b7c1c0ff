"""Ranks of each user's target: kept with a run, matched between runs, and turned into metrics."""

from __future__ import annotations

import hashlib
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
#: In the place of users and items: whether a row begins a user, and what :class:`Targets` has.
FIRST, DIGESTS = "first_of_user", "digests"
_RANKED = ("recall", "ndcg")  # what is compared by user


@dataclass(frozen=True)
class Targets:
    """The (user, item) pairs of a test in one order, by users.

    Attributes:
        of_user: `[N]` number of each pair's user, from 0.
        count: `[U]` pairs of each user.
        order: `[N]` rows of the run's arrays in that order.
        digests: sha256 of the users and of the pairs, in that order.
    """

    of_user: np.ndarray
    count: np.ndarray
    order: np.ndarray
    digests: tuple[str, str]

    @classmethod
    def of(cls, ranks: Ranks) -> Targets:
        """The targets of one run; of one that was published there are digests alone."""
        if DIGESTS in ranks:
            of_user = np.cumsum(ranks[FIRST]) - 1
            order, (of_users, of_pairs) = np.arange(len(of_user)), map(str, ranks[DIGESTS])
            return cls(of_user, np.bincount(of_user), order, (of_users, of_pairs))
        users, items = (np.asarray(ranks[name]).astype(str) for name in ("user", "item"))
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
        of_user, count = np.unique(users, return_inverse=True, return_counts=True)[1:]
        return cls(of_user, count, order, (_digest(users), _digest(users, items)))

    def same(self, other: Targets) -> bool:
        """Whether another run was tested on the same pairs."""
        return self.digests[1] == other.digests[1]

    def same_users(self, other: Targets) -> bool:
        """Whether another run was tested on as many pairs of the same users."""
        return self.digests[0] == other.digests[0]

    def user_means(self, values: np.ndarray) -> np.ndarray:
        """`[U]` means over each user's targets of what the run has by row, `[N]`."""
        return np.bincount(self.of_user, weights=values[self.order]) / self.count


def anonymous(ranks: Ranks) -> dict[str, np.ndarray]:
    """Ranks that can be shown where the data cannot: in the order of :class:`Targets`, of users
    only where a next one begins, and of the pairs a digest, which still tells whether another run
    was tested on the same ones. Log-likelihoods have float16's three digits."""
    if DIGESTS in ranks:
        return dict(ranks)
    targets = Targets.of(ranks)
    kept = {name: v[targets.order] for name, v in ranks.items() if name not in ("user", "item")}
    for name, values in kept.items():
        if name == LIKELIHOOD:
            kept[name] = values.astype(np.float16)
        elif values.dtype.kind == "i" and values.max(initial=0) < 2**15:
            kept[name] = values.astype(np.int16)
    first = np.diff(targets.of_user, prepend=-1) > 0
    return {FIRST: first, **kept, DIGESTS: np.array(targets.digests)}


def part_of(ranks: Ranks, wanted: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """The ranks of some targets.

    Args:
        ranks: as :func:`anonymous` has them, so that a run and one that was published agree.
        wanted: `[N]` bool, by row of their arrays.
        name: of the part, which two runs have to have in common to be compared.
    """
    part = {key: values[wanted] for key, values in ranks.items() if key != DIGESTS}
    users = np.cumsum(ranks[FIRST])[wanted]
    part[FIRST] = np.diff(users, prepend=0) > 0
    part[DIGESTS] = np.array([f"{name} of {digest}" for digest in ranks[DIGESTS]])
    return part


def _digest(*columns: np.ndarray) -> str:
    lines = "\n".join("\t".join(row) for row in zip(*columns))
    return hashlib.sha256(lines.encode()).hexdigest()


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
        lengths = {values.shape for name, values in ranks.items() if name != DIGESTS}
        whole = {"user", "item"} <= ranks.keys() or {FIRST, DIGESTS} <= ranks.keys()
        if not whole or len(lengths) != 1:
            raise ValueError("it does not hold one rank a user and item")
        if DIGESTS in ranks and not _begins(ranks[FIRST], ranks[DIGESTS]):
            raise ValueError("it does not say where users begin, or lacks their digests")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"'{path}' cannot be read ({error}); remove its folder, and the run is done again"
        ) from error
    return ranks


def _begins(first: np.ndarray, digests: np.ndarray) -> bool:
    """Whether a first user begins at the first row, and there are two digests beside it."""
    return first.dtype == bool and bool(first[:1].all()) and digests.shape == (2,)
