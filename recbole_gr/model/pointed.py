"""Recommenders that score every SID, with a pointer to the neighbours of the last items beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_gr.errors import ConfigError
from recbole_gr.model.exact import ExactRecommender
from recbole_gr.model.item_side import ItemSide
from recbole_gr.model.pointer import ContentPointer, Users
from recbole_gr.sid.likelihood import code_losses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable


class Pointed(ItemSide, ExactRecommender):
    """With ``pointer_items`` the next item comes from its SID or from a
    :class:`~recbole_gr.model.pointer.ContentPointer`; by default there is none.

    A subclass gives the states of users by :meth:`state` and their SIDs' scores by
    :meth:`scores_of`, and takes :meth:`pointer_loss` in the place of the loss of its levels; keys
    are in ``properties/model/Pointed.yaml``.
    """

    def __init__(
        self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor | None = None
    ):
        super().__init__(config, dataset, sid, content)
        self.pointer: ContentPointer | None = None
        if config["pointer_items"]:
            assert content is not None
            n_last, k = config["pointer_items"], config["pointer_neighbours"]
            self.pointer = ContentPointer(config["hidden_size"], n_last, k, content)
            self.ranks_items = self.weights_per_item = True
            self.of_data = (*self.of_data, "pointer.near", "pointer.cosine")

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check that a pointer can be ranked with; may raise ConfigError."""
        super().prepare_config(config)
        if config["pointer_items"] and config["decoding"] != "exact":
            raise ConfigError(
                "pointer_items: neighbours of the last items are ranked among all items, so give "
                "decoding=exact too"
            )

    @classmethod
    def reads_content(cls, config: Any) -> bool:
        """Whether the item content is the last argument of the constructor."""
        return super().reads_content(config) or bool(config["pointer_items"])

    @staticmethod
    def saved_content(state_dict: Any) -> Tensor:
        """As of any model; of a pointer there are the neighbours in the place of the content."""
        if "item_table.content" in state_dict:
            return state_dict["item_table.content"]
        return state_dict["pointer.cosine"][:, :0]

    @property
    def item_probabilities(self) -> bool:
        """As of any model; the mixture with a pointer is one of probabilities."""
        return not self.item_head

    def pointer_loss(
        self,
        pointer: ContentPointer,
        interaction: Interaction,
        hidden: Tensor,
        items: Tensor,
        counted: Tensor | None,
    ) -> Tensor:
        """Mean over the targets of ``-log P`` of the item, from its SID or as a neighbour.

        Args:
            hidden: ``[B, d]`` of prefix samples, else ``[B, T, d]``: states before the targets.
            items: ``[B]`` or ``[B, T]`` targets.
            counted: ``[B, T]`` bool, which of them count; None: all.
        """
        history = interaction[self.ITEM_SEQ]
        if hidden.dim() == 2:
            last = pointer.last_of(history, interaction[self.ITEM_SEQ_LEN])
        else:
            last = pointer.last(history)
        weight = None if counted is None else counted.float()
        if counted is not None and hidden.device.type == "cpu":
            hidden, last, items, weight = hidden[counted], last[counted], items[counted], None
        codes = self.codes[items]
        losses = code_losses(self.taught(hidden, codes), codes, self.loss_trie)
        leaf = self.trie.item_paths()[-1][items, 0].long().clamp_min(0)
        log_prob = -torch.stack(losses).sum(0) - self.trie.sharing(leaf).log()
        loss = -pointer.log_likelihood(log_prob, hidden, last, items)
        return loss.mean() if weight is None else (loss * weight).sum() / weight.sum().clamp_min(1)

    def taught(self, hidden: Tensor, codes: Tensor) -> Sequence[Tensor]:
        """Per level the logits ``[..., V_l]`` of codes ``[..., L]`` from states ``[..., d]``."""
        raise NotImplementedError

    # Inference

    def state(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` that generates the next SID of each history."""
        raise NotImplementedError

    def scores_of(self, state: Tensor) -> Tensor:
        """Log-probability of every SID, ``[B, n_leaves]``, from states ``[B, d]``."""
        raise NotImplementedError

    def user_state(self, interaction: Interaction) -> Tensor | Users:
        """``[B, d]`` the state of each user; with a pointer the last items beside it."""
        state = self.state(interaction)
        if self.pointer is None:
            return state
        history, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        return Users(state, self.pointer.last_of(history, length))

    def sid_scores(self, users: Tensor | Users) -> Tensor:
        """As of any model."""
        return self.scores_of(_state_of(users))

    def of_items(self, by_item: Tensor, users: Tensor | Users) -> Tensor:
        """As of any model."""
        if self.pointer is not None:
            by_item = self.pointer.mixed(by_item, *users)
        return by_item + self.beside_user(_state_of(users)) if self.item_head else by_item


def _state_of(users: Tensor | Users) -> Tensor:
    return users.state if isinstance(users, Users) else users
