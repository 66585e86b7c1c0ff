"""What a batch holds several times, computed once, without waiting for a device.

How many distinct values there are is known only to who looks. On a CPU that costs nothing and saves
work; elsewhere the host would wait in every step, so there the results have as many rows as there
can be, and those left over stand for padding and count nothing.
"""

import torch
from torch import Tensor


def distinct(items: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The distinct items of a batch, ascending, and the place of each among them.

    Args:
        items: ids of any shape, at least 0.
        most: the number of distinct ids there can be at most.

    Returns:
        ``(values [n], where)``, ``where`` of the shape of ``items``. On a CPU ``n`` is the number
        of distinct ids, elsewhere the smaller of ``most`` and the number of ``items``, and what is
        left over at the end is item 0, the padding.
    """
    if items.device.type == "cpu":
        return torch.unique(items, return_inverse=True)
    return distinct_of_fixed_size(items, most)


def distinct_of_fixed_size(items: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """:func:`distinct` as it is on every device but a CPU."""
    ordered, order = items.flatten().sort()
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    group = new.cumsum(0) - 1
    # All of a group write the same.
    values = ordered.new_zeros(min(most, len(ordered))).scatter(0, group, ordered)
    return values, torch.empty_like(group).scatter(0, order, group).view(items.shape)


def counted_pairs(counts: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of item and candidate that were chosen at all.

    Args:
        counts: ``[n, N]`` how often each was.
        most: the number of such pairs there can be at most.

    Returns:
        ``(row, place, count)``, all ``[m]``, in the order of rows and places. On a CPU every count
        is above 0; elsewhere ``m`` is the smaller of ``most`` and ``n N``, and those left over at
        the end have count 0.
    """
    if counts.device.type == "cpu":
        row, place = (counts > 0).nonzero(as_tuple=True)
        return row, place, counts[row, place]
    return counted_pairs_of_fixed_size(counts, most)


def counted_pairs_of_fixed_size(counts: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`counted_pairs` as it is on every device but a CPU."""
    flat = counts.flatten()
    order = (flat <= 0).int().argsort(stable=True)[:most]
    return order // counts.shape[1], order % counts.shape[1], flat[order]
