"""The PIT model: the loss of each phase, and the bridge between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_gr.model.pit import settings as options
from recbole_gr.model.pit.alignment import alignment_loss, draw_negatives
from recbole_gr.model.pit.behaviour import behaviour_clusters, mutual_information, usual_number
from recbole_gr.model.pit.choosing import Choice, ChoosingSIDs
from recbole_gr.model.pit.fading import fade
from recbole_gr.model.pit.index import EMPTY
from recbole_gr.model.pit.indexed import CHUNK
from recbole_gr.model.pit.pairs import counted_pairs
from recbole_gr.model.pit.selection import evaluating
from recbole_gr.model.pit.statistics import index_figures
from recbole_gr.model.pit.user_to_token import Reading
from recbole_gr.sid.likelihood import code_losses

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable


class PIT(ChoosingSIDs):
    """An item tokenizer and a recommender that evolve together (arXiv 2602.08530).

    Phase 1 (warm-up) trains all modules on the starting SIDs. :meth:`start_co_evolution` begins
    phase 2. With ``evolve: pairs``, as the sources describe it, Item-to-Token has proposed several
    SIDs per item by then, each pair of user and item is trained on the proposal that the
    recommender finds cheapest for this user, and the index of items and SIDs follows what is
    selected. With ``evolve: items`` (ours, :mod:`recbole_gr.model.pit.evolving`) some items move to
    another SID at the end of a round. Sizes and switches are in ``properties/model/PIT.yaml``.

    Attributes:
        settings_before: of keys that came later with another default, the value that results of
            before are of (:func:`recbole_gr.study.earlier.is_run_of`).
        probe: a few training rows by whose loss a change of the index is stated; or None.
    """

    trainer = "recbole_gr.trainer.pit:PITTrainer"
    results_version = 1
    settings_before = MappingProxyType({"evolve_accept": "all"})
    probe: Interaction | None = None

    def __init__(self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor):
        super().__init__(config, dataset, sid, content)
        self.negatives = config["csa_negatives"]
        self.refresh_every, self.lambda_item = config["refresh_every"], config["lambda_item"]
        self.loss_weight = {"u2t": 1.0, "i2t": config["lambda_i2t"], "csa": config["lambda_csa"]}
        self._clusters: Tensor | None = None

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check every key (see :mod:`recbole_gr.model.pit.settings`); may raise ConfigError."""
        super().prepare_config(config)
        options.prepare(config)

    # Training

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Weighted sum of the losses of the present phase; each is a mean over its samples.

        A batch trains every target that it counts, but for users whom a round leaves out. Gradients
        (PIT): User-to-Token's loss reaches its own weights and, through the history, the item
        vectors; Item-to-Token's reaches itself alone; that of the alignment reaches itself and the
        vectors of the items it judges.
        """
        targets, counted = self._targets(interaction)
        self._refresh_within_epoch()
        left_out = self._left_out(interaction)
        if left_out is not None:
            if len(self.round_near):
                self._judge(interaction, left_out)
            counted = counted & ~left_out.unsqueeze(1)
        reading = self._training_reading(interaction)
        choice = self._choose(interaction, targets, counted)
        n = counted.sum()
        # A part of a batch weighs as many as it holds; with users left out that is not its share.
        share = 1 / n.clamp_min(1) if left_out is None else 1 / self.batch_weight(n.float())
        user_losses = self._user_loss(reading, choice.codes)
        losses = {"u2t": (user_losses * counted).sum() * share / self.n_levels}
        weights = self.loss_weight
        if self.phase == 2 and self.lambda_item:
            of_items = self._item_losses(reading, targets, counted, user_losses)
            losses["item"] = (of_items * counted).sum() * share / self.n_levels
            u2t = 1 / (1 + self.lambda_item)
            weights = {**weights, "u2t": u2t, "item": 1 - u2t}
        if self.item_to_token is not None and (self.phase == 1 or not self.frozen):
            losses["i2t"] = self._item_loss(choice, share)
        if self.alignment is not None:
            losses["csa"] = self._alignment_loss(reading, targets, counted, interaction)
        total = torch.zeros((), device=targets.device)
        for name, loss in losses.items():
            self.meter.add("loss", name, loss * self.batch_share, self.batch_share)
            total = total + weights[name] * loss
        return total

    def compiled_loss(self, **options: Any) -> Callable[[Interaction], Tensor]:
        """As of any model, but choosing and drawing stay as they are: their shapes depend on the
        values, and a compiler would stop at each of their operations."""
        for name in ("_training_reading", "_user_loss", "_judgement"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True, **options))
        return self.calculate_loss

    def _training_reading(self, interaction: Interaction) -> Reading:
        return self._read(interaction, self.whole)

    def _user_loss(self, reading: Reading, codes: Tensor) -> Tensor:
        """``[B, T]`` the loss ``-log P`` of whole SIDs ``[B, T, L]``."""
        logits = self.user_to_token.logits(reading, codes)
        return torch.stack(code_losses(logits, codes, self.loss_trie)).sum(0)

    @torch.no_grad()
    def probe_loss(self) -> float | None:
        """Mean loss of the targets of the probe, over all SIDs of the index, in nats."""
        if self.probe is None:
            return None
        targets, counted = self._targets(self.probe)
        with evaluating(self.user_to_token):
            reading = self._read(self.probe, self.whole)
            losses = self._item_losses(reading, targets, counted, None)
        return float((losses * counted).sum() / counted.sum())

    def _item_loss(self, choice: Choice, share: Tensor) -> Tensor:
        """Mean cross-entropy of a code over the levels and the counted pairs.

        Equal pairs of item and SID are computed once and weighted by how many there are.
        """
        assert self.item_to_token is not None
        n_pairs = choice.codes.shape[0] * choice.codes.shape[1]
        row, place, weight = counted_pairs(choice.counts, n_pairs)
        vectors = self.items(choice.items[row])
        candidates = choice.candidates[row, place]
        losses = self.item_to_token.level_losses(vectors, candidates, self.proposable)
        return (losses.mean(1) * weight).sum() * share  # 1 over the counted pairs

    def _alignment_loss(
        self, reading: Reading, targets: Tensor, counted: Tensor, interaction: Interaction
    ) -> Tensor:
        """Binary cross-entropy of the target against drawn items, for every counted target."""
        own = torch.cat([interaction[self.ITEM_SEQ], interaction[self.ITEM_ID].unsqueeze(1)], 1)
        drawn, usable = draw_negatives(own, self.n_items, (*targets.shape, self.negatives))
        users = interaction[self.USER_ID].view(-1, 1, 1).expand_as(drawn)
        usable = usable & ~self.histories.hold(users, drawn)
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

    # Phases

    @torch.no_grad()
    def start_co_evolution(self) -> None:
        """The bridge. Where pairs evolve: candidates of all items from the vectors as they are now
        (a snapshot, so that later drift does not change them while Item-to-Token is frozen), into
        pool and index. Where items do, the index stays as it is."""
        if not self.by_items:
            everything = torch.arange(self.n_items, device=self.codes.device)
            codes, log_prob = self._propose(everything)
            log_prob[0] = EMPTY
            log_prob[0, 0] = 0.0  # padding is a target of rows that do not count
            self.pool.copy_(codes)
            self.pool_log_prob.copy_(log_prob)
            self._refresh_with(codes, log_prob, restart=True)
        self.set_phase(2)

    @torch.no_grad()
    def admit_new_items(self) -> None:
        """The bridge of items that came with a later period, of which the pool holds the starting
        SID alone; the others keep what they have."""
        if self.by_items:
            return
        everything = torch.arange(1, self.n_items, device=self.codes.device)
        new = everything[self._alone(everything)]
        if self.n_candidates > 1 and len(new):
            codes, log_prob = self._propose(new)
            self.pool[new], self.pool_log_prob[new] = codes.to(self.pool.dtype), log_prob

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        phase = state.get("phase")
        self.set_phase(2 if isinstance(phase, int) and phase == 2 else 1)

    def set_phase(self, phase: int) -> None:
        """Enter phase 1 or 2 without touching the index; freezes Item-to-Token if so configured."""
        self.phase = phase
        if self.item_to_token is not None:
            self.item_to_token.requires_grad_(phase == 1 or not self.frozen)

    @torch.no_grad()
    def end_epoch(self) -> dict[str, dict[str, float]]:
        """End a round if there is one, refresh the index (phase 2) and return the epoch's figures
        by topic."""
        before, moved = self.index.heaviest(), {}
        if self.phase == 2:
            self._refresh()
        if len(self.round_near):
            loss = self.probe_loss()
            moved = self._move()
            self.rebuild()
            if loss is not None:
                after = self.probe_loss()
                moved["loss over the round"] = {"before": loss, "after": after or 0.0}
        return {
            **self.meter.read(), **moved, **index_figures(self.index, before),
            "behaviour in the SIDs": {"NMI of the first code": self._behaviour_in_first_codes()},
        }  # fmt: skip

    def _behaviour_in_first_codes(self) -> float:
        """Of the items' first codes with clusters of items that the same users took."""
        if self._clusters is None or len(self._clusters) != self.n_items:
            n_clusters = usual_number(self.n_items, self.sizes[0])
            pairs = self.histories.pairs()
            self._clusters = behaviour_clusters(*pairs, self.n_items, n_clusters)
        codes = self.index.heaviest()[:, 0]
        return mutual_information(codes[1:], self._clusters.to(codes.device)[1:])

    def _refresh_within_epoch(self) -> None:
        """Refresh the index every ``refresh_every`` steps of phase 2."""
        if self.phase == 1 or not self.refresh_every or not self.training:
            return
        if self.steps_unrefreshed >= self.refresh_every:
            self._refresh()
        self.steps_unrefreshed += 1

    @torch.no_grad()
    def _refresh(self) -> None:
        self.steps_unrefreshed = 0
        if self.by_items:
            fade(self.index)
            self.rebuild()
            return
        everything = torch.arange(self.n_items, device=self.codes.device)
        codes, log_prob = self._candidates(everything)
        self._refresh_with(codes, log_prob)

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
