"""Evaluation batches of a generative model: users with histories of about equal length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from recbole.data.dataloader import FullSortEvalDataLoader

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction
    from torch import Tensor

    from recbole_gr.config import Config
    from recbole_gr.data.dataset import GenerativeDataset


class GenerativeEvalLoader(FullSortEvalDataLoader):
    """RecBole's loader for full ranking with users in the order of their history's length, and
    histories cut to the longest of their batch.

    Metrics do not depend on the order of users, and a user's ranking does not depend on padding;
    where most histories are shorter than `MAX_ITEM_LIST_LENGTH`, most of the time would be spent on
    padding. The batch of the longest histories comes first, so that a want of memory shows at once;
    then the shortest, the longest of the others and so on, so that consecutive shares of the
    batches, which processes take, cost about the same.

    Args:
        config (Config): `eval_batch_size`.
        dataset (GenerativeDataset): the split; it keeps its order.
        sampler: unused in full ranking.
        shuffle (bool): RecBole's loader cannot.
    """

    def __init__(
        self, config: Config, dataset: GenerativeDataset, sampler: Any, shuffle: bool = False
    ) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        self._length_field = dataset.item_list_length_field
        self._list_fields = [getattr(dataset, f"{f}_list_field") for f in dataset.history_fields]
        self._order = _from_both_ends(dataset.inter_feat[self._length_field], self.step)

    def collate_fn(self, index: list[int]) -> tuple[Interaction, None, Tensor, Tensor]:
        """The batch of the places `index` in the order of this loader."""
        batch, *rest = super().collate_fn(self._order[torch.as_tensor(index)])
        longest = int(batch[self._length_field].max())
        for field in self._list_fields:
            batch.interaction[field] = batch[field][:, :longest]
        return batch, *rest


def _from_both_ends(lengths: Tensor, batch_size: int) -> Tensor:
    """Rows by falling length, their batches in the order first, last, second, ..., middle; that in
    the middle is the one that is not full."""
    n = -(-len(lengths) // batch_size)
    sizes = [batch_size] * n
    if n:
        sizes[n // 2] -= n * batch_size - len(lengths)
    batches = lengths.argsort(descending=True, stable=True).split(sizes)
    return torch.cat([batches[-1 - k // 2 if k % 2 else k // 2] for k in range(n)] or [lengths])
