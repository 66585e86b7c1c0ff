"""Histories of users, of any length, and the last part of them as a model reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


class Histories:
    """Sequences of interactions side by side, row `r` being `offsets[r]` to `offsets[r + 1]`.

    Attributes:
        offsets (LongTensor): [n_rows + 1].
        fields (dict[str, Tensor]): [n, ...] values of each interaction by field.
        item_field (str): the field of item ids.
    """

    def __init__(
        self, offsets: torch.Tensor, fields: dict[str, torch.Tensor], item_field: str
    ) -> None:
        self.offsets, self.fields, self.item_field = offsets, fields, item_field

    @classmethod
    def known(cls, dataset: Dataset) -> Histories:
        """The whole log of every user, row `r` for user id `r` (row 0, padding, is empty).

        Equal times stand in the order of `tie_order`, as in training samples.

        Args:
            dataset (Dataset): of `create_dataset`, before it is split.

        Raises:
            ConfigError: benchmark files, which hold ready samples in place of a log.
        """
        if dataset.benchmark_filename_list is not None:
            raise ConfigError(
                f"'{dataset.dataset_name}' comes in benchmark files (benchmark_filename), which "
                "hold samples and not what users have taken; give histories instead of users"
            )
        rows = dataset._dataframe_to_interaction(dataset.log_by_time())
        rows.sort(by=dataset.uid_field)  # stable, so the order of time stays within a user
        counts = torch.bincount(rows[dataset.uid_field], minlength=dataset.user_num)
        fields = {name: rows[name] for name in rows.columns if name != dataset.uid_field}
        return cls(_offsets(counts), fields, dataset.iid_field)

    @classmethod
    def of(cls, items: Sequence[Sequence[int]], item_field: str) -> Histories:
        """Histories of item ids alone, from a list of lists."""
        counts = torch.tensor([len(row) for row in items], dtype=torch.long)
        values = torch.tensor([item for row in items for item in row], dtype=torch.long)
        return cls(_offsets(counts), {item_field: values}, item_field)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> torch.Tensor:
        """LongTensor [n_rows], interactions of each."""
        return self.offsets.diff()

    def last(self, rows: torch.Tensor, length: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The up to `length` last interactions of `rows` [B].

        Returns:
            tuple[dict, LongTensor]: per field [B, length, ...], filled up at the end with 0, and
            [B] how many there are.
        """
        end = self.offsets[rows + 1]
        counts = (end - self.offsets[rows]).clamp(max=length)
        place = torch.arange(length)
        index = ((end - counts).unsqueeze(1) + place).clamp(max=max(0, int(self.offsets[-1]) - 1))
        padding = place >= counts.unsqueeze(1)
        parts = {}
        for name, values in self.fields.items():
            parts[name] = values[index]
            parts[name][padding] = 0
        return parts, counts

    def items(self, rows: torch.Tensor) -> torch.Tensor:
        """All items of `rows` [B], [B, H] with 0 after the end of each."""
        only = Histories(self.offsets, {self.item_field: self.fields[self.item_field]}, "")
        longest = int((self.offsets[rows + 1] - self.offsets[rows]).max())
        return only.last(rows, longest)[0][self.item_field]


def _offsets(counts: torch.Tensor) -> torch.Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
