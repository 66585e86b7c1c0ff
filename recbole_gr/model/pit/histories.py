"""Which items each user of the training data has taken, on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


class Histories(nn.Module):
    """The pairs of user and item in the training data: 8 bytes each, looked up by binary search.

    Args:
        users: ``[N]`` ids; pairs may come several times.
        items: ``[N]`` ids, 0 for none.
        n_items: ids are below it.
    """

    keys: Tensor

    def __init__(self, users: Tensor, items: Tensor, n_items: int):
        super().__init__()
        self.n_items = n_items
        keys = torch.unique(users[items > 0] * n_items + items[items > 0])
        self.register_buffer("keys", keys, persistent=False)

    @classmethod
    def of(cls, dataset: Dataset, n_items: int) -> Histories:
        """All that the rows of a training split show: their targets, and what a user had taken
        before the first of them."""
        rows = dataset.inter_feat
        users, items = rows[dataset.uid_field].long(), rows[dataset.iid_field].long()
        if getattr(dataset, "item_list_field", None) in rows:
            # A user's shortest row is the first: later ones add targets to what it shows.
            length = rows[dataset.item_list_length_field]
            order = length.argsort(stable=True)
            order = order[users[order].argsort(stable=True)]
            first = torch.ones_like(order, dtype=torch.bool)
            first[1:] = users[order][1:] != users[order][:-1]
            before = rows[dataset.item_list_field][order[first]].long()  # [n_users, S]
            earliest = users[order[first]].unsqueeze(1).expand_as(before)
            users = torch.cat([users, earliest.flatten()])
            items = torch.cat([items, before.flatten()])
        return cls(users, items, n_items)

    def hold(self, users: Tensor, items: Tensor) -> Tensor:
        """``[...]`` bool: whether each of ``users`` has taken the item beside it (of one shape)."""
        if not len(self.keys):
            return torch.zeros_like(items, dtype=torch.bool)
        keys = users * self.n_items + items
        place = torch.searchsorted(self.keys, keys).clamp_max(len(self.keys) - 1)
        return (self.keys[place] == keys) & (items < self.n_items)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """``(users [N], items [N])``, every pair once, by user and then by item."""
        return self.keys // self.n_items, self.keys % self.n_items
