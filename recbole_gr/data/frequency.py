"""Occurrences of each item in the training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
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


def popularity(counts: np.ndarray) -> np.ndarray:
    """The place of each item in the list of the most frequent ones, one list for all users.

    Args:
        counts: ``[n_items]`` training targets; row 0 is padding.

    Returns:
        numpy.ndarray: int32 ``[n_items]``, 0 for the most frequent one; of equal ones the lower id
        comes first. -1 for items that train nothing.
    """
    order = np.argsort(-counts[1:], kind="stable") + 1
    place = np.full(len(counts), -1, dtype=np.int32)
    place[order] = np.arange(len(order))
    return np.where(counts > 0, place, -1).astype(np.int32)
