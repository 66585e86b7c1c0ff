"""RecBole's causal sequential models, trained on whole sequences instead of one sample a target."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_gr.data.frequency import training_counts
from recbole_gr.data.loader import N_TARGETS, NEGATIVES, SEED
from recbole_gr.data.samples import targets_by_position
from recbole_gr.model.full_softmax import full_softmax_loss
from recbole_gr.model.item_text import ItemsWithContent
from recbole_gr.model.sampled_softmax import SharedNegatives, sampled_softmax_loss

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction
    from recbole.model.abstract_recommender import SequentialRecommender as _Base
else:
    _Base = object


class WholeSequences(_Base):
    """Goes before the class of a causal model: one pass trains every counted target of a row.

    The model's own code runs unchanged on ``[B, T]`` histories; where it picks the last state of
    each row, it gets those of all counted positions, ``[N, d]`` in the order of rows. Position
    ``p`` predicts item ``p + 1`` of the history, the last one the target of the row, and the last
    ``n_targets`` of them count: the same targets as of RecBole's ``[N]`` prefix samples. With
    ``loss_type: CE`` the softmax over the catalogue is computed in pieces
    (:func:`~recbole_gr.model.full_softmax.full_softmax_loss`) or over ``softmax_negatives`` items
    (:func:`~recbole_gr.model.sampled_softmax.sampled_softmax_loss`), with ``BPR`` by the model
    itself. With ``item_text`` the model's ``item_embedding`` is one of ids and content.

    Args:
        config: of the model, with the keys of ``properties/model/WholeSequences.yaml``.
        dataset: the training split.
        content: ``[n_items, c]`` item content, where the class ``needs_content``.
    """

    needs_content = False
    of_data: tuple[str, ...] = ()  # as of a generative model
    item_embedding: Any  # an nn.Embedding, or ItemsWithContent
    _counted: Tensor | None = None

    def __init__(self, config: Config, dataset: Dataset, content: Tensor | None = None) -> None:
        super().__init__(config, dataset)
        if content is not None:
            self.item_embedding = ItemsWithContent(self.item_embedding, content)
            self.of_data = ("item_embedding.content",)
        self._smoothing = config["label_smoothing"]
        self._negatives = None
        if config["softmax_negatives"]:
            popular = config["negative_distribution"] == "popularity"
            counts = training_counts(dataset) if popular else None
            self._negatives = SharedNegatives(config["softmax_negatives"], self.n_items, counts)

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
                return self._softmax_loss(states, targets, interaction)
            negatives = interaction[NEGATIVES][self._counted]
            flat = {
                self.ITEM_SEQ: items, self.ITEM_SEQ_LEN: length,
                self.POS_ITEM_ID: targets, self.NEG_ITEM_ID: negatives,
            }  # fmt: skip
            return super().calculate_loss(flat)
        finally:
            self._counted = None

    def _softmax_loss(self, states: Tensor, targets: Tensor, interaction: Interaction) -> Tensor:
        if self._negatives is None:
            weight = self.item_embedding.weight
            return full_softmax_loss(states, weight, targets, self._smoothing)
        drawn = self._negatives.draw(int(interaction[SEED][0]))
        return sampled_softmax_loss(
            states,
            self.item_embedding(targets),
            self.item_embedding(drawn),
            self._negatives.log_expected[drawn],
            targets.unsqueeze(1) == drawn,
        )

    def gather_indexes(self, output: Tensor, gather_index: Tensor) -> Tensor:
        """The states of the counted positions in training; else RecBole's."""
        if self._counted is None:
            return super().gather_indexes(output, gather_index)
        return output[self._counted]

    @staticmethod
    def saved_content(state_dict: Mapping[str, Tensor]) -> Tensor:
        """The item content in the weights of a checkpoint (``item_text``)."""
        return state_dict["item_embedding.content"]


@cache
def on_whole_sequences(model_class: type, with_content: bool = False) -> Any:
    """The class of a causal model of RecBole's, or of a subclass, that trains on whole sequences;
    `with_content` it is made with the item content."""
    attributes = {"__module__": __name__, "needs_content": with_content}
    return type(model_class.__name__, (WholeSequences, model_class), attributes)
