"""The PIT model: the loss of each phase, and the bridge between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from recbole_gr.model.pit import settings as options
from recbole_gr.model.pit.alignment import alignment_loss, draw_negatives
from recbole_gr.model.pit.index import EMPTY
from recbole_gr.model.pit.indexed import CHUNK, IndexedRecommender
from recbole_gr.model.pit.pairs import counted_pairs
from recbole_gr.model.pit.selection import evaluating, observed_by_all, path_losses, select
from recbole_gr.model.pit.statistics import Meter, index_figures
from recbole_gr.model.pit.user_to_token import Reading
from recbole_gr.sid.counting import distinct

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable

NEWCOMER = -7.0  # log P(item | SID) of a SID that the item does not own yet


class Choice(NamedTuple):
    """Candidates of the items of a batch and what was selected of them.

    Attributes:
        codes: ``[B, T, L]`` the selected SID of each pair.
        items: ``[n]`` the distinct targets (see :func:`recbole_gr.sid.counting.distinct`).
        candidates: ``[n, N, L]`` their SIDs.
        counts: ``[n, N]`` how many counted pairs selected each.
    """

    codes: Tensor
    items: Tensor
    candidates: Tensor
    counts: Tensor


class PIT(IndexedRecommender):
    """An item tokenizer and a recommender that evolve together (arXiv 2602.08530).

    Phase 1 (warm-up) trains all modules on the starting SIDs. :meth:`start_co_evolution` then has
    Item-to-Token propose several SIDs per item. In phase 2 each pair of user and item is trained
    on the proposal that the recommender finds cheapest for this user, and the index of items and
    SIDs follows what is selected (:meth:`end_epoch`). Sizes and switches are in
    ``properties/model/PIT.yaml``.

    Attributes:
        phase: 1 or 2; the trainer's to keep.
        meter: figures of the running epoch.
    """

    trainer = "recbole_gr.trainer.pit:PITTrainer"

    def __init__(self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor):
        super().__init__(config, dataset, sid, content)
        self.phase, self.meter = 1, Meter()
        self.whole = config["train_sample"] == "sequence"
        self.select_rule, self.negatives = config["select"], config["csa_negatives"]
        self.loss_weight = {"u2t": 1.0, "i2t": config["lambda_i2t"], "csa": config["lambda_csa"]}

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check every key (see :mod:`recbole_gr.model.pit.settings`); may raise ConfigError."""
        super().prepare_config(config)
        options.prepare(config)

    # Training

    def calculate_loss(self, interaction: Interaction) -> Tensor:
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
        reading = self._training_reading(interaction)
        choice = self._choose(reading, targets, counted)
        losses = {"u2t": self._user_loss(reading, choice.codes, counted)}
        if self.item_to_token is not None and (self.phase == 1 or not self.frozen):
            losses["i2t"] = self._item_loss(choice)
        if self.alignment is not None:
            losses["csa"] = self._alignment_loss(reading, targets, counted, interaction)
        total = torch.zeros((), device=targets.device)
        for name, loss in losses.items():
            self.meter.add("loss", name, loss * self.batch_share, self.batch_share)
            total = total + self.loss_weight[name] * loss
        return total

    def compiled_loss(self, **options: Any) -> Callable[[Interaction], Tensor]:
        """As of any model, but choosing and drawing stay as they are: their shapes depend on the
        values, and a compiler would stop at each of their operations."""
        for name in ("_training_reading", "_user_loss", "_judgement"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True, **options))
        return self.calculate_loss

    def _training_reading(self, interaction: Interaction) -> Reading:
        return self._read(interaction, self.whole)

    def _user_loss(self, reading: Reading, codes: Tensor, counted: Tensor) -> Tensor:
        """Mean cross-entropy of a code over the levels and the counted targets."""
        losses = self.level_losses(self.user_to_token.logits(reading, codes), codes, counted)
        return sum(losses, start=torch.zeros((), device=codes.device)) / self.n_levels

    def _item_loss(self, choice: Choice) -> Tensor:
        """Mean cross-entropy of a code over the levels and the counted pairs.

        Equal pairs of item and SID are computed once and weighted by how many there are.
        """
        assert self.item_to_token is not None
        n_pairs = choice.codes.shape[0] * choice.codes.shape[1]
        row, place, weight = counted_pairs(choice.counts, n_pairs)
        vectors = self.items(choice.items[row])
        candidates = choice.candidates[row, place]
        losses = self.item_to_token.level_losses(vectors, candidates, self.proposable)
        return (losses.mean(1) * weight).sum() / weight.sum().clamp_min(1)

    def _alignment_loss(
        self, reading: Reading, targets: Tensor, counted: Tensor, interaction: Interaction
    ) -> Tensor:
        """Binary cross-entropy of the target against drawn items, for every counted target."""
        own = torch.cat([interaction[self.ITEM_SEQ], interaction[self.ITEM_ID].unsqueeze(1)], 1)
        drawn, usable = draw_negatives(own, self.n_items, (*targets.shape, self.negatives))
        judged = torch.cat([targets.unsqueeze(2), drawn], 2)  # [B, T, 1 + n]
        weight = torch.cat([torch.ones_like(usable[:, :, :1]), usable], 2) & counted.unsqueeze(2)
        return self._judgement(reading, judged, weight)

    def _judgement(self, reading: Reading, judged: Tensor, weight: Tensor) -> Tensor:
        """The loss of the alignment over items ``judged [B, T, n]``, the first of each the true
        one, where ``weight [B, T, n]`` says which count."""
        assert self.alignment is not None
        label = torch.zeros(judged.shape, device=judged.device)
        label[:, :, 0] = 1.0
        states = self.user_to_token.item_states(reading).detach()
        per_item = self.user_to_token.tokens_per_item
        # Each target sees the items that User-to-Token sees; a bias per item, not per token.
        bias = reading.bias[..., per_item - 1 :: per_item]
        bias = bias.repeat_interleave(judged.shape[2], 2)  # [B or 1, 1, T * (1 + n), T]
        vectors = self.items(judged).flatten(1, 2)
        logits = self.alignment(states, vectors, bias).view(judged.shape)
        weight = weight.float()
        return alignment_loss(logits, label, weight) / self.batch_weight(weight.sum())

    # Selection

    @torch.no_grad()
    def _choose(self, reading: Reading, targets: Tensor, counted: Tensor) -> Choice:
        """The SID that each pair ``[B, T]`` is trained on; counts it in the index in phase 2."""
        items, where = distinct(targets, self.n_items)  # [n], [B, T]
        if self.phase == 1:
            candidates, log_prob = self.codes[items].unsqueeze(1), None
            place = torch.zeros_like(targets)
        else:
            candidates, log_prob = self._candidates(items)
            losses = self._candidate_losses(reading, candidates[where], log_prob[where], counted)
            if self.select_rule == "item":
                share = self._log_share(items, candidates).clamp_min(NEWCOMER)
                losses = losses * self.n_levels - share[where]
            place = select(losses, log_prob[where], self.select_rule)
        counts = torch.zeros(candidates.shape[:2], device=targets.device)
        counts.index_put_((where, place), counted.float(), accumulate=True)
        if log_prob is not None:  # phase 2
            counts_here = bool(self.batch_share)  # else an empty shard's padding row
            selected = counts * counts_here
            self.index.observe(*observed_by_all(items, candidates, log_prob, selected))
            left = ((place > 0) & counted).sum() * counts_here
            self.meter.add("selection", "left the starting SID", left, counted.sum() * counts_here)
        return Choice(candidates[where, place], items, candidates, counts)

    def _candidate_losses(
        self, reading: Reading, candidates: Tensor, log_prob: Tensor, counted: Tensor
    ) -> Tensor:
        """``[B, T, N]`` User-to-Token's mean loss per code of ``candidates [B, T, N, L]``."""
        n_rows, n_targets, n_candidates, _ = candidates.shape
        if n_candidates == 1:  # nothing to choose between
            return torch.zeros(candidates.shape[:3], device=candidates.device)
        first = torch.arange(n_targets, device=candidates.device).repeat_interleave(n_candidates)
        with evaluating(self.user_to_token):
            step = self.user_to_token.start(reading.detach())
            paths = candidates.flatten(1, 2), first.expand(n_rows, -1)
            losses = path_losses(step, *paths, self.loss_trie)
        losses = losses.view(candidates.shape[:3])
        empty = log_prob == EMPTY
        best = losses.masked_fill(empty, float("inf")).amin(2)
        worst = losses.masked_fill(empty, float("-inf")).amax(2)
        counted = counted & bool(self.batch_share)
        for name, loss in (("best", best), ("worst", worst)):
            self.meter.add("candidate loss", name, (loss * counted).sum(), counted.sum())
        return losses

    @torch.no_grad()
    def _candidates(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """``(codes [n, N, L], log_prob [n, N])`` of phase 2, the starting SID first."""
        if self.frozen:
            return self.pool[items].long(), self.pool_log_prob[items]
        return self._propose(items)

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
        return {**self.meter.read(), **index_figures(self.index, before)}

    def _refresh_with(self, codes: Tensor, log_prob: Tensor, restart: bool = False) -> None:
        log_prob = log_prob.clone()
        log_prob[0] = EMPTY  # padding owns nothing
        if restart:
            self.index.restart(codes, log_prob)
        else:
            self.index.refresh(codes, log_prob, None if self.frozen else self._edge_log_prob())
        self.rebuild()

    def _edge_log_prob(self) -> Tensor:
        """``[n_items, capacity]`` Item-to-Token's present log-probability of every SID held."""
        assert self.item_to_token is not None
        parts = []
        for chunk in torch.arange(self.n_items, device=self.codes.device).split(CHUNK):
            held = self.index.codes[chunk].long()  # [n, capacity, L]
            vectors = self.items(chunk).repeat_interleave(held.shape[1], 0)
            log_prob = self.item_to_token.log_prob(vectors, held.flatten(0, 1), self.proposable)
            parts.append(log_prob.view(held.shape[:2]))
        return torch.cat(parts)
