"""Sequence samples: the same targets as prefix samples, each exactly once, with enough history."""

import pytest
import torch

from recbole_gr.data.samples import check_window_overlap, prefix_rows, sequence_rows
from recbole_gr.errors import ConfigError

WINDOWS = [(1, 1), (2, 1), (3, 1), (3, 2), (5, 1), (5, 2), (5, 4), (50, 1), (50, 25), (50, 49)]


def random_rows(seed, max_length, n_users=30, first_targets=(1,), interleave=False):
    """Prefix rows of users whose item ids count up, so that an item id tells its place.

    Returns:
        dict: the arguments of `sequence_rows`; item `u * 1000 + t` is number t of user u.
    """
    generator = torch.Generator().manual_seed(seed)
    users, targets = [], []
    for user in range(1, n_users + 1):
        length = int(torch.randint(1, 4 * max_length + 4, (1,), generator=generator))
        start = first_targets[user % len(first_targets)]
        users += [user] * length
        targets += range(start, start + length)
    users, targets = torch.tensor(users), torch.tensor(targets)
    if interleave:  # in the order of time over all users, as a split without grouping leaves them
        order = torch.argsort(targets, stable=True)
        users, targets = users[order], targets[order]
    items = users * 1000 + targets
    lengths = targets.clamp(max=max_length)
    return {"users": users, "items": items, "lengths": lengths, "last_items": items - 1}


def counted_predictions(rows, n_targets, table):
    """Slow reference: (item predicted, items of history before it) of every counted prediction."""
    predictions = []
    for row, n in zip(rows.tolist(), n_targets.tolist()):
        item, length = int(table["items"][row]), int(table["lengths"][row])
        assert 1 <= n <= length, "a row cannot count more predictions than it has"
        for back in range(n):
            predictions.append((item - back, length - back))
    return predictions


@pytest.mark.parametrize("max_length, overlap", WINDOWS)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("interleave", [False, True])
def test_every_target_is_counted_exactly_once(max_length, overlap, seed, interleave):
    table = random_rows(seed, max_length, interleave=interleave)
    rows, n_targets = sequence_rows(**table, max_length=max_length, overlap=overlap)
    items = [item for item, _ in counted_predictions(rows, n_targets, table)]
    assert sorted(items) == sorted(table["items"].tolist())
    assert int(n_targets.sum()) == len(table["items"])


@pytest.mark.parametrize("max_length, overlap", WINDOWS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_targets_see_the_whole_history_or_at_least_the_overlap(max_length, overlap, seed):
    table = random_rows(seed, max_length)
    rows, n_targets = sequence_rows(**table, max_length=max_length, overlap=overlap)
    for item, seen in counted_predictions(rows, n_targets, table):
        number = item % 1000
        if number <= max_length:
            assert seen == number, "within the first window histories are those of prefix samples"
        else:
            assert overlap <= seen <= max_length


@pytest.mark.parametrize("max_length, overlap", WINDOWS)
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_begin_in_the_middle_of_a_sequence_count_from_there(max_length, overlap, seed):
    starts = (1, 2, max_length, max_length + 3)
    table = random_rows(seed, max_length, first_targets=starts)
    rows, n_targets = sequence_rows(**table, max_length=max_length, overlap=overlap)
    predictions = counted_predictions(rows, n_targets, table)
    assert sorted(item for item, _ in predictions) == sorted(table["items"].tolist())
    for item, seen in predictions:
        assert seen >= min(overlap, item % 1000)


def test_the_fewest_windows_are_used():
    table = random_rows(3, 10)
    for overlap in (1, 5, 9):
        rows, _ = sequence_rows(**table, max_length=10, overlap=overlap)
        stride = 10 - overlap + 1
        n_targets = torch.bincount(table["users"])[1:]
        windows = 1 + torch.ceil((n_targets - 10).clamp(min=0) / stride).long()
        assert len(rows) == int(windows.sum())


def test_the_example_of_the_docstring():
    numbers = torch.arange(1, 8)
    rows, n_targets = sequence_rows(
        torch.ones(7, dtype=torch.long), numbers, numbers.clamp(max=4), numbers - 1, 4, 2
    )
    assert numbers[rows].tolist() == [4, 7]
    assert n_targets.tolist() == [4, 3]


def test_a_gap_in_a_sequence_is_refused():
    table = random_rows(0, 5)
    keep = torch.ones(len(table["items"]), dtype=torch.bool)
    keep[(table["users"] == 2).nonzero()[1]] = False
    table = {name: column[keep] for name, column in table.items()}
    with pytest.raises(ConfigError, match="train_sample=prefix"):
        sequence_rows(**table, max_length=5, overlap=2)


def test_rows_that_do_not_continue_each_other_are_refused():
    table = random_rows(0, 5)
    table["last_items"] = table["last_items"].clone()
    table["last_items"][(table["users"] == 2).nonzero()[1]] = 1
    with pytest.raises(ConfigError, match="consecutive"):
        sequence_rows(**table, max_length=5, overlap=2)


def test_no_rows_give_no_samples():
    empty = torch.empty(0, dtype=torch.long)
    rows, n_targets = sequence_rows(empty, empty, empty, empty, 5, 2)
    assert len(rows) == len(n_targets) == 0


def test_prefix_samples_count_one_target_each():
    rows, n_targets = prefix_rows(4)
    assert rows.tolist() == [0, 1, 2, 3] and n_targets.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("overlap", [0, -1, 5, 6, 2.5, "2", True])
def test_an_impossible_overlap_is_refused(overlap):
    with pytest.raises(ConfigError, match="window_overlap"):
        check_window_overlap(overlap, 5)


def test_the_default_overlap_is_half_a_window():
    assert [check_window_overlap(None, n) for n in (1, 2, 3, 5, 50)] == [1, 1, 1, 2, 25]


def test_an_overlap_below_one_is_a_share_of_the_window():
    assert [check_window_overlap(0.2, n) for n in (1, 2, 5, 10, 50)] == [1, 1, 1, 2, 10]
    assert [check_window_overlap(0.08, 50), check_window_overlap(0.99, 10)] == [4, 9]
    for share in (0.0, -0.5, 1.0):
        with pytest.raises(ConfigError, match="or a share of it below 1"):
            check_window_overlap(share, 50)
