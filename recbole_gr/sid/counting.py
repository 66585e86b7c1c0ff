"""Ids and codes told apart and counted without waiting for a device.

How many distinct values there are is known only to who looks, and torch's ``unique`` and
``bincount`` look. On a CPU that costs nothing; elsewhere the host would wait in every step.
"""

import torch
from torch import Tensor


def counts_of(values: Tensor, n: int) -> Tensor:
    """``[n]`` how often each number occurs among ``values [N]``, all in ``[0, n)``; as
    ``bincount``."""
    return values.new_zeros(n).index_add_(0, values, torch.ones_like(values))


def distinct(items: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The distinct ids of a batch, ascending, and the place of each among them.

    Args:
        items: ids of any shape, at least 0.
        most: the number of distinct ids there can be at most.

    Returns:
        ``(values [n], where)``, ``where`` of the shape of ``items``. On a CPU ``n`` is the number
        of distinct ids, elsewhere the smaller of ``most`` and the number of ``items``, and what is
        left over at the end is 0.
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
