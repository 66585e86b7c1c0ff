"""What a pair of user and item is trained on: one SID of the item, or all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from recbole_gr.model.pit.evolving import EvolvingItems
from recbole_gr.model.pit.index import EMPTY
from recbole_gr.model.pit.selection import evaluating, observed_by_all, path_losses, select
from recbole_gr.model.pit.statistics import Meter
from recbole_gr.sid.counting import distinct

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.model.pit.user_to_token import Reading
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


class ChoosingSIDs(EvolvingItems):
    """Chooses the SIDs that are learned, and scores items over all the SIDs that they have.

    Attributes:
        phase: 1 or 2; the trainer's to keep.
        meter: figures of the running epoch.
    """

    def __init__(self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor):
        super().__init__(config, dataset, sid, content)
        self.phase, self.meter = 1, Meter()
        self.select_rule = config["select"]

    @torch.no_grad()
    def _choose(self, interaction: Interaction, targets: Tensor, counted: Tensor) -> Choice:
        """The SID that each pair ``[B, T]`` is trained on; counts what is selected in the index."""
        items, where = distinct(targets, self.n_items)  # [n], [B, T]
        if self.phase == 1 or self.by_items:
            own = self.codes[items] if self.phase == 1 else self.index.heaviest(items)
            candidates, log_prob = own.unsqueeze(1), None
            place = torch.zeros_like(targets)
        else:
            candidates, log_prob = self._candidates(items)
            losses = self._candidate_losses(
                interaction, candidates[where], log_prob[where], counted
            )
            if self.select_rule == "item":
                share = self._log_share(items, candidates, self.full_trie).clamp_min(NEWCOMER)
                losses = losses * self.n_levels - share[where]
            place = select(losses, log_prob[where], self.select_rule)
        counts = torch.zeros(candidates.shape[:2], device=targets.device)
        counts.index_put_((where, place), counted.float(), accumulate=True)
        if log_prob is not None:  # there was something to select
            counts_here = bool(self.batch_share)  # else an empty shard's padding row
            selected = counts * counts_here
            self.index.observe(*observed_by_all(items, candidates, log_prob, selected))
            left = ((place > 0) & counted).sum() * counts_here
            self.meter.add("selection", "left the starting SID", left, counted.sum() * counts_here)
        return Choice(candidates[where, place], items, candidates, counts)

    def _candidate_losses(
        self, interaction: Interaction, candidates: Tensor, log_prob: Tensor, counted: Tensor
    ) -> Tensor:
        """``[B, T, N]`` User-to-Token's mean loss per code of ``candidates [B, T, N, L]``, of
        histories that are read without dropout too."""
        n_rows, n_targets, n_candidates, _ = candidates.shape
        if n_candidates == 1:  # nothing to choose between
            return torch.zeros(candidates.shape[:3], device=candidates.device)
        first = torch.arange(n_targets, device=candidates.device).repeat_interleave(n_candidates)
        with evaluating(self.user_to_token):
            step = self.user_to_token.start(self._read(interaction, self.whole))
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
        """``(codes [n, N, L], log_prob [n, N])`` of pairs in phase 2, the starting SID first; new
        items of a later period have that alone until :meth:`admit_new_items`."""
        if self.frozen:
            return self.pool[items].long(), self.pool_log_prob[items]
        codes, log_prob = self._propose(items)
        log_prob[:, 1:] = log_prob[:, 1:].masked_fill(self._alone(items).unsqueeze(1), EMPTY)
        return codes, log_prob

    def _alone(self, items: Tensor) -> Tensor:
        """``[n]`` whether the pool holds nothing but the starting SID of each of ``items [n]``."""
        return (self.pool_log_prob[items, 1:] == EMPTY).all(1)

    def _item_losses(
        self, reading: Reading, targets: Tensor, counted: Tensor, user_losses: Tensor | None
    ) -> Tensor:
        """``[B, T]`` the loss of the items over all their SIDs, ``-log sum_c P(c | u) P(i | c)``
        (ours; the likelihood that is served).

        Args:
            user_losses: ``-log P`` of the items' heaviest SIDs where they are at hand, as they are
                where items evolve.
        """
        own = self.index.weight[targets] > 0  # [B, T, P]
        codes = self.index.codes[targets].long()
        flat = targets.flatten()
        share = self._log_share(flat, codes.flatten(0, 1), self.full_trie).view(own.shape)
        scores = torch.full(own.shape, EMPTY, device=targets.device)
        wanted = own & counted.unsqueeze(2)
        if user_losses is not None and self.by_items:
            scores = torch.cat([-user_losses.unsqueeze(2), scores[..., 1:]], 2)
            wanted[..., 0] = False
        n_places = own.shape[2]
        wanted = wanted.flatten(1)
        # On a CPU only the SIDs that there are; elsewhere all places, or the host would wait.
        on_cpu = targets.device.type == "cpu"
        width = int(wanted.sum(1).max()) if on_cpu else wanted.shape[1]
        if width:
            column = (~wanted).int().argsort(dim=1, stable=True)[:, :width]  # [B, W]
            rows = column.unsqueeze(2).expand(-1, -1, self.n_levels)
            step = self.user_to_token.start(reading)
            paths = codes.flatten(1, 2).gather(1, rows), column // n_places
            log_prob = -self.n_levels * path_losses(step, *paths, self.loss_trie)
            log_prob = log_prob.masked_fill(~wanted.gather(1, column), EMPTY)
            scores = scores.flatten(1).scatter_reduce(1, column, log_prob, "amax").view(own.shape)
        scores = (scores + share.masked_fill(~own, EMPTY)).masked_fill(~counted.unsqueeze(2), 0.0)
        return -scores.logsumexp(2).masked_fill(~counted, 0.0)
