"""PIT: the modules put together, and what they do in each phase of training."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_gr.errors import ConfigError
from recbole_gr.generation import TAIL_SCORE, Beams, Generated, Step, exact_scores, rank_items
from recbole_gr.model.base import GenerativeRecommender
from recbole_gr.model.pit import options
from recbole_gr.model.pit.alignment import CollaborativeAlignment, alignment_loss, draw_negatives
from recbole_gr.model.pit.candidates import nearest_sids, residual_codebooks, starting_sid_first
from recbole_gr.model.pit.figures import Meter, index_figures
from recbole_gr.model.pit.index import EMPTY, BeamIndex
from recbole_gr.model.pit.item_to_token import ItemToToken
from recbole_gr.model.pit.items import ItemVectors
from recbole_gr.model.pit.selection import evaluating, path_losses, select
from recbole_gr.model.pit.user_to_token import (
    EncoderDecoderUserToToken,
    LazyUserToToken,
    Reading,
)
from recbole_gr.sid.trie import DEAD

IGNORED = -100
CHUNK = 4096  # items proposed for at once


class Choice(NamedTuple):
    """Candidates of the items of a batch and what was selected of them.

    Attributes:
        codes: ``[B, T, L]`` the selected SID of each pair.
        items: ``[n]`` the distinct targets.
        candidates: ``[n, N, L]`` their SIDs.
        counts: ``[n, N]`` how many counted pairs selected each.
    """

    codes: Tensor
    items: Tensor
    candidates: Tensor
    counts: Tensor


class PIT(GenerativeRecommender):
    """An item tokenizer and a recommender that evolve together (arXiv 2602.08530).

    Phase 1 (warm-up) trains all modules on the starting SIDs. :meth:`start_co_evolution` then has
    Item-to-Token propose several SIDs per item. In phase 2 each pair of user and item is trained
    on the proposal that the recommender finds cheapest for this user, and the index of items and
    SIDs follows what is selected (:meth:`end_epoch`). Sizes and switches are in
    ``properties/model/PIT.yaml``.

    Attributes:
        phase: 1 or 2; the trainer's to keep.
        codes: ``[n_items, L]`` the starting SIDs.
        index: the :class:`BeamIndex`; saved with the weights.
        trie: what decoding may end on, built from the index.
        pool: ``[n_items, N, L]`` candidates while Item-to-Token is frozen, the starting SID first;
            ``pool_log_prob [n_items, N]`` is -inf where there is none.
        meter: figures of the running epoch.
    """

    needs_content = True

    def __init__(self, config, dataset, sid, content):
        super().__init__(config, dataset, sid)
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
        self.phase, self.meter = 1, Meter()
        self.whole = config["train_sample"] == "sequence"
        self.history_input, self.detach_history = config["history_input"], config["detach_history"]
        self.select_rule, self.merge = config["select"], config["merge"]
        self.negatives = config["csa_negatives"]
        self.frozen = config["freeze_i2t"] or "i2t" in ablated
        self.only_heaviest = "index" in ablated
        self.loss_weight = {"u2t": 1.0, "i2t": config["lambda_i2t"], "csa": config["lambda_csa"]}

        shape = (config["n_heads"], config["head_size"], config["inner_size"], config["dropout"])
        std = config["initializer_range"]
        self.items = ItemVectors(content, size, trainable="csa" not in ablated)
        heads = (config["n_heads"], config["head_size"])
        self.alignment = (
            None
            if "csa" in ablated
            else CollaborativeAlignment(size, *heads, config["dropout"])
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

        spare = self.n_candidates
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
        )
        pool = self.index.codes.new_zeros(self.n_items, self.n_candidates, self.n_levels)
        pool[:, 0] = self.codes.to(pool.dtype)
        self.register_buffer("pool", pool)
        log_prob = torch.full(pool.shape[:2], EMPTY)
        log_prob[:, 0] = 0.0
        self.register_buffer("pool_log_prob", log_prob)

        count = np.asarray(dataset.inter_matrix(form="csr").sum(0)).ravel()[: self.n_items]
        self.register_buffer("popularity", torch.from_numpy(count).float())
        self.by_popularity = config["index_item_prior"] == "popularity"
        self.rebuild()
        self.register_load_state_dict_post_hook(lambda model, keys: model.rebuild())

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check every key of PIT's; may raise ConfigError (see :mod:`.options`)."""
        options.prepare(config)

    # Training

    def calculate_loss(self, interaction) -> Tensor:
        """Weighted sum of the losses of the present phase; each is a mean over its samples.

        A batch trains every target that it counts. Gradients (PIT): User-to-Token's loss reaches
        its own weights and, through the history, the item vectors; Item-to-Token's reaches itself
        alone; that of the alignment reaches itself and the vectors of the items it judges.
        """
        if self.whole:
            targets, counted = self.sequence(interaction)[:, 1:], self.counted(interaction)
        else:
            targets = interaction[self.ITEM_ID].unsqueeze(1)
            counted = torch.ones_like(targets, dtype=torch.bool)
        reading = self._read(interaction, self.whole)
        choice = self._choose(reading, targets, counted)
        losses = {"u2t": self._user_loss(reading, choice.codes, counted)}
        if self.item_to_token is not None and (self.phase == 1 or not self.frozen):
            losses["i2t"] = self._item_loss(choice)
        if self.alignment is not None:
            losses["csa"] = self._alignment_loss(reading, targets, counted, interaction)
        total = 0.0
        for name, loss in losses.items():
            self.meter.add(f"loss {name}", loss)
            total = total + self.loss_weight[name] * loss
        return total

    def _read(self, interaction, all_targets: bool) -> Reading:
        history = interaction[self.ITEM_SEQ]
        if self.history_input == "item":
            vectors = self.items(history)
            tokens = self.history_map(vectors.detach() if self.detach_history else vectors)
        else:
            tokens = self.user_to_token.history_of(self.index.heaviest(history))
        return self.user_to_token.read(tokens, interaction[self.ITEM_SEQ_LEN], all_targets)

    def _user_loss(self, reading: Reading, codes: Tensor, counted: Tensor) -> Tensor:
        """Mean cross-entropy of a code over the levels and the counted targets."""
        target = codes.masked_fill(~counted.unsqueeze(2), IGNORED)
        logits = self.user_to_token.logits(reading, codes)
        loss = sum(
            F.cross_entropy(
                scores.flatten(0, 1).float(), target[..., level].flatten(), ignore_index=IGNORED
            )
            for level, scores in enumerate(logits)
        )
        return loss / self.n_levels

    def _item_loss(self, choice: Choice) -> Tensor:
        """Mean cross-entropy of a code over the levels and the counted pairs.

        Equal pairs of item and SID are computed once and weighted by how many there are.
        """
        row, place = (choice.counts > 0).nonzero(as_tuple=True)
        weight = choice.counts[row, place]
        vectors = self.items(choice.items[row])
        losses = self.item_to_token.level_losses(vectors, choice.candidates[row, place])
        return (losses.mean(1) * weight).sum() / weight.sum().clamp_min(1)

    def _alignment_loss(self, reading, targets, counted, interaction) -> Tensor:
        """Binary cross-entropy of the target against drawn items, for every counted target."""
        own = torch.cat([interaction[self.ITEM_SEQ], interaction[self.ITEM_ID].unsqueeze(1)], 1)
        drawn, usable = draw_negatives(own, self.n_items, (*targets.shape, self.negatives))
        judged = torch.cat([targets.unsqueeze(2), drawn], 2)  # [B, T, 1 + n]
        label = torch.zeros(judged.shape, device=judged.device)
        label[:, :, 0] = 1.0
        weight = torch.cat([torch.ones_like(usable[:, :, :1]), usable], 2) & counted.unsqueeze(2)
        states = self.user_to_token.item_states(reading).detach()
        per_item = self.user_to_token.tokens_per_item
        # Each target sees the items that User-to-Token sees; a bias per item, not per token.
        bias = reading.bias[..., per_item - 1 :: per_item]
        bias = bias.repeat_interleave(judged.shape[2], 2)  # [B or 1, 1, T * (1 + n), T]
        vectors = self.items(judged).flatten(1, 2)
        logits = self.alignment(states, vectors, bias).view(judged.shape)
        return alignment_loss(logits, label, weight.float())

    # Selection

    @torch.no_grad()
    def _choose(self, reading: Reading, targets: Tensor, counted: Tensor) -> Choice:
        """The SID that each pair ``[B, T]`` is trained on; counts it in the index in phase 2."""
        items, where = torch.unique(targets, return_inverse=True)  # [n], [B, T]
        if self.phase == 1:
            candidates, log_prob = self.codes[items].unsqueeze(1), None
            place = torch.zeros_like(targets)
        else:
            candidates, log_prob = self._candidates(items)
            place = self._cheapest(reading, candidates[where], log_prob[where], counted)
        counts = torch.zeros(candidates.shape[:2], device=targets.device)
        counts.index_put_((where, place), counted.float(), accumulate=True)
        if self.phase == 2:
            self.index.observe(items, candidates, log_prob, counts)
            self.meter.add("left the starting SID", ((place > 0) & counted).sum(), counted.sum())
        return Choice(candidates[where, place], items, candidates, counts)

    def _cheapest(self, reading, candidates: Tensor, log_prob: Tensor, counted: Tensor) -> Tensor:
        """``[B, T]`` the place of the selected one among ``candidates [B, T, N, L]``."""
        n_rows, n_targets, n_candidates, _ = candidates.shape
        if n_candidates == 1:
            return torch.zeros_like(counted, dtype=torch.long)
        first = torch.arange(n_targets, device=candidates.device).repeat_interleave(n_candidates)
        with evaluating(self.user_to_token):
            step = self.user_to_token.start(reading.detach())
            losses = path_losses(step, candidates.flatten(1, 2), first.expand(n_rows, -1))
        losses = losses.view(candidates.shape[:3])
        empty = log_prob == EMPTY
        best = losses.masked_fill(empty, float("inf")).amin(2)
        worst = losses.masked_fill(empty, float("-inf")).amax(2)
        n_pairs = counted.sum()
        self.meter.add("best candidate", (best * counted).sum(), n_pairs)
        self.meter.add("worst candidate", (worst * counted).sum(), n_pairs)
        return select(losses, log_prob, self.select_rule)

    @torch.no_grad()
    def _candidates(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """``(codes [n, N, L], log_prob [n, N])`` of phase 2, the starting SID first."""
        if self.frozen:
            return self.pool[items].long(), self.pool_log_prob[items]
        return self._propose(items)

    @torch.no_grad()
    def _propose(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals for items from their present vectors, chunk by chunk."""
        parts = []
        for chunk in items.split(CHUNK):
            start, vectors = self.codes[chunk], self.items(chunk)
            if self.item_to_token is None:
                content, books = self.items.content, self._codebooks()
                codes, log_prob = nearest_sids(content[chunk], books, self.n_candidates)
                # The starting SID is as probable as the nearest one.
                start_log_prob = log_prob[:, 0]
            else:
                with evaluating(self.item_to_token):
                    codes, log_prob = self.item_to_token.propose(vectors, self.n_candidates)
                    start_log_prob = -self.item_to_token.level_losses(vectors, start).sum(1)
            parts.append(starting_sid_first(start, start_log_prob, codes, log_prob))
        return tuple(torch.cat(part) for part in zip(*parts))

    def _codebooks(self):
        return residual_codebooks(self.items.content[1:], self.codes[1:], self.sizes)

    # Phases

    @torch.no_grad()
    def start_co_evolution(self) -> None:
        """The bridge: candidates of all items from the vectors as they are now (a snapshot, so
        that later drift does not change them while Item-to-Token is frozen), into pool and index.
        """
        everything = torch.arange(self.n_items, device=self.codes.device)
        codes, log_prob = self._propose(everything)
        log_prob[0] = EMPTY
        log_prob[0, 0] = 0.0  # padding is a target of rows that do not count
        self.pool.copy_(codes)
        self.pool_log_prob.copy_(log_prob)
        self._refresh_with(codes, log_prob, restart=True)
        self.set_phase(2)

    def set_phase(self, phase: int) -> None:
        """Enter phase 1 or 2 without touching the index; freezes Item-to-Token if so configured."""
        self.phase = phase
        if self.item_to_token is not None:
            self.item_to_token.requires_grad_(phase == 1 or not self.frozen)

    @torch.no_grad()
    def end_epoch(self) -> dict[str, dict[str, float]]:
        """Refresh the index (phase 2) and return the epoch's figures by topic."""
        before = self.index.heaviest()
        if self.phase == 2:
            everything = torch.arange(self.n_items, device=self.codes.device)
            codes, log_prob = self._candidates(everything)
            self._refresh_with(codes, log_prob)
        figures, means = index_figures(self.index, before), self.meter.read()
        topics = {"loss": {}, "candidate loss": {}, "selection": {}}
        for name, mean in means.items():
            topic = name.split()[0] if name.startswith("loss") else "selection"
            topic = "candidate loss" if name.endswith("candidate") else topic
            topics[topic][name.removeprefix("loss ")] = mean
        return {**{name: values for name, values in topics.items() if values}, **figures}

    def _refresh_with(self, codes, log_prob, restart=False) -> None:
        log_prob = log_prob.clone()
        log_prob[0] = EMPTY  # padding owns nothing
        if restart:
            self.index.restart(codes, log_prob)
        else:
            self.index.refresh(codes, log_prob, None if self.frozen else self._edge_log_prob())
        self.rebuild()

    def _edge_log_prob(self) -> Tensor:
        """``[n_items, capacity]`` Item-to-Token's present log-probability of every SID held."""
        parts = []
        for chunk in torch.arange(self.n_items, device=self.codes.device).split(CHUNK):
            held = self.index.codes[chunk].long()  # [n, capacity, L]
            vectors = self.items(chunk).repeat_interleave(held.shape[1], 0)
            with evaluating(self.item_to_token):
                losses = self.item_to_token.level_losses(vectors, held.flatten(0, 1))
            parts.append(-losses.sum(1).view(held.shape[:2]))
        return torch.cat(parts)

    # Inference

    def rebuild(self) -> None:
        """Build the trie and the order of popularity from the index; called after every change."""
        prior = self.popularity + 1 if self.by_popularity else None
        self.trie = self.index.trie(prior, self.only_heaviest)
        order = self.popularity[1:].argsort(descending=True, stable=True) + 1
        self.register_buffer("tail", order, persistent=False)

    def start(self, interaction) -> Step:
        return self.user_to_token.start(self._read(interaction, False))

    def rank(self, beams: Beams, k: int, interaction) -> Generated:
        """Items of the beams, their SIDs merged by P(item | SID), then the most popular others."""
        exclude = self._excluded(interaction)
        return rank_items(self.trie, beams, k, self.merge, self.tail, exclude)

    @torch.no_grad()
    def exact(self, interaction) -> Tensor:
        """Log-probability of every item, ``[B, n_items]`` (column 0 -inf), without a search."""
        users = len(interaction[self.ITEM_SEQ_LEN])
        step = self.start(interaction)
        return exact_scores(step, self.trie, users, self.renormalise, self.merge)

    def full_sort_predict(self, interaction) -> Tensor:
        """``[B, n_items]`` scores: the items of the beams, below them all others by popularity."""
        most = min(self.n_items - 1, self.beam_size * self.trie.max_sharing)
        found = rank_items(self.trie, self.search(interaction), most, self.merge)
        rank = torch.empty(self.n_items, device=self.tail.device)
        rank[self.tail] = torch.arange(len(self.tail), device=rank.device, dtype=rank.dtype)
        dense = (TAIL_SCORE - rank).repeat(len(found.items), 1)
        dense.scatter_(1, found.items, found.scores)
        if self.exclude_history:
            dense.scatter_(1, interaction[self.ITEM_SEQ], float("-inf"))
        dense[:, 0] = float("-inf")
        return dense

    @torch.no_grad()
    def predict(self, interaction) -> Tensor:
        """``[B]`` log-probability of each row's own item, over all its SIDs."""
        item = interaction[self.ITEM_ID]
        codes = self.index.codes[item].long()  # [B, P, L]
        legal = self.index.weight[item] > 0
        if self.only_heaviest:
            legal[:, 1:] = False
        leaf = torch.zeros_like(codes[..., 0]).masked_fill(~legal, DEAD)
        for level in range(self.n_levels):
            leaf = self.trie.advance(level, leaf, codes[..., level])
        own = self.trie.items(leaf) == item[:, None, None]  # [B, P, items on the SID]
        share = self.trie.log_share(leaf).masked_fill(~own, EMPTY).amax(2)
        losses = path_losses(self.start(interaction), codes, torch.zeros_like(leaf))
        scores = share - losses * self.n_levels
        return scores.logsumexp(1) if self.merge == "logsumexp" else scores.amax(1)

    @torch.no_grad()
    def add_items(self, content: Tensor) -> Tensor:
        """Make new items recommendable from their content alone, without training.

        Args:
            content: ``[n, d_m]`` as the model's own content.

        Returns:
            ``[n]`` their item ids.
        """
        n_old = self.n_items
        self.items.append(content)
        ids = torch.arange(n_old, n_old + len(content), device=self.codes.device)
        if self.item_to_token is None:
            books = residual_codebooks(
                self.items.content[1:n_old], self.codes[1:], self.sizes
            )
            codes, log_prob = nearest_sids(self.items.content[ids], books, self.n_candidates)
        else:
            with evaluating(self.item_to_token):
                codes, log_prob = self.item_to_token.propose(self.items(ids), self.n_candidates)
        self.index.add_items(codes, log_prob)
        self.n_items += len(ids)
        self.codes = torch.cat([self.codes, codes[:, 0]])
        self.pool = torch.cat([self.pool, codes.to(self.pool)])
        self.pool_log_prob = torch.cat([self.pool_log_prob, log_prob.to(self.pool_log_prob)])
        self.popularity = torch.cat([self.popularity, self.popularity.new_zeros(len(ids))])
        self.rebuild()
        return ids
