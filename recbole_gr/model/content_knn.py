"""The neighbours of the last items by content: what a model of content has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_gr.compat.tracing import exporting

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

AT_ONCE = 1 << 22  # scores that are made together
UNLIKE = -1.0  # least cosine


class ContentKNN(SequentialRecommender):
    """Ranks items by how near their content is to that of a user's last items; learns nothing.

    The score of an item is the largest, over the last ``neighbour_items`` items of the history, of
    the cosine of both contents times ``neighbour_decay`` to the power of how many items came after,
    over ``temperature``. An item is no neighbour of itself, so that what was taken comes back only
    where it is near to something else of the history. The softmax of the scores stands for
    probabilities, which :class:`~recbole_gr.fusion.model.Fusion` adds to another model's.

    Args:
        config: with the keys of ``properties/model/ContentKNN.yaml``.
        dataset: the training split, of which nothing but its size is read.
        content: ``[n_items, c]`` item content; row 0, of the padding, and rows of zeros are near to
            nothing.
    """

    input_type = InputType.POINTWISE
    needs_content = True
    loss_type = "CE"  # scores are logits over the catalogue
    learned = False  # a fusion does not smooth it
    of_data = ("content",)

    content: Tensor

    def __init__(self, config: Config, dataset: Dataset, content: Tensor) -> None:
        super().__init__(config, dataset)
        self.n_last = config["neighbour_items"]
        self.decay, self.temperature = config["neighbour_decay"], config["temperature"]
        self.register_buffer("content", F.normalize(content.float(), dim=1))
        self.unused = nn.Parameter(torch.zeros(()))  # RecBole's trainers need one

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """0: there is nothing to learn."""
        return 0.0 * self.unused

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]``; column 0 means nothing."""
        history, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        if exporting():  # a graph for any number of users has no number of parts
            return self._scores(history, length, self.content)
        parts = max(1, AT_ONCE // self.n_items)
        both = zip(history.split(parts), length.split(parts))
        return torch.cat([self._scores(*part, self.content) for part in both])

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` of each row's own item."""
        items = interaction[self.ITEM_ID].unsqueeze(1)
        user = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        return self._scores(*user, self.content[items], items)[:, 0]

    def _scores(
        self, history: Tensor, length: Tensor, wanted: Tensor, items: Tensor | None = None
    ) -> Tensor:
        """``[B, N]`` of the items whose content is ``wanted``: that of all, or ``[B, N, c]`` that
        of `items` ``[B, N]``."""
        nearest: Tensor | None = None
        for back in range(min(self.n_last, history.shape[1])):
            place = (length - 1 - back).unsqueeze(1)  # [B, 1]
            taken = history.gather(1, place.clamp_min(0))
            query = self.content[taken[:, 0]]  # [B, c]
            if items is None:
                cosine = (query @ wanted.T).scatter(1, taken, UNLIKE)
            else:
                cosine = (wanted @ query.unsqueeze(2))[..., 0].masked_fill(items == taken, UNLIKE)
            near = (cosine * self.decay**back).masked_fill(place < 0, UNLIKE)
            nearest = near if nearest is None else torch.maximum(nearest, near)
        assert nearest is not None, "a history has room for one item"
        return nearest / self.temperature

    @staticmethod
    def saved_content(state_dict: Mapping[str, Tensor]) -> Tensor:
        """The item content in the weights of a checkpoint, of length 1."""
        return state_dict["content"]
