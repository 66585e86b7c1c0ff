"""Items beside their SIDs: an embedding per item in the input, and a softmax over items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import NEVER, Beams, Step, best
from recbole_gr.generation.ranking import Generated, rank_items
from recbole_gr.model.base import GenerativeRecommender
from recbole_gr.model.full_softmax import full_softmax_loss
from recbole_gr.model.item_text import of_mean_length_1
from recbole_gr.model.layers import logits_of
from recbole_gr.model.sampled_softmax import SharedNegatives, sampled_softmax_loss

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable

SID, ID, CONTENT = PARTS = ("sid", "id", "content")


class ItemSide(GenerativeRecommender):
    """A generative recommender that may also know items one by one; by default it does not.

    With ``item_input`` the token of an item in the history is a sum of what there is: what the
    model makes of its SID, an embedding of its id, a linear map of its content. With ``item_head``
    the state that generates the next SID also takes a softmax over all items, whose loss is added,
    and an item is ranked by ``log P(SID) + item_head_score * log P(item)``: of all items where the
    model scores every SID, else of those that the beams hold. Both use one table of items.

    A subclass gives its tokens to :meth:`with_items` and its states to :meth:`item_loss`, and the
    step of its search has the state of each user in ``user``; keys are in
    ``properties/model/ItemSide.yaml``.

    Attributes:
        item_table: embeddings of items, where there are any.
    """

    def __init__(
        self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor | None = None
    ):
        super().__init__(config, dataset, sid)
        self.item_table: Any = None
        parts = _input_of(config)
        self.sid_input = SID in parts
        self.item_parts = [part for part in parts if part != SID]
        self.item_dropout = config["item_dropout"] if self.item_parts else 0.0
        self.item_head, self.item_head_score = config["item_head"], config["item_head_score"]
        if self.item_parts or self.item_head:
            width = config["hidden_size"]
            self.item_table = ItemTable(self.item_parts or [ID], self.n_items, width, content)
            self.weights_per_item = True
            if CONTENT in self.item_parts:  # one scale for old items and new ones
                self.of_data = (*self.of_data, "item_table.content")
        self.ranks_items = bool(self.item_head)
        if self.item_head:
            self.to_items = nn.Linear(config["hidden_size"], config["hidden_size"], bias=False)
            self._negatives = None
            if config["item_head_negatives"]:
                self._negatives = SharedNegatives(config["item_head_negatives"], self.n_items)

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check what concerns items; may raise ConfigError."""
        super().prepare_config(config)
        parts = _input_of(config)
        wrong = [part for part in parts if part not in PARTS]
        if wrong or len(set(parts)) < len(parts):
            raise ConfigError(f"item_input: {parts} must be different ones of {', '.join(PARTS)}")

    @classmethod
    def reads_content(cls, config: Any) -> bool:
        """Whether the item content is the last argument of the constructor."""
        return cls.needs_content or CONTENT in _input_of(config)

    @staticmethod
    def saved_content(state_dict: Any) -> Tensor:
        """The item content in the weights of a checkpoint."""
        return state_dict["item_table.content"]

    # Training

    def with_items(self, tokens: Tensor, items: Tensor) -> Tensor:
        """Tokens ``[..., d]`` of the SIDs of ``items [...]``, with what the items have beside."""
        if not self.item_parts:
            return tokens
        own = self.item_table(items, self.item_dropout if self.training else 0.0)
        return tokens + own if self.sid_input else own

    def item_loss(self, states: Tensor, items: Tensor, counted: Tensor | None) -> Tensor:
        """``item_head`` times the mean cross-entropy of the next item; 0 without a head. Row 0, of
        the padding, is one more item there, as in RecBole's softmax; what is trained gives it 1e-9.

        Args:
            states: ``[..., d]`` that generate the next SIDs.
            items: ``[...]`` the next items.
            counted: ``[...]`` bool, which of them count; None: all.
        """
        if not self.item_head:
            return states.new_zeros(())
        weight = None
        if counted is None:
            states, items = states.flatten(0, -2), items.flatten()
        elif states.device.type == "cpu":
            states, items = states[counted], items[counted]
        else:  # how many count would be waited for
            states, items, weight = states.flatten(0, -2), items.flatten(), counted.flatten()
        states = self.to_items(states)
        if self._negatives is None:
            loss = full_softmax_loss(states, self.item_table.weight, items, weights=weight)
        else:
            drawn = self._negatives.draw(int(torch.randint(2**62, ())))
            loss = sampled_softmax_loss(
                states,
                self.item_table(items),
                self.item_table(drawn),
                self._negatives.log_expected[drawn],
                items.unsqueeze(1) == drawn,
                weight,
            )
        return self.item_head * loss

    # Inference

    def item_log_probs(self, users: Tensor) -> Tensor:
        """``[B, n_items]`` of the softmax over items, 0 for the padding; of states ``[B, d]``."""
        logits = logits_of(self.to_items(users), self.item_table.weight[1:]).float()
        return F.pad(logits.log_softmax(1), (1, 0))

    def beside(self, step: Step) -> Tensor | None:
        """As of any model."""
        if not self.item_head:
            return None
        return self.beside_user(step.user)  # type: ignore[attr-defined]

    def beside_user(self, users: Tensor) -> Tensor:
        """Likewise, of states ``[B, d]``."""
        return self.item_head_score * self.item_log_probs(users)

    def best_items(self, scores: Tensor, excluded: Tensor | None, n: int) -> Beams:
        """The ``n`` best items by scores ``[B, n_items]``, those of ``excluded [B, H]`` left out,
        as beams that name them."""
        if excluded is not None:
            scores = scores.scatter(1, excluded, NEVER)
        ids = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        scores, items = best(scores, ids, min(n, scores.shape[1]))
        return self._named(items, scores)

    def ordered(self, beams: Beams, added: Tensor, interaction: Interaction) -> Beams:
        """The items that finished beams hold, in order with what is added to their scores."""
        width = beams.nodes.shape[1] * self.trie.max_sharing
        items, scores = rank_items(self.trie, beams, width, exclude=self._excluded(interaction))
        scores = torch.where(items > 0, scores + added.gather(1, items), NEVER)
        scores, order = best(scores, items, beams.nodes.shape[1])
        return self._named(items.gather(1, order), scores)

    def _named(self, items: Tensor, scores: Tensor) -> Beams:
        items = items.masked_fill(scores == NEVER, 0)
        nodes = self.trie.item_paths()[-1][items, 0].long().masked_fill(items == 0, -1)
        return Beams(nodes, scores, self.codes[items], items)

    def rank(self, beams: Beams, k: int, interaction: Interaction) -> Generated:
        """As of any model; beams that name items are in order already."""
        if beams.items is None:
            return super().rank(beams, k, interaction)
        missing = max(0, k - beams.items.shape[1])
        items = F.pad(beams.items[:, :k], (0, missing))
        return Generated(items, F.pad(beams.scores[:, :k], (0, missing), value=NEVER))


