"""PIT's modules and its answers: generation over the index of items and SIDs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import Beams, Step
from recbole_gr.generation.exact import exact_scores
from recbole_gr.generation.ranking import TAIL_SCORE, Generated, rank_items
from recbole_gr.model.base import GenerativeRecommender
from recbole_gr.model.pit.alignment import CollaborativeAlignment
from recbole_gr.model.pit.candidates import nearest_sids, residual_codebooks, starting_sid_first
from recbole_gr.model.pit.histories import Histories
from recbole_gr.model.pit.index import EMPTY, BeamIndex
from recbole_gr.model.pit.item_to_token import ItemToToken
from recbole_gr.model.pit.items import ItemVectors
from recbole_gr.model.pit.prior import item_prior
from recbole_gr.model.pit.selection import path_losses
from recbole_gr.model.pit.user_to_token import (
    EncoderDecoderUserToToken,
    LazyUserToToken,
    Reading,
    UserToToken,
)

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable
    from recbole_gr.sid.trie import SIDTrie

CHUNK = 4096  # items proposed for at once


class IndexedRecommender(GenerativeRecommender):
    """PIT without its training: items with several weighted SIDs, and users who are answered.

    Attributes:
        codes: ``[n_items, L]`` the starting SIDs.
        index: the :class:`BeamIndex`; saved with the weights.
        trie: what decoding may end on, built from the index.
        full_trie: all SIDs of the index, which training goes by; ``trie`` unless the ablation
            ``index`` decodes the heaviest alone.
        by_items: whether items evolve, not pairs of user and item; then there is no pool.
        pool: ``[n_items, N, L]`` candidates while Item-to-Token is frozen, the starting SID first;
            ``pool_log_prob [n_items, N]`` is -inf where there is none.
        popularity: ``[n_items]`` training interactions of each item.
        histories: what each user of the training data has taken.
    """

    needs_content = True
    tokenizes_items = True
    of_sids = ("index.", "pool")  # what is kept of the SIDs of each item begins so
    of_data = ("popularity", "items.content", "items.mean", "items.spread")

    pool: Tensor
    pool_log_prob: Tensor
    popularity: Tensor
    tail: Tensor
    item_prior: Tensor | None
    user_to_token: UserToToken

    def __init__(self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor):
        super().__init__(config, dataset, sid)
        self.full_trie = self.trie
        self.by_items = config["evolve"] == "items"
        self.start_trie = self.loss_trie  # before the index makes another
        size, ablated = config["hidden_size"], set(config["ablate"])
        if len(content) != self.n_items:
            raise ConfigError(
                f"item content has {len(content)} rows for {self.n_items} items (padding included)"
            )
        self.n_candidates = config["n_candidates"]
        if self.n_candidates > np.prod(self.sizes, dtype=float):
            raise ConfigError(
                f"n_candidates: {self.n_candidates} SIDs do not exist with codebooks of "
                f"{self.sizes}; lower it or raise codebook_size"
            )
        self.history_input, self.detach_history = config["history_input"], config["detach_history"]
        self.merge = config["merge"]
        self.frozen = config["freeze_i2t"] or "i2t" in ablated
        self.only_heaviest = "index" in ablated

        shape = (config["n_heads"], config["head_size"], config["inner_size"], config["dropout"])
        std = config["initializer_range"]
        self.items = ItemVectors(content, size, trainable="csa" not in ablated)
        heads = (config["n_heads"], config["head_size"])
        self.alignment = (
            None if "csa" in ablated else CollaborativeAlignment(size, *heads, config["dropout"])
        )
        self.item_to_token = (
            None
            if "i2t" in ablated
            else ItemToToken(size, self.sizes, config["n_i2t_layers"], *shape, std)
        )
        self.history_map = torch.nn.Linear(size, size)
        per_item = 1 if self.history_input == "item" else self.n_levels
        if config["architecture"] == "lazy_decoder":
            depth = (config["n_context_layers"], config["n_layers"])
            self.user_to_token = LazyUserToToken(size, self.sizes, per_item, *depth, *shape, std)
        else:
            depth = (config["n_encoder_layers"], config["n_layers"])
            self.user_to_token = EncoderDecoderUserToToken(
                size, self.sizes, per_item, *depth, *shape, std
            )

        spare = 0 if self.by_items else self.n_candidates
        if self.frozen:  # nothing but the pool can come, and what is pruned leaves its place
            spare = max(0, self.n_candidates - config["index_size"])
        self.index = BeamIndex(
            self.codes,
            self.sizes,
            config["index_size"],
            spare,
            config["index_decay"],
            config["index_prior_weight"],
            config["index_threshold"],
            config["index_temperature"],
        )
        width = 0 if self.by_items else self.n_candidates
        pool = self.index.codes.new_zeros(self.n_items, width, self.n_levels)
        pool[:, :1] = self.codes.to(pool.dtype).unsqueeze(1)
        self.register_buffer("pool", pool)
        log_prob = torch.full(pool.shape[:2], EMPTY)
        log_prob[:, :1] = 0.0
        self.register_buffer("pool_log_prob", log_prob)

        count = np.asarray(dataset.inter_matrix(form="csr").sum(0)).ravel()[: self.n_items]
        self.register_buffer("popularity", torch.from_numpy(count).float())
        self.by_popularity = config["index_item_prior"] == "popularity"
        self.histories = Histories.of(dataset, self.n_items)
        self.of_new_data()
        self.register_load_state_dict_post_hook(lambda model, keys: model.of_new_data())

    @staticmethod
    def saved_content(state_dict: Mapping[str, Tensor]) -> Tensor:
        """The content that a saved model was made with (the constructor's last argument)."""
        return ItemVectors.saved_content(state_dict)

    @property
    def loss_trie(self) -> SIDTrie | None:
        return self.full_trie if self.over_trie else None

    @property
    def proposable(self) -> SIDTrie | None:
        """The tree that Item-to-Token keeps to; None: any SID. That of the starting SIDs, or of
        those that items have by now where these evolve."""
        return self.loss_trie if self.by_items else self.start_trie

    def of_new_data(self) -> None:
        """Bring up to date what follows from items and popularity, the trie included."""
        order = self.popularity[1:].argsort(descending=True, stable=True) + 1
        self.register_buffer("tail", order, persistent=False)
        prior = item_prior(self.popularity, self.items.content) if self.by_popularity else None
        self.register_buffer("item_prior", prior, persistent=False)
        self.rebuild()

    def rebuild(self) -> None:
        """Bring the trie up to date with the index; called after every change of it."""
        self.full_trie = self.trie = self.index.trie(self.item_prior)
        if self.only_heaviest:
            self.trie = self.index.trie(self.item_prior, only_heaviest=True)

    def start(self, interaction: Interaction) -> Step:
        return self.user_to_token.start(self._read(interaction, False))

    def rank(self, beams: Beams, k: int, interaction: Interaction) -> Generated:
        """Items of the beams, their SIDs merged by P(item | SID), then the most popular others."""
        exclude = self._excluded(interaction)
        return rank_items(self.trie, beams, k, self.merge, self.tail, exclude)

    @torch.no_grad()
    def exact(self, interaction: Interaction) -> Tensor:
        """Log-probability of every item, ``[B, n_items]`` (column 0 -inf), without a search."""
        users = len(interaction[self.ITEM_SEQ_LEN])
        step = self.start(interaction)
        return exact_scores(step, self.trie, users, self.renormalise, self.merge)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]`` scores: the items of the beams, below them all others by popularity."""
        most = min(self.n_items - 1, self.beam_size * self.trie.max_sharing)
        found = rank_items(self.trie, self.search(interaction), most, self.merge)
        rank = torch.empty(self.n_items, device=self.tail.device)
        rank[self.tail] = torch.arange(len(self.tail), device=rank.device, dtype=rank.dtype)
        dense = (TAIL_SCORE - rank).repeat(len(found.items), 1)
        dense.scatter_(1, found.items, found.scores)
        exclude = self._excluded(interaction)
        if exclude is not None:
            dense.scatter_(1, exclude, float("-inf"))
        dense[:, 0] = float("-inf")
        return dense

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` log-probability of each row's own item, over all its SIDs."""
        item = interaction[self.ITEM_ID]
        codes = self.index.codes[item].long()  # [B, P, L]
        share = self._log_share(item, codes, self.trie)
        share = share.masked_fill(self.index.weight[item] == 0, EMPTY)
        trie = self.trie if self.renormalise else None
        losses = path_losses(self.start(interaction), codes, torch.zeros_like(codes[..., 0]), trie)
        scores = share - losses * self.n_levels
        return scores.logsumexp(1) if self.merge == "logsumexp" else scores.amax(1)

    def _log_share(self, items: Tensor, codes: Tensor, trie: SIDTrie) -> Tensor:
        """``[n, P]`` log P(item | SID) for the SIDs ``[n, P, L]`` of ``items [n]``; -inf where the
        item does not own the SID."""
        leaf = torch.zeros_like(codes[..., 0])
        for level in range(self.n_levels):
            leaf = trie.advance(level, leaf, codes[..., level])
        return trie.log_share_of(leaf, items.unsqueeze(1).expand_as(leaf))

    @torch.no_grad()
    def add_items(self, content: Tensor) -> Tensor:
        """Make new items recommendable from their content alone, without training.

        Args:
            content: ``[n, d_m]`` as the model's own content.

        Returns:
            ``[n]`` their item ids.
        """
        n_old, width = self.n_items, self.items.content.shape[1]
        if content.shape[1] != width:
            raise ConfigError(
                f"new items: {content.shape[1]} numbers of content each, the model has {width}"
            )
        self.items.append(content)
        ids = torch.arange(n_old, n_old + len(content), device=self.codes.device)
        codes, log_prob = self._proposals(ids, self._codebooks(n_old))
        self.index.add_items(codes, log_prob)
        self.n_items += len(ids)
        self.codes = torch.cat([self.codes, codes[:, 0]])
        width = self.pool.shape[1]
        self.pool = torch.cat([self.pool, codes[:, :width].to(self.pool)])
        log_prob = log_prob[:, :width].to(self.pool_log_prob)
        self.pool_log_prob = torch.cat([self.pool_log_prob, log_prob])
        self.popularity = torch.cat([self.popularity, self.popularity.new_zeros(len(ids))])
        self.of_new_data()
        return ids

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **options: Any) -> Any:
        """As of any module; a model saved after :meth:`add_items` brings its added items along."""
        added = len(state_dict.get("codes", ())) - self.n_items
        if added > 0:
            own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
            for name, values in own.items():
                # Tensors with a row per item; those of the trie are made again after loading.
                n_rows = len(values) if values.ndim else 0
                if n_rows and name in state_dict and len(state_dict[name]) == n_rows + added:
                    owner, _, attribute = name.rpartition(".")
                    grown = torch.cat([values.data, state_dict[name][-added:].to(values)])
                    if isinstance(values, torch.nn.Parameter):
                        values.data = grown  # an optimiser goes on holding it
                    else:
                        setattr(self.get_submodule(owner), attribute, grown)
            self.n_items += added
        return super().load_state_dict(state_dict, *args, **options)

    def _read(self, interaction: Interaction, all_targets: bool) -> Reading:
        history = interaction[self.ITEM_SEQ]
        if self.history_input == "item":
            vectors = self.items(history)
            tokens = self.history_map(vectors.detach() if self.detach_history else vectors)
        else:
            tokens = self.user_to_token.history_of(self.index.heaviest(history))
        return self.user_to_token.read(tokens, interaction[self.ITEM_SEQ_LEN], all_targets)

    @torch.no_grad()
    def _propose(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates of items from their present vectors, the starting SID first:
        ``(codes [n, N, L], log_prob [n, N])``."""
        parts, books = [], self._codebooks(self.n_items)
        for chunk in items.split(CHUNK):
            start = self.codes[chunk]
            codes, log_prob = self._proposals(chunk, books)
            if self.item_to_token is None:
                own = log_prob[:, 0]  # as probable as the nearest one
            else:
                own = self.item_to_token.log_prob(self.items(chunk), start, self.proposable)
            parts.append(starting_sid_first(start, own, codes, log_prob))
        codes, log_prob = (torch.cat(part) for part in zip(*parts))
        return codes, log_prob

    def _proposals(self, items: Tensor, books: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        """What Item-to-Token proposes, or the nearest SIDs where it is left out; best first."""
        if self.item_to_token is None:
            assert books is not None  # see _codebooks
            return nearest_sids(self.items.content[items], books, self.n_candidates)
        vectors = self.items(items)
        return self.item_to_token.propose(vectors, self.n_candidates, self.proposable)

    def _codebooks(self, n_items: int) -> list[Tensor] | None:
        """Codebooks that explain the SIDs of the first ``n_items`` items, the starting ones or,
        where items evolve, those that they have by now."""
        if self.item_to_token is not None:
            return None
        codes = self.index.heaviest() if self.by_items else self.codes
        return residual_codebooks(self.items.content[1:n_items], codes[1:n_items], self.sizes)
