"""Items that evolve: rounds in which some of them move to another SID (``evolve: items``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_gr.distributed import processes
from recbole_gr.model.pit.fading import move
from recbole_gr.model.pit.indexed import IndexedRecommender
from recbole_gr.model.pit.moves import (
    best_moves,
    drawn,
    free_sids,
    half_of,
    held_out,
    nearest_items,
    of_mass,
    what_pays,
)
from recbole_gr.model.pit.selection import evaluating, path_losses, prefix_losses
from recbole_gr.sid.formats import level_name

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset

    from recbole_gr.sid.table import SIDTable

SETTLING = 4  # of so many epochs of the co-evolution the last part moves nothing


class EvolvingItems(IndexedRecommender):
    """Judges in a round of epochs where items would be better placed, and moves some (ours).

    Every round leaves a fold of the training users out of the steps of its epochs. In its last
    epoch the losses of these users' targets are compared for the prefixes that the item has and
    those of its nearest items by their vectors, which collaborative alignment has moved. Half of
    the users choose the best for each item, the others accept it where it pays by more than its
    noise, and the other way round. At the end the items with the largest gains get a free SID
    there; the SID of before stays behind in the index and fades.

    Attributes:
        round_near: ``[n_items, M]`` the neighbours of the round that is being judged, else empty;
            ``round_sums``, ``round_squares [G, n_items, M, L - 1]`` of the gains in
            ``log P(prefix | user)`` and ``round_count [G, n_items]`` targets so far, by two halves
            of the users who judge or by all (G is 1).
        moved: ``[M, 2 + 2 L]`` all moves in time: number of the round from 1 on, item, SID of
            before, SID of after.
    """

    other_parameter_name = (
        "round_near", "round_sums", "round_squares", "round_count", "steps_unrefreshed", "moved",
    )  # fmt: skip
    round_sums: Tensor
    round_squares: Tensor
    round_count: Tensor

    def __init__(self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor):
        super().__init__(config, dataset, sid, content)
        self.whole = config["train_sample"] == "sequence"
        self.n_neighbours, self.share = config["evolve_neighbours"], config["evolve_share"]
        self.every, self.margin = config["evolve_every"], config["evolve_margin"]
        self.n_folds = max(2, round(1 / config["evolve_held_out"]))
        self.accept, self.of_items = config["evolve_accept"], config["evolve_gain"] == "item"
        self.most_taken, self.once_faded = config["evolve_interactions"], config["evolve_faded"]
        self.moves = self.by_items and self.n_levels > 1 and "coevo" not in config["ablate"]
        self.steps_unrefreshed = 0
        self.fold: int | None = None  # of the users who are left out at present
        self.round = 0  # that epochs belong to at present, from 1 on
        self.moved = self.codes.new_zeros(0, 2 + 2 * self.n_levels)
        self._end_round()

    def begin_epoch(self, epoch: int, n_epochs: int) -> None:
        """Prepare an epoch of the co-evolution.

        Args:
            epoch: from 0, of this phase.
            n_epochs: of this phase at most; in its last quarter nothing moves any more.
        """
        number = epoch // self.every
        self.round = number + 1
        # Rounds are whole, and what has moved needs time to be learned.
        last = (n_epochs - max(1, n_epochs // SETTLING)) // self.every
        self.fold = number % self.n_folds if self.moves and number < last else None
        judged = self.fold is not None and epoch % self.every == self.every - 1
        if judged and not len(self.round_near):
            self._begin_round(number)
        elif judged:  # an epoch goes on that was interrupted
            for name in self.other_parameter_name[:4]:
                setattr(self, name, getattr(self, name).to(self.codes.device))
            if self.round_count.dim() == 1:  # a checkpoint of when all users were one group
                for name in self.other_parameter_name[1:4]:
                    setattr(self, name, getattr(self, name).unsqueeze(0))

    def _targets(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Targets of a batch and which of them count, ``[B, T]`` both."""
        if self.whole:
            return self.sequence(interaction)[:, 1:], self.counted(interaction)
        targets = interaction[self.ITEM_ID].unsqueeze(1)
        return targets, torch.ones_like(targets, dtype=torch.bool)

    @torch.no_grad()
    def sid_versions(self) -> dict[str, Tensor]:
        """The SIDs of the start, those after each round in which some moved, and of each item the
        heaviest by now where that is another."""
        codes, versions = self.codes.clone(), {"start": self.codes}
        for number in self.moved[:, 0].unique().tolist():
            made = self.moved[self.moved[:, 0] == number].to(codes)
            codes[made[:, 1]] = made[:, 2 + self.n_levels :]
            versions[f"round {number}"] = codes.clone()
        now = self.index.heaviest().long()
        return versions if (now[1:] == codes[1:]).all() else {**versions, "now": now}

    @torch.no_grad()
    def _begin_round(self, number: int) -> None:
        everything = torch.arange(self.n_items, device=self.codes.device)
        vectors = torch.cat([self.items(chunk) for chunk in everything.split(4096)])
        self.round_near = nearest_items(vectors, self.n_neighbours, number)
        n_groups = 2 if self.accept == "halves" else 1
        shape = (n_groups, *self.round_near.shape, self.n_levels - 1)
        self.round_sums, self.round_squares = vectors.new_zeros(shape), vectors.new_zeros(shape)
        self.round_count = vectors.new_zeros(shape[:2])

    def _end_round(self) -> None:
        empty = torch.zeros(0, device=self.codes.device)
        self.round_near = empty.long()
        self.round_sums = self.round_squares = self.round_count = empty

    def _left_out(self, interaction: Interaction) -> Tensor | None:
        """``[B]`` bool: the users of the batch that the present round leaves out."""
        if self.fold is None or not self.training:
            return None
        return held_out(interaction[self.USER_ID], self.n_folds, self.fold)

    @torch.no_grad()
    def _judge(self, interaction: Interaction, left_out: Tensor) -> None:
        """Add the users who are left out to what is known of the round's candidates."""
        rows = self._rows(left_out)
        if not len(rows):
            if processes.world_size() > 1:
                self._add(*self._nothing())
            return
        part = Interaction({name: interaction[name][rows] for name in interaction.columns})
        targets, counted = self._targets(part)
        counted = counted & left_out[rows].unsqueeze(1) & bool(self.batch_share)
        near = self.round_near[targets]  # [H, T, M]
        items = torch.cat([targets.unsqueeze(2), near], 2)
        paths = self.index.heaviest(items)  # [H, T, 1 + M, L]
        with evaluating(self.user_to_token):
            reading = self._read(part, self.whole)
            target = torch.arange(targets.shape[1], device=targets.device)
            first = target.repeat_interleave(items.shape[2]).expand(len(targets), -1)
            step = self.user_to_token.start(reading)
            losses = prefix_losses(step, paths.flatten(1, 2), first, self.loss_trie)
            losses = losses.view(*items.shape, -1)  # [H, T, 1 + M, L - 1]
            has = losses[:, :, :1]
            if self.of_items:
                step, first = self.user_to_token.start(reading), target.expand(len(targets), -1)
                whole = path_losses(step, paths[:, :, 0], first, self.loss_trie) * self.n_levels
                has = whole[:, :, None, None]
        gains = (has - losses[:, :, 1:]) * counted[..., None, None]
        rows_of_sums = targets  # of the sums, those of the second half after all of the first
        if len(self.round_count) > 1:
            half = half_of(part[self.USER_ID], self.n_folds).unsqueeze(1)
            rows_of_sums = targets + half * self.n_items
        self._add(rows_of_sums.flatten(), gains.flatten(0, 1), counted.flatten().to(gains))

    def _rows(self, left_out: Tensor) -> Tensor:
        """The rows to judge. Elsewhere than on a CPU their number may not depend on what they are,
        or the host would wait: room for twice as many as there are on average."""
        if left_out.device.type == "cpu":
            return left_out.nonzero().flatten()
        room = min(len(left_out), -(-2 * len(left_out) // self.n_folds))
        return (~left_out).int().argsort(stable=True)[:room]

    def _nothing(self) -> tuple[Tensor, Tensor, Tensor]:
        gains = self.round_sums.new_zeros(0, *self.round_sums.shape[2:])
        return self.round_near.new_zeros(0), gains, gains.new_zeros(0)

    def _add(self, rows: Tensor, gains: Tensor, counted: Tensor) -> None:
        if processes.world_size() > 1:
            rows, gains, counted = processes.all_gather_rows(rows, gains, counted)
        self.round_sums.view(-1, *gains.shape[1:]).index_add_(0, rows, gains)
        self.round_squares.view(-1, *gains.shape[1:]).index_add_(0, rows, gains.square())
        self.round_count.view(-1).index_add_(0, rows, counted)

    def _by_mass(self, codes: Tensor) -> Tensor:
        """What moves gain beside the likelihood, -inf also for items that are to stay."""
        taken = self.popularity
        gains = of_mass(codes, self.round_near, taken + 1, self.sizes, self.of_items)
        stays = torch.zeros_like(taken, dtype=torch.bool)
        if self.most_taken is not None:
            stays |= taken > self.most_taken
        if self.once_faded:
            stays |= (self.index.weight > 0).sum(1) > 1
        return gains.masked_fill(stays.view(-1, 1, 1), float("-inf"))

    def _gains(self, codes: Tensor) -> Tensor:
        by_mass = self._by_mass(codes)
        judged = self.round_sums, self.round_squares, self.round_count
        gains = what_pays(*judged, by_mass, self.margin)
        return drawn(gains, by_mass, self.round) if self.accept == "random" else gains

    @torch.no_grad()
    def _move(self) -> dict[str, dict[str, float]]:
        """End a round; returns its figures, none where no round was judged."""
        if not len(self.round_near):
            return {}
        codes, most = self.index.heaviest(), int(self.share * (self.n_items - 1))
        items, neighbours, depths = best_moves(self._gains(codes), self.round_near, most)
        self._end_round()
        figures = {f"at level {level_name(level)}": 0.0 for level in range(self.n_levels)}
        if len(items):
            held = self.index.edges()[0]
            new, granted = free_sids(codes[neighbours], depths, held, self.sizes)
            items, new = items[granted], new[granted]
            changed = (new != codes[items]).int().argmax(1)
            for level, name in enumerate(figures):
                figures[name] = float((changed == level).sum())
            which = torch.stack([torch.full_like(items, self.round), items], 1)
            made = torch.cat([which, codes[items].long(), new.long()], 1)
            self.moved = torch.cat([self.moved.to(made), made])
            move(self.index, items, new)
        return {"items moved": {"all": float(len(items)), **figures}}
