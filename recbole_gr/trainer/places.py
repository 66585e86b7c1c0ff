"""Places of targets among ranked or scored items, with the items of a history and without them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_gr.sid.counting import counts_of

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

Pairs = tuple[Tensor, Tensor]  # a row [N], ascending, and an item [N] of it; distinct
CACHED = 2**18  # scores that are compared at once


def ranks_in_lists(
    items: Tensor, history: Tensor, positive_u: Tensor, positive_i: Tensor
) -> tuple[Tensor, Tensor]:
    """Places of targets in ranked lists, with the history's items in them and without.

    Args:
        items: ``[B, W]`` best first, 0 in empty places, which come last.
        history: ``[B, H]`` items, 0 where there are no more.
        positive_u: ``[P]`` the row of each target.
        positive_i: ``[P]`` its item.

    Returns:
        Two tensors ``[P]``: places from 0, -1 for what the list does not hold.
    """
    same = items[positive_u] == positive_i.unsqueeze(1)  # [P, W]
    there, place = same.any(1), same.int().argmax(1, keepdim=True)
    own = (items.unsqueeze(2) == history.unsqueeze(1)).any(2)  # [B, W]
    own_until = own.cumsum(1)[positive_u].gather(1, place)  # a target of the history among them
    rank = place.squeeze(1).masked_fill(~there, -1)
    old = own[positive_u].gather(1, place).squeeze(1)
    return rank, (rank - own_until.squeeze(1)).masked_fill(~there | old, -1)


def ranks_by_scores(
    scores: Tensor, history: Pairs, positive_u: Tensor, positive_i: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`ranks_in_lists`, among all items by their scores ``[B, n_items]``: a rank is the
    number of items with a higher score, or the same and a lower id. An item of -inf is not ranked.

    Args:
        scores: -inf for item 0.
        history: the distinct items of each row, as pairs of row ``[N]``, ascending, and item.
        positive_u: ``[P]`` the row of each target.
        positive_i: ``[P]`` its item.
    """
    in_turn = torch.arange(len(scores), device=scores.device)
    own_rows = len(positive_u) == len(scores) and bool((positive_u == in_turn).all())
    row, past = history
    if not own_rows:  # a copy of a row and of its history for each of its targets
        n_past = counts_of(row, len(scores))
        first = (n_past.cumsum(0) - n_past)[positive_u]
        n_past = n_past[positive_u]
        row = torch.arange(len(positive_u), device=row.device).repeat_interleave(n_past)
        place = torch.arange(len(row), device=row.device) - (n_past.cumsum(0) - n_past)[row]
        past, scores = past[first[row] + place], scores[positive_u]
    item = positive_i.unsqueeze(1)
    target = scores.gather(1, item)
    rank, n_equal = _at_least(scores, target)
    rank -= 1
    tied = (n_equal > 1).nonzero().squeeze(1)
    if len(tied):
        ids = torch.arange(scores.shape[1], device=scores.device)
        rank[tied] -= ((scores[tied] == target[tied]) & (ids > item[tied])).sum(1)
    rank = rank.masked_fill(~(target > float("-inf")).squeeze(1), -1)
    by_past, by_target, wanted = scores[row, past], target.squeeze(1)[row], positive_i[row]
    above = (by_past > by_target) | ((by_past == by_target) & (past < wanted))
    without = rank - counts_of(row[above], len(rank))
    without[row[past == wanted]] = -1
    return rank, without.masked_fill(rank < 0, -1)


def _at_least(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Per row, how many values ``[P, n]`` are at least as high as the ``target [P, 1]``, and how
    many are equal to it."""
    n_rows = len(rows) if rows.is_cuda else max(1, CACHED // rows.shape[1])
    # Floats are summed many times as fast as booleans, and hold such numbers exactly.
    flag = rows.new_empty(min(n_rows, len(rows)), rows.shape[1], dtype=torch.float32)
    counts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for part, value in zip(rows.split(n_rows), target.split(n_rows)):
        for compare, found in zip((torch.ge, torch.eq), counts):
            found.append(compare(part, value, out=flag[: len(part)]).sum(1).long())
    return torch.cat(counts[0]), torch.cat(counts[1])


def distinct(items: Tensor) -> Pairs:
    """The distinct items of each row ``[B, H]``, as pairs of row and item."""
    items = items.sort(1).values
    new = items > 0
    new[:, 1:] &= items[:, 1:] != items[:, :-1]
    return new.nonzero()[:, 0], items[new]


class PastItems:
    """The distinct items of users in earlier parts of the data, for batches without a history.

    Args:
        datasets: the earlier parts; without any, every history is empty.
        like: a data set for the names of fields and the numbers of users and items.
    """

    def __init__(self, datasets: Iterable[Dataset], like: Dataset):
        parts = [part.inter_feat for part in datasets]
        pairs = [part[like.uid_field] * like.item_num + part[like.iid_field] for part in parts]
        pair = torch.cat([torch.empty(0, dtype=torch.long), *pairs]).unique()
        self._items = pair % like.item_num
        self._count = counts_of(pair // like.item_num, like.user_num)
        self._start = self._count.cumsum(0) - self._count

    def __call__(self, users: Tensor) -> Pairs:
        """Of users ``[B]``, as pairs of row and item."""
        users = users.cpu()
        count = self._count[users]
        row = torch.arange(len(users)).repeat_interleave(count)
        place = torch.arange(len(row)) + (self._start[users] - (count.cumsum(0) - count))[row]
        return row, self._items[place]
