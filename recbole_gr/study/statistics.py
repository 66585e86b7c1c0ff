"""Intervals over users and seeds of differences between two models, and the verdicts that these
allow. Arrays in, figures out.

The value of user u in seed s is taken as `mean + seed_s + user_u + rest_su`. With two or three
seeds, resampling these as they are gives intervals that are far too narrow (of 3 seeds that differ,
95 % intervals hold the truth 76 times of 100). So both parts are resampled, and each is brought to
the size that theory gives it: the users' to its share without the rest, which the seeds' part has
already, and the seeds' to that of Student's t with `seeds - 1` degrees of freedom. It is never less
than the rest alone makes of it, of which many users tell: two seeds whose means happen to be equal
are no proof.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 2000
MOST_SEEDS = 10_000
AHEAD, BEHIND = "ahead", "behind"
UNDECIDED = "not distinguishable at this power"
_Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
_AT_ONCE = 1 << 22  # users drawn at a time


@dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another.

    Attributes:
        mean, low, high: over users and seeds, and the ends of its 95 % interval. Of one seed the
            interval is over users alone.
        seeds, users: how many.
        verdict: `AHEAD` or `BEHIND` where the interval leaves 0 out, else `UNDECIDED`, as in any
            case of one seed.
        needed_seeds: of an undecided one, with how many seeds the interval would leave 0 out if the
            difference stayed as it is; None where the users alone are too few, whatever the seeds,
            or one seed does not tell.
    """

    mean: float
    low: float
    high: float
    seeds: int
    users: int
    verdict: str
    needed_seeds: int | None = None

    @property
    def text(self) -> str:
        """The verdict in words."""
        if self.verdict != UNDECIDED:
            return self.verdict
        if self.needed_seeds is not None:
            return f"{UNDECIDED} ({self.needed_seeds:,} seeds would be needed)"
        why = "one seed does not tell" if self.seeds < 2 else "more seeds do not help"
        return f"{UNDECIDED} ({why})"


@dataclass(frozen=True)
class Parts:
    """What the variance of a mean `[M]` over users and seeds consists of.

    Attributes:
        users: variance of the mean by the choice of users, however many seeds there are.
        seed: variance that one seed has; the mean of S seeds has a share of 1 / S.
        rest: of that, what the rest alone makes of it.
        share: of the variance of users' means over the seeds what the users themselves make.
    """

    users: np.ndarray
    seed: np.ndarray
    rest: np.ndarray
    share: np.ndarray


def spread(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over seeds (that of a sample; NaN of one seed)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation


def linearised(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Values whose plain mean over users is the mean over their targets, to first order in users.

    Args:
        values: `[S, U, M]` mean of each user's targets.
        targets: `[U]` how many each user has.
    """
    weights = (targets / targets.mean())[None, :, None]
    means = (values * weights).mean(1, keepdims=True)
    return means + weights * (values - means)


def variance_parts(values: np.ndarray) -> Parts:
    """Variance by users and by seeds, from the mean squares of a table without replication.

    Args:
        values: `[S, U, M]`, at least two seeds and two users.
    """
    n_seeds, n_users = values.shape[:2]
    whole = values.mean((0, 1))
    by_seed, by_user = values.mean(1), values.mean(0)
    seeds = n_users * np.square(by_seed - whole).sum(0) / (n_seeds - 1)
    users = n_seeds * np.square(by_user - whole).sum(0) / (n_users - 1)
    rest = np.square(values - by_seed[:, None] - by_user[None] + whole).sum((0, 1))
    rest = rest / ((n_seeds - 1) * (n_users - 1))
    share = np.clip(1 - rest / np.where(users > 0, users, 1), 0, 1)
    return Parts(users * share / (n_seeds * n_users), seeds / n_users, rest / n_users, share)


def paired_differences(
    values: np.ndarray, targets: np.ndarray | None = None, draws: int = DRAWS, seed: int = 0
) -> list[Difference]:
    """What differences by seed and user allow to say, one a metric.

    Args:
        values: `[S, U, M]` of two models, of which a larger value is better: the difference between
            them for each seed, user and metric.
        targets: `[U]` how many targets a user's value is the mean of; None is one each.
        draws: of the bootstrap.
        seed: of the draws, which are the same for all metrics.
    """
    values = np.asarray(values, dtype=np.float64)
    if targets is not None:
        values = linearised(values, np.asarray(targets, dtype=np.float64))
    n_seeds, n_users, n_metrics = values.shape
    rng = np.random.default_rng(seed)
    mean, by_user = values.mean((0, 1)), values.mean(0)
    moves = _user_means(by_user - mean, draws, rng)  # [draws, M]
    needed: list[int | None] = [None] * n_metrics
    if n_seeds > 1:
        parts = variance_parts(values)
        moves *= np.sqrt(parts.share)
        chosen = rng.integers(n_seeds, size=(draws, n_seeds))
        scale = np.sqrt(n_seeds / (n_seeds - 1)) * _student(n_seeds) / _Z
        moves += scale * (values.mean(1) - mean)[chosen].mean(1)
        unseen = parts.rest - (_student(n_seeds) / _Z) ** 2 * parts.seed
        moves += np.sqrt(np.maximum(unseen, 0) / n_seeds) * rng.standard_normal((draws, 1))
        seed_part = np.maximum(parts.seed, parts.rest)
        needed = [needed_seeds(*each) for each in zip(mean, parts.users, seed_part)]
    tail = 50 * (1 - LEVEL)
    low, high = mean + np.percentile(moves, [tail, 100 - tail], axis=0)
    found = []
    for each in zip(mean.tolist(), low.tolist(), high.tolist(), needed):
        verdict = AHEAD if each[1] > 0 else BEHIND if each[2] < 0 else UNDECIDED
        verdict = UNDECIDED if n_seeds < 2 else verdict
        more = each[3] if verdict == UNDECIDED else None
        more = more if more is None else max(more, n_seeds + 1)
        found.append(Difference(*each[:3], n_seeds, n_users, verdict, more))
    return found


def needed_seeds(difference: float, users: float, seed: float) -> int | None:
    """The least number of seeds, at least two, whose 95 % interval around `difference` leaves
    0 out; None where none does.

    Args:
        difference: as observed.
        users: variance of it by users, which seeds do not change.
        seed: variance of one seed.
    """

    def enough(seeds: int) -> bool:
        return difference**2 > _Z**2 * users + _student(seeds) ** 2 * seed / seeds

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # `low` is not enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _student(seeds: int) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, seeds - 1))


def _user_means(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """`[draws, M]` means of `values` `[U, M]` over as many users drawn with replacement."""
    n_users = len(values)
    means, step = [], max(1, _AT_ONCE // n_users)
    for first in range(0, draws, step):
        rows = min(step, draws - first)
        drawn = rng.integers(n_users, size=(rows, n_users)) + n_users * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users)
        means.append(counts @ values / n_users)
    return np.concatenate(means)
