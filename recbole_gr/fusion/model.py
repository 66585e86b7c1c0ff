"""Fusion: the scores of two trained models, of ours or RecBole's, as those of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_gr.compat.tracing import exporting
from recbole_gr.data.frequency import training_counts
from recbole_gr.fusion.members import (
    Member,
    members_of_files,
    members_of_state,
    named_members,
    require_content,
)
from recbole_gr.fusion.mixing import (
    MIXTURES,
    Candidate,
    confidence,
    spread_of_beams,
    weight_of,
)
from recbole_gr.fusion.smoothing import Neighbours
from recbole_gr.generation.beam_search import NEVER
from recbole_gr.model.exact import ExactRecommender
from recbole_gr.registry import is_generative
from recbole_gr.trainer.batches import in_parts
from recbole_gr.trainer.ranks import exact_in_parts

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

AT_ONCE = 1 << 22  # scores that are mixed together


class Fusion(SequentialRecommender):
    """Two models whose scores are made comparable for each user, weighed and added.

    The models are trained already, and stay as they are. How they are mixed, the weight of the
    second one and how far it follows which of the two is surer of a user is chosen on the
    validation targets (:class:`~recbole_gr.fusion.trainer.FusionTrainer`).

    A generative model gives the log-probability of every item where that is affordable; of a beam
    search what the beams leave over is shared by all other items, which the other model then puts
    in order. With ``fusion_smoothing`` what a model has learned of rare items is backed by what it
    says of their neighbours by content.

    Attributes:
        members: the two models.
        kept: what of their checkpoints makes them again, for that of the fusion.
        mixture: number of the mixture among :data:`~recbole_gr.fusion.mixing.MIXTURES`.
        share, slope: of the weight, see :func:`~recbole_gr.fusion.mixing.weight_of`.
        centre, deviation: of the difference in confidence over the users of the validation.
        neighbours: of the items, None without smoothing.
    """

    input_type = InputType.POINTWISE
    trainer = "recbole_gr.fusion.trainer:FusionTrainer"

    members: Any  # a ModuleList of any models
    mixture: Tensor
    share: Tensor
    slope: Tensor
    centre: Tensor
    deviation: Tensor

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        saved: tuple[Mapping[str, Any], str] | None = None,
    ):
        """
        Args:
            config: with ``members``, two checkpoints, unless it is restored.
            dataset: the training split.
            saved: the checkpoint of a fusion and its name, to restore it.
        """
        super().__init__(config, dataset)
        found: list[Member] = (
            members_of_files(config, dataset) if saved is None else members_of_state(*saved, config)
        )
        self.members = nn.ModuleList(member.model for member in found)
        self.kept = [member.state for member in found]
        self.names = [str(member.state["config"]["model"]) for member in found]
        self.scoring = config["fusion_scores"]
        contents = (member.content for member in found)
        self.content_of_members = next((each for each in contents if each is not None), None)
        self.register_buffer("mixture", torch.tensor(0))
        self._recorded: str | None = None  # the mixture of a graph, which cannot read it
        for name, value in (("share", 0.5), ("slope", 0.0), ("centre", 0.0), ("deviation", 1.0)):
            self.register_buffer(name, torch.tensor(value))
        self.neighbours = None
        if any(config["fusion_smoothing"]):
            content = require_content(self.content_of_members, self.names)
            counts, k = training_counts(dataset), config["fusion_neighbours"]
            self.neighbours = Neighbours(content, counts, k).to(config["device"])

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check ``members`` before any data is read; may raise ConfigError."""
        config["members"] = named_members(config)

    @property
    def loss_type(self) -> str | None:
        """RecBole's word for scores that are logits over the catalogue; none of `standard`."""
        return None if self._mixture() == "standard" else "CE"

    def _mixture(self) -> str:
        return self._recorded or list(MIXTURES)[int(self.mixture)]

    @torch.no_grad()
    def prepare_export(self) -> None:
        """As of a generative model."""
        self._recorded = self._mixture()
        for member in self.members:
            if is_generative(member):
                member.prepare_export()

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """There is none: nothing of a fusion is trained."""
        raise NotImplementedError("the members of a Fusion are trained already")

    def train(self, mode: bool = True) -> Fusion:
        """The members stay in evaluation mode."""
        return super().train(False)

    def set_mixture(self, chosen: Candidate) -> None:
        """Mix as said."""
        self._recorded = None
        self.mixture.fill_(list(MIXTURES).index(chosen.mixture))
        self.share.fill_(chosen.share)
        self.slope.fill_(chosen.slope)
        if self.neighbours is not None:
            self.neighbours.strength.fill_(chosen.smoothing)

    @torch.no_grad()
    def scores_of(self, interaction: Interaction) -> list[Tensor]:
        """``[B, n_items - 1]`` of each member, of all items but the padding."""
        return [self._scores(member, interaction)[:, 1:].float() for member in self.members]

    def _scores(self, member: Any, interaction: Interaction) -> Tensor:
        """``[B, n_items]``; column 0 means nothing."""
        if not is_generative(member):
            scores = member.full_sort_predict(interaction)
            return scores.view(-1, self.n_items)
        affordable = isinstance(member, ExactRecommender)  # even if its own decoding is beam
        if self.scoring == "exact" or (self.scoring == "auto" and affordable):
            return exact_in_parts(member, interaction)
        found = member.generate(interaction, member.beam_size)
        return spread_of_beams(found.items, found.scores, self.n_items)

    def surer(self, first: Tensor, second: Tensor) -> Tensor:
        """``[B]`` by how much the second model is surer, in deviations over the validation."""
        difference = confidence(second) - confidence(first)
        return (difference - self.centre) / self.deviation

    def smoothed(
        self, first: Tensor, second: Tensor, strength: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The scores ``[B, N]`` of both, backed by those of neighbours as chosen, or by a strength;
        those of a model that learned nothing stay."""
        if self.neighbours is None or strength == 0:
            return first, second
        one, other = (
            self.neighbours(scores, strength) if getattr(member, "learned", True) else scores
            for member, scores in zip(self.members, (first, second))
        )
        return one, other

    def mixed(self, first: Tensor, second: Tensor) -> Tensor:
        """The scores ``[B, N]`` of both as one."""
        scaled, mix = MIXTURES[self._mixture()]
        weight = weight_of(self.share, self.slope, self.surer(first, second))
        first, second = self.smoothed(first, second)
        return mix(scaled(first), scaled(second), weight)

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]``, -inf for item 0."""
        n_rows = max(1, AT_ONCE // self.n_items)
        # A graph for any number of users has no number of parts.
        parts = [interaction] if exporting() else in_parts(interaction, n_rows)
        scores = torch.cat([self.mixed(*self.scores_of(part)) for part in parts])
        return nn.functional.pad(scores, (1, 0), value=NEVER)

    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` of each row's own item."""
        items = interaction[self.ITEM_ID].unsqueeze(1)
        return self.full_sort_predict(interaction).gather(1, items).squeeze(1)
