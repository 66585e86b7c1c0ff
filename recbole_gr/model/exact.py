"""Generative recommenders that score every SID of the catalogue, so that nothing is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_gr.compat.tracing import exporting
from recbole_gr.generation.beam_search import NEVER, Beams, Observe
from recbole_gr.generation.exact import AT_ONCE, best_leaves
from recbole_gr.model.base import GenerativeRecommender

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction


class ExactRecommender(GenerativeRecommender):
    """A generative recommender that ranks by the scores of all SIDs.

    A subclass implements :meth:`user_state` and :meth:`sid_scores` in the place of ``start``; one
    that has ``start`` too may set ``decoding`` to ``beam``, which searches prefix by prefix.
    """

    decoding = "exact"

    def user_state(self, interaction: Interaction) -> Any:
        """``[B, ...]`` what is known of each user of a batch, a tensor or what splits like one."""
        raise NotImplementedError

    def last_of(self, hidden: Tensor, interaction: Interaction) -> Tensor:
        """``[B, T, d]`` -> ``[B, d]`` at the last item of each history."""
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return hidden[rows, interaction[self.ITEM_SEQ_LEN] - 1]

    def sid_scores(self, users: Any) -> Tensor:
        """Log-probability of every SID, ``[B, n_leaves]`` in the order of the trie.

        Args:
            users: ``[B, ...]`` of :meth:`user_state`.
        """
        raise NotImplementedError

    def code_log_probs(self, interaction: Interaction) -> Tensor | None:
        """``[B, L]`` log-probability of each code of each row's own item, of which the score of its
        SID is made; None, as here: a SID is scored as a whole."""
        return None

    def search(
        self,
        interaction: Interaction,
        beam_size: int | None = None,
        observe: Observe | None = None,
    ) -> Beams:
        """The best SIDs of all, made of as many users at once as memory is meant for; there are no
        levels to ``observe`` then."""
        if self.decoding == "beam":
            return super().search(interaction, beam_size, observe)
        users, excluded = self.user_state(interaction), self._excluded(interaction)
        if exporting():  # a graph for any number of users has no number of parts
            return self._best(users, self.sid_scores(users), excluded, beam_size)
        n_users = self._at_once()
        parts = users.split(n_users)
        left_out = [None] * len(parts) if excluded is None else excluded.split(n_users)
        found = [
            self._best(part, self.sid_scores(part), out, beam_size)
            for part, out in zip(parts, left_out)
        ]
        return found[0] if len(found) == 1 else _joined(found)

    def search_and_score(self, interaction: Interaction) -> tuple[Beams, Tensor | None]:
        """As of any model; the search comes by all scores."""
        if self.decoding == "beam":
            return super().search_and_score(interaction)
        users = self.user_state(interaction)
        scores = self.sid_scores(users)
        beams = self._best(users, scores, self._excluded(interaction))
        return beams, self._by_item(scores, users)

    def _best(
        self, users: Any, scores: Tensor, excluded: Tensor | None, n: int | None = None
    ) -> Beams:
        """The best SIDs by their scores, or the best items where something is added to these."""
        if not self.ranks_items:
            return self._best_leaves(scores, excluded, n)
        return self.best_items(self._by_item(scores, users), excluded, n or self.beam_size)

    def beside_user(self, users: Tensor) -> Tensor:
        """As :meth:`beside`, of what is known of users; where ``ranks_items``."""
        raise NotImplementedError

    def best_items(self, scores: Tensor, excluded: Tensor | None, n: int) -> Beams:
        """The ``n`` best items by scores ``[B, n_items]``, as beams that name them."""
        raise NotImplementedError

    def _best_leaves(self, scores: Tensor, excluded: Tensor | None, n: int | None = None) -> Beams:
        nodes, scores = best_leaves(self.trie, scores, n or self.beam_size, excluded)
        codes = self.codes[self.trie.items(nodes)[..., 0]]
        return Beams(nodes.masked_fill(scores == NEVER, -1), scores, codes)

    @torch.no_grad()
    def exact(self, interaction: Interaction) -> Tensor:
        """Log-probability of every item, ``[B, n_items]`` (column 0 -inf), without a search. With
        ``renormalise`` the catalogue has probability 1."""
        users = self.user_state(interaction)
        return self._by_item(self.sid_scores(users), users)

    def _by_item(self, scores: Tensor, users: Any) -> Tensor:
        by_item = self._of_sids(scores)
        return self.of_items(by_item, users) if self.ranks_items else by_item

    def _of_sids(self, scores: Tensor) -> Tensor:
        leaf, item = self.trie.entries()
        by_item = scores.new_full((scores.shape[0], self.n_items), NEVER)
        return by_item.index_copy(1, item, scores[:, leaf] + self.trie.entry_log_share())

    def of_items(self, by_item: Tensor, users: Any) -> Tensor:
        """The scores of all items ``[B, n_items]`` from the log-probabilities of their SIDs, where
        ``ranks_items``."""
        return by_item + self.beside_user(users)

    def added(self, interaction: Interaction) -> Tensor | None:
        """``[B, n_items]`` what items have beside the log-probability of their SIDs; None where
        nothing is added."""
        if not self.ranks_items:
            return None
        users = self.user_state(interaction)
        scores = self.sid_scores(users)
        return self._by_item(scores, users) - self._of_sids(scores)

    def exact_width(self) -> int:
        """As of any model: the scores themselves."""
        return self.n_items

    def _at_once(self) -> int:
        return max(1, AT_ONCE // self.exact_width())

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]`` for RecBole's dense path: of all items, unless ``decoding`` is beam."""
        if self.decoding == "beam":
            return super().full_sort_predict(interaction)
        scores, excluded = self.exact(interaction), self._excluded(interaction)
        return scores if excluded is None else scores.scatter(1, excluded, NEVER)

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` log-probability of each row's own item (RecBole's sampled evaluation)."""
        users, items = self.user_state(interaction), interaction[self.ITEM_ID].unsqueeze(1)
        parts = zip(users.split(self._at_once()), items.split(self._at_once()))
        own = [self._by_item(self.sid_scores(part), part).gather(1, item) for part, item in parts]
        return torch.cat(own)[:, 0]


def _joined(found: list[Beams]) -> Beams:
    nodes, scores, codes = map(torch.cat, zip(*(beams[:3] for beams in found)))
    items = [beams.items for beams in found if beams.items is not None]
    return Beams(nodes, scores, codes, torch.cat(items) if items else None)
