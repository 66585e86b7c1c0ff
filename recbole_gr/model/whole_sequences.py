"""RecBole's causal sequential models, trained on whole sequences instead of one sample a target."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_gr.data.loader import N_TARGETS, NEGATIVES
from recbole_gr.data.samples import targets_by_position
from recbole_gr.errors import ConfigError
from recbole_gr.model.full_softmax import full_softmax_loss

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction
    from recbole.model.abstract_recommender import SequentialRecommender as _Base
else:
    _Base = object

#: Models whose state at a position depends on what is before it alone, and which score an item by
#: the product of the last state with its embedding.
CAUSAL = ("SASRec", "SASRecF", "GRU4Rec", "GRU4RecF")


class WholeSequences(_Base):
    """Goes before the class of a causal model: one pass trains every counted target of a row.

    The model's own code runs unchanged on ``[B, T]`` histories; where it picks the last state of
    each row, it gets those of all counted positions, ``[N, d]`` in the order of rows. Position
    ``p`` predicts item ``p + 1`` of the history, the last one the target of the row, and the last
    ``n_targets`` of them count: the same targets as of RecBole's ``[N]`` prefix samples. With
    ``loss_type: CE`` the softmax over the catalogue is computed in pieces
    (:func:`~recbole_gr.model.full_softmax.full_softmax_loss`), with ``BPR`` by the model itself.
    """

    _counted: Tensor | None = None

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The mean loss of the counted targets of a batch ``[B, T]``."""
        items, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        place = torch.arange(items.shape[1], device=items.device)
        left = length.unsqueeze(1) - place  # (B, T), 1 at the last item
        self._counted = (left >= 1) & (left <= interaction[N_TARGETS].unsqueeze(1))
        targets = targets_by_position(items, length, interaction[self.POS_ITEM_ID])
        targets = targets[self._counted]  # (N,)
        try:
            if self.loss_type == "CE":
                states = self.forward(items, length)  # (N, d)
                return full_softmax_loss(states, self.item_embedding.weight, targets)
            negatives = interaction[NEGATIVES][self._counted]
            flat = {
                self.ITEM_SEQ: items, self.ITEM_SEQ_LEN: length,
                self.POS_ITEM_ID: targets, self.NEG_ITEM_ID: negatives,
            }  # fmt: skip
            return super().calculate_loss(flat)
        finally:
            self._counted = None

    def gather_indexes(self, output: Tensor, gather_index: Tensor) -> Tensor:
        """The states of the counted positions in training; else RecBole's."""
        if self._counted is None:
            return super().gather_indexes(output, gather_index)
        return output[self._counted]


@cache
def on_whole_sequences(model_class: type) -> Any:
    """The class of a causal model of RecBole's, or of a subclass, that trains on whole sequences.

    Raises:
        ConfigError: the model is not one of `CAUSAL`.
    """
    known = [parent.__name__ for parent in model_class.__mro__ if parent.__name__ in CAUSAL]
    if not known:
        raise ConfigError(
            f"train_sample: sequence trains {', '.join(CAUSAL)} among RecBole's models, whose "
            f"state at a position knows nothing of what follows; {model_class.__name__} takes "
            "train_sample=prefix"
        )
    return type(model_class.__name__, (WholeSequences, model_class), {"__module__": __name__})