def _input_of(config: Any) -> Sequence[str]:
    """``item_input``, which some models have no use for."""
    return (config["item_input"] if "item_input" in config else None) or [SID]


class ItemTable(nn.Module):
    """Embeddings of items ``[n_items, d]``: a row for each id, a linear map of content, or both.

    Args:
        parts: those of ``id`` and ``content`` that there are.
        n_items, width: of the table.
        content: ``[n_items, c]``, where it is among the parts.
    """

    content: Tensor

    def __init__(self, parts: Sequence[str], n_items: int, width: int, content: Tensor | None):
        super().__init__()
        self.ids: nn.Embedding | None = None
        self.project: nn.Linear | None = None
        if ID in parts:
            self.ids = nn.Embedding(n_items, width)
            nn.init.normal_(self.ids.weight, std=0.02)
        if CONTENT in parts:
            assert content is not None
            self.register_buffer("content", of_mean_length_1(content))
            self.project = nn.Linear(content.shape[1], width, bias=False)

    @property
    def weight(self) -> Tensor:
        """``[n_items, d]``."""
        parts = [] if self.ids is None else [self.ids.weight]
        parts += [] if self.project is None else [self.project(self.content)]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def forward(self, items: Tensor, dropout: float = 0.0) -> Tensor:
        """``[...]`` items -> ``[..., d]``; a share of them, ``dropout``, without their ids."""
        if self.project is None:
            assert self.ids is not None
            return _some(self.ids(items), dropout)
        of_content = self.project(F.embedding(items, self.content))
        return of_content if self.ids is None else of_content + _some(self.ids(items), dropout)


def _some(embeddings: Tensor, dropout: float) -> Tensor:
    """Whole rows left out with this rate, the others scaled to the same expectation."""
    if not dropout:
        return embeddings
    kept = torch.rand(embeddings.shape[:-1], device=embeddings.device) >= dropout
    return embeddings * (kept / (1 - dropout)).unsqueeze(-1)
