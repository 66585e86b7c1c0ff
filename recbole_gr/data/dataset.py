"""RecBole's sequential data set, augmented without Python loops and without unused fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_gr.data.verbatim import ExactDataset
from recbole_gr.errors import ConfigError
from recbole_gr.registry import is_generative

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

    from recbole_gr.config import Config


def sliding_histories(
    users: torch.Tensor, max_length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every row but a user's first as a target, with the up to `max_length` rows before it.

    Args:
        users (LongTensor): [n] user of each row, equal users next to each other.
        max_length (int): most rows of a history.

    Returns:
        tuple: targets [m], the rows that are targets; histories [m, max_length], their rows in
        order, filled up at the end with any valid row; lengths [m] of the histories.
    """
    row = torch.arange(len(users))
    opens = torch.ones(len(users), dtype=torch.bool)
    opens[1:] = users[1:] != users[:-1]
    start = torch.where(opens, row, 0).cummax(0).values if len(users) else row
    targets = row[~opens]
    lengths = (targets - start[targets]).clamp(max=max_length)
    histories = (targets - lengths).unsqueeze(1) + torch.arange(max_length)  # (m, max_length)
    return targets, histories.minimum((targets - 1).unsqueeze(1)), lengths


class GenerativeDataset(ExactDataset, SequentialDataset):
    """A `SequentialDataset` with the same rows in the same order, built faster and kept smaller.

    Of the history fields it keeps the item ids and those that a generative model class names in its
    attribute `history_fields` (a tuple of interaction fields such as `("timestamp",)`); `None`
    keeps all of them, as for RecBole's own models. What a row means, how splits are made and what
    evaluation sees is RecBole's.

    Args:
        config (Config): with `MAX_ITEM_LIST_LENGTH` at least 1.
    """

    def __init__(self, config: Config) -> None:
        length = config["MAX_ITEM_LIST_LENGTH"]
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise ConfigError(f"MAX_ITEM_LIST_LENGTH={length!r} must be an integer of at least 1")
        model = config.model_class
        wanted = model.history_fields if is_generative(model) else None
        self._history_fields = wanted if wanted is None else {config["ITEM_ID_FIELD"], *wanted}
        super().__init__(config)
        missing = sorted((self._history_fields or set()) - set(self.inter_feat))
        if missing:
            raise ConfigError(
                f"the model {config['model']} reads the histories of {missing}, but load_col and "
                f"the .inter file of {self.dataset_name} give only {list(self.inter_feat)}"
            )

    def _preload_weight_matrix(self) -> None:
        # RecBole gives ids to a field of an additional file only where an alias names it.
        for field in self.config["preload_weight"] or {}:
            if field in self.field2type and field not in self.field2id_token:
                raise ConfigError(
                    f"preload_weight: the field {field!r} has no ids; if it holds items, set "
                    f"alias_of_item_id: [{field}]"
                )
        super()._preload_weight_matrix()

    @property
    def history_fields(self) -> list[str]:
        """Interaction fields whose histories are kept as `<field>_list`, the item id among them."""
        names = [field for field in self.inter_feat if hasattr(self, f"{field}_list_field")]
        return [n for n in names if getattr(self, f"{n}_list_field") in self.inter_feat]

    def _aug_presets(self) -> None:
        super()._aug_presets()
        for field in self.inter_feat:
            if field != self.uid_field and not self._keeps(field):
                list_field = self.__dict__.pop(f"{field}_list_field")
                for properties in (self.field2type, self.field2source, self.field2seqlen):
                    del properties[list_field]

    def _keeps(self, field: str) -> bool:
        return self._history_fields is None or field in self._history_fields

    def data_augmentation(self) -> None:
        """Turn each user's n rows into n - 1 rows of a target and the items before it.

        Equal to `SequentialDataset.data_augmentation`, tensor by tensor, for the fields kept.
        """
        self._check_field("uid_field", "time_field")
        self._aug_presets()
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        targets, histories, lengths = sliding_histories(
            self.inter_feat[self.uid_field], self.max_item_list_len
        )
        padding = torch.arange(self.max_item_list_len) >= lengths.unsqueeze(1)
        columns = {field: self.inter_feat[field][targets] for field in self.inter_feat}
        columns[self.item_list_length_field] = lengths
        for field in self.inter_feat:
            if field != self.uid_field and self._keeps(field):
                lists = self.inter_feat[field][histories]  # (m, max_length, ...)
                if lists.dtype == torch.float64:  # exact times, which only a split needs
                    lists = lists.float()
                lists[padding] = 0
                columns[getattr(self, f"{field}_list_field")] = lists
        self.inter_feat = Interaction(columns)

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> spmatrix:
        """RecBole's user-item matrix of all rows, the first item of each history included.

        Raises:
            ConfigError: `value_field` has no history, so that its first values are not known.
        """
        if value_field is not None and value_field not in self.history_fields:
            raise ConfigError(
                f"the history of {value_field} is not kept; name it in the model's history_fields"
            )
        return super().inter_matrix(form=form, value_field=value_field)
