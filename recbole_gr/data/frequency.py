"""Occurrences of each item in the training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


def training_counts(dataset: Dataset) -> torch.Tensor:
    """Training interactions of each item, the same whatever the kind of model.

    A sequential data set has one row per target with the items before it; the first item of a
    user's sequence is no target, so it is taken from the history of the row that has it alone.

    Args:
        dataset (Dataset): the training split.

    Returns:
        LongTensor: [n_items] by internal item id; row 0 (padding) is 0.
    """
    rows = dataset.inter_feat
    counts = torch.bincount(rows[dataset.iid_field], minlength=dataset.item_num)
    list_field = dataset.item_list_field
    if list_field in rows and hasattr(dataset, "item_list_length_field"):  # a sequential one
        first = rows[list_field][rows[dataset.item_list_length_field] == 1, 0]
        counts = counts + torch.bincount(first, minlength=dataset.item_num)
    counts[0] = 0
    return counts
