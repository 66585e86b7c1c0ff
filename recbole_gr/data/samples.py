"""The training rows of an augmented data set, and the number of targets of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.data.dataset import GenerativeDataset

SAMPLE_KINDS = ("prefix", "sequence")


def check_window_overlap(overlap: float | None, max_length: int) -> int:
    """The overlap of neighbouring windows in items; half a window where none is given.

    Args:
        overlap (int | float | None): `window_overlap` of the configuration: items, or below 1 a
            share of `max_length`.
        max_length (int): `MAX_ITEM_LIST_LENGTH`, the length of a window.

    Returns:
        int: between 1 and `max_length - 1` (1 for windows of a single item).

    Raises:
        ConfigError: `overlap` is no such number or lies outside that range.
    """
    overlap = 0.5 if overlap is None else overlap
    largest = max(1, max_length - 1)
    if isinstance(overlap, float) and 0 < overlap < 1:
        return min(max(1, int(round(overlap * max_length, 6))), largest)
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 1 <= overlap <= largest:
        raise ConfigError(
            f"window_overlap={overlap!r} must be an integer from 1 to {largest}, less than "
            f"MAX_ITEM_LIST_LENGTH={max_length}, or a share of it below 1; leave it empty for half "
            "a window"
        )
    return overlap


def prefix_rows(n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every row once, each counting its own target only (RecBole's training samples).

    Returns:
        tuple[LongTensor, LongTensor]: rows [n_rows] and n_targets [n_rows], all one.
    """
    return torch.arange(n_rows), torch.ones(n_rows, dtype=torch.long)


def sequence_rows(
    users: torch.Tensor,
    items: torch.Tensor,
    lengths: torch.Tensor,
    last_items: torch.Tensor,
    max_length: int,
    overlap: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest rows whose last predictions cover every target exactly once.

    A row with history `h_1 .. h_T` and target `y` holds T predictions: position p predicts
    `h_(p+1)`, and the last one `y`. Counting only the last `n_targets` of them lets a few rows
    stand for all prefix samples of a user. With 7 targets (item 0 comes before target 1), windows
    of `max_length` 4 and an `overlap` of 2:

        row         history    target   counted targets
        target 4    0 1 2 3    4        1 2 3 4     whole histories, as in the prefix samples
        target 7    3 4 5 6    7        5 6 7       target 5 sees items 3 and 4: the overlap

    Windows advance by `max_length - overlap + 1` targets, so that the first counted target of each
    has exactly `overlap` items before it; the last one ends at the user's last target. The first
    row of a user need not hold the first target of the sequence (a later period, say): targets are
    counted from that row on.

    Args:
        users (LongTensor): [n] user of each row; rows of one user in the order of time, in any
            order between users.
        items (LongTensor): [n] target of each row.
        lengths (LongTensor): [n] number of items in each history.
        last_items (LongTensor): [n] last item of each history.
        max_length (int): length of a full history.
        overlap (int): least number of items before a target whose history was cut short.

    Returns:
        tuple[LongTensor, LongTensor]: rows [m], indices into the n rows, and n_targets [m]; the
        latter sum to n.

    Raises:
        ConfigError: the rows of some user are not consecutive prefixes of one sequence.
    """
    n_rows = len(users)
    if n_rows == 0:
        return prefix_rows(0)
    order = torch.argsort(users, stable=True)
    users, items, lengths, last_items = (x[order] for x in (users, items, lengths, last_items))
    same_user = users[1:] == users[:-1]
    opens = torch.cat([same_user.new_ones(1), ~same_user])
    closes = torch.cat([~same_user, same_user.new_ones(1)])

    row = torch.arange(n_rows)
    start = torch.where(opens, row, 0).cummax(0).values
    before = lengths[start]  # items before the user's first target here, as far as a history shows
    target = before + row - start  # number of each target within its sequence
    chained = (items[:-1] == last_items[1:]) | ~same_user
    if not (chained.all() and torch.equal(lengths, target.clamp(max=max_length))):
        raise ConfigError(
            "train_sample=sequence needs each user's training rows to be consecutive prefixes of "
            "one sequence, which this split or benchmark file lacks; use train_sample=prefix"
        )

    stride = max_length - overlap + 1
    anchor = (before - 1 + stride).clamp(min=max_length)  # target of the user's first full window
    chosen = closes | ((target >= anchor) & ((target - anchor) % stride == 0))
    target, before, start = target[chosen], before[chosen], start[chosen]
    # A row counts what lies between the row chosen before it and itself.
    opens = torch.cat([same_user.new_ones(1), start[1:] != start[:-1]])
    return order[chosen], target - torch.where(opens, before - 1, target.roll(1))


def training_rows(
    dataset: GenerativeDataset, sample: str, max_length: int, overlap: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of `dataset` to train on and the number of targets that each counts.

    Args:
        dataset (SequentialDataset): the training split, augmented.
        sample (str): `train_sample`, "prefix" or "sequence".
        max_length (int): `MAX_ITEM_LIST_LENGTH`.
        overlap (int | float | None): `window_overlap`; half of `max_length` where None.

    Returns:
        tuple[LongTensor, LongTensor]: rows and n_targets, see `sequence_rows`.

    Raises:
        ConfigError: unknown `sample`, bad `overlap`, or rows that are no sequences.
    """
    if sample not in SAMPLE_KINDS:
        raise ConfigError(f"train_sample={sample!r} is unknown; it is one of {list(SAMPLE_KINDS)}")
    overlap = check_window_overlap(overlap, max_length)
    if sample == "prefix":
        return prefix_rows(len(dataset))
    rows = dataset.inter_feat
    lengths = rows[dataset.item_list_length_field]
    histories = rows[dataset.item_list_field]
    last_items = histories.gather(1, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    return sequence_rows(
        rows[dataset.uid_field], rows[dataset.iid_field], lengths, last_items, max_length, overlap
    )


def targets_by_position(
    items: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """What each position of a history predicts: the next item, and the row's target at the end.

    Args:
        items (LongTensor): [B, T] histories, filled up at the end.
        lengths (LongTensor): [B] of them.
        targets (LongTensor): [B].

    Returns:
        LongTensor: [B, T]; what stands beyond the end of a history means nothing.
    """
    last = torch.arange(items.shape[1], device=items.device) == (lengths - 1).unsqueeze(1)
    return torch.where(last, targets.unsqueeze(1), items.roll(-1, 1))
