"""Intervals and verdicts of paired differences, against cases whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from recbole_gr.errors import ConfigError
from recbole_gr.report.ranks import metric_of, write_rank_file
from recbole_gr.study.ranks import Targets, anonymous, load_ranks, part_of
from recbole_gr.study.statistics import (
    AHEAD,
    BEHIND,
    UNDECIDED,
    linearised,
    needed_seeds,
    paired_differences,
    spread,
    variance_parts,
)


def made(rng, seeds, users, by_seed, by_user, rest, mean=0.0):
    """`[S, U, 1]` differences of which each part has the given standard deviation."""
    parts = (
        by_seed * rng.normal(size=(seeds, 1)),
        by_user * rng.normal(size=(1, users)),
        rest * rng.normal(size=(seeds, users)),
    )
    return (mean + sum(parts))[:, :, None]


def test_equal_models_are_not_told_apart():
    (found,) = paired_differences(np.zeros((3, 50, 1)))
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert found.verdict == UNDECIDED and found.needed_seeds is None
    assert "more seeds do not help" in found.text


@pytest.mark.parametrize("value, verdict", [(0.25, AHEAD), (-0.25, BEHIND)])
def test_a_difference_that_all_users_and_seeds_have_is_seen(value, verdict):
    (found,) = paired_differences(np.full((3, 50, 1), value))
    assert found.mean == found.low == found.high == value
    assert found.verdict == found.text == verdict


def test_one_seed_has_an_interval_over_users_and_no_verdict():
    values = np.random.default_rng(0).normal(0.5, 1.0, (1, 400, 1))
    (found,) = paired_differences(values, draws=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)
    assert found.low > 0 and found.verdict == UNDECIDED
    assert found.needed_seeds is None and "one seed does not tell" in found.text


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    "parts", [(0.1, 0.1, 0.1), (0, 1, 0.1), (0, 0.1, 1), (0.07, 1, 1)], ids=str
)
@pytest.mark.slow
def test_95_percent_intervals_hold_the_truth_as_often(seeds, parts):
    """Standard error of the share: 1.1 %. Two seeds that matter less than the users make intervals
    too wide, as nothing can be known of seeds by two of them; never too narrow."""
    rng, n = np.random.default_rng(1), 400
    hits = 0
    for number in range(n):
        values = made(rng, seeds, 100, *parts, mean=0.3)
        (found,) = paired_differences(values, draws=400, seed=number)
        hits += found.low <= 0.3 <= found.high
    assert 0.92 <= hits / n <= (0.98 if seeds > 3 else 1.0)


def test_seeds_that_differ_are_not_hidden_by_many_users():
    """The users alone would call this ahead: their interval is a tenth as wide."""
    values = made(np.random.default_rng(0), 3, 2000, 0, 1, 0)
    values += np.array([0.4, 0.1, -0.1])[:, None, None] - values.mean()
    (found,) = paired_differences(values)
    assert found.low < 0 < found.mean and found.verdict == UNDECIDED
    assert found.needed_seeds > 3


def test_parts_of_the_variance_are_those_that_it_was_made_of():
    seeds, users = np.array([0.1, -0.3, 0.5]), np.arange(7) ** 2 / 10
    parts = variance_parts((seeds[:, None] + users[None])[:, :, None])
    assert parts.seed == pytest.approx(seeds.var(ddof=1))
    assert parts.users == pytest.approx(users.var(ddof=1) / 7)
    assert parts.share == pytest.approx(1)
    big = made(np.random.default_rng(0), 400, 400, 0.5, 0.3, 1.0)
    parts = variance_parts(big)
    assert parts.seed == pytest.approx(0.25 + 1 / 400, rel=0.15)
    assert parts.users == pytest.approx(0.09 / 400, rel=0.15)


@pytest.mark.parametrize("difference", [0.05, 0.1, 0.4])
def test_the_seeds_that_would_be_needed(difference):
    """With users that make no difference they are those of a t test whose statistic is its limit,
    and for many seeds those of the normal distribution."""
    found = needed_seeds(difference, 0.0, 1.0)
    limit = {n: stats.t.ppf(0.975, n - 1) / np.sqrt(n) for n in (found - 1, found)}
    assert limit[found] < difference <= limit[found - 1]
    assert found == pytest.approx((1.959964 / difference) ** 2, abs=4)
    with_users = needed_seeds(difference, difference**2 / 8, 1.0)
    normal = 1 / (difference**2 / 1.959964**2 - difference**2 / 8)
    assert found < with_users == pytest.approx(normal, abs=6)


def test_users_that_are_too_few_are_said_to_be():
    assert needed_seeds(0.1, 0.1**2 / 3.8, 1e-6) is None
    values = made(np.random.default_rng(3), 4, 60, 0, 1, 0.01, mean=0.1)
    (found,) = paired_differences(values)
    assert found.verdict == UNDECIDED and "more seeds do not help" in found.text


def test_the_same_draws_for_every_metric_and_every_call():
    values = made(np.random.default_rng(0), 3, 80, 0.1, 1, 1)
    first, second = paired_differences(np.concatenate([values, values], 2))
    (alone,) = paired_differences(values)
    for other in (second, alone):
        assert (first.low, first.high) == pytest.approx((other.low, other.high))
    assert paired_differences(values) == [alone]


def test_users_count_by_their_targets():
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 5, 30)
    values = rng.normal(size=(2, 30, 3))
    straight = linearised(values, targets.astype(float))
    expected = (values * targets[None, :, None]).sum(1) / targets.sum()
    assert np.allclose(straight.mean(1), expected)
    assert np.allclose(linearised(values, np.full(30, 2.0)), values)


def test_spread_is_that_of_a_sample():
    assert spread(np.array([1.0, 2.0, 3.0])) == (2.0, 1.0)
    assert np.isnan(spread(np.array([1.0]))[1])


def test_metrics_of_ranks():
    ranks = np.array([0, 1, 4, 5, -1], dtype=np.int32)
    assert metric_of(ranks, "recall@5").tolist() == [1, 1, 1, 0, 0]
    assert metric_of(ranks, "ndcg@5") == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(6), 0, 0])


def test_ranks_are_matched_by_tokens_in_any_order(tmp_path):
    ranks = {
        "user": np.array(["b", "a", "b", "c"], dtype=object),
        "item": np.array(["y", "z", "x", "y"], dtype=object),
        "with_history": np.array([3, 0, 1, -1], dtype=np.int32),
    }
    write_rank_file(tmp_path / "ranks.npz", ranks)
    first = load_ranks(tmp_path / "ranks.npz")
    assert all(values.dtype.kind in "Ui" for values in first.values())  # no pickles
    turned = {name: values[::-1] for name, values in first.items()}
    targets, other = Targets.of(first), Targets.of(turned)
    assert targets.same(other) and targets.count.tolist() == [1, 2, 1]
    for own, data in ((targets, first), (other, turned)):
        assert own.user_means(data["with_history"]).tolist() == [0, 2, -1]
    changed = Targets.of({**first, "item": np.array(["y", "z", "w", "y"])})
    assert not targets.same(changed) and targets.same_users(changed)


def test_anonymous_ranks_are_matched_by_digests(tmp_path):
    ranks = {
        "user": np.array(["b", "a", "b", "c"]),
        "item": np.array(["y", "z", "x", "y"]),
        "with_history": np.array([3, 0, 1, -1], dtype=np.int32),
        "exact_with_history": np.array([3, 40_000, 1, 2], dtype=np.int32),
        "log_likelihood": np.array([-8.1234, -0.5, -1.0, -2.0]),
    }
    hidden = anonymous(ranks)
    assert anonymous(hidden).keys() == hidden.keys()
    write_rank_file(tmp_path / "ranks.npz", hidden)
    found = load_ranks(tmp_path / "ranks.npz")
    assert found["first_of_user"].tolist() == [True, True, False, True]
    assert not {"user", "item"} & found.keys()
    assert found["log_likelihood"] == pytest.approx([-0.5, -1.0, -8.1234, -2.0], rel=1e-3)
    assert found["exact_with_history"].tolist() == [40_000, 1, 3, 2]
    own, whole = Targets.of(found), Targets.of(ranks)
    assert own.same(whole) and whole.same(own) and own.same_users(whole)
    assert own.user_means(found["with_history"]).tolist() == [0, 2, -1]
    other = Targets.of(anonymous({**ranks, "item": np.array(["y", "z", "w", "y"])}))
    assert not own.same(other) and own.same_users(other)
    assert not own.same_users(Targets.of({**ranks, "user": np.array(["b", "a", "b", "d"])}))
    wanted = np.array([False, True, True, True])
    some, fresh = part_of(found, wanted, "late"), part_of(anonymous(ranks), wanted, "late")
    own = Targets.of(some)
    assert own.count.tolist() == [2, 1] and own.same(Targets.of(fresh))
    assert own.user_means(some["with_history"]).tolist() == [2, -1]
    assert not own.same(Targets.of(part_of(found, wanted, "early")))
    for first in ([False, True, False, True], [1, 1, 0, 1]):
        write_rank_file(tmp_path / "bad.npz", {**hidden, "first_of_user": np.array(first)})
        with pytest.raises(ConfigError, match="bad.npz.*does not say where users begin"):
            load_ranks(tmp_path / "bad.npz")


def test_seeds_whose_means_happen_to_be_equal_still_leave_an_interval():
    """Each of two seeds loses ten other users: no seed differs, and no user differs in both."""
    values = np.zeros((2, 120, 1))
    values[0, :10] = values[1, 10:20] = -0.1
    (found,) = paired_differences(values)
    half = 1.96 * values.mean(0).std(ddof=1) / np.sqrt(120)
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)
