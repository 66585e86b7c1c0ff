"""The IntRR model: its loss, and the scores of the next item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.compat.tracing import exporting
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import Step
from recbole_gr.generation.exact import sid_losses
from recbole_gr.model.backbone import backbone_class
from recbole_gr.model.intrr import settings as options
from recbole_gr.model.intrr.exact import leaf_scores
from recbole_gr.model.intrr.ran import Level, RecursiveAssignment, follow
from recbole_gr.model.intrr.redistribution import alike_items, assignment_figures, described
from recbole_gr.model.pointed import Pointed

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable

CHUNK = 1 << 15  # items computed together where all of them are


class Served(NamedTuple):
    """The items' tokens ``[n_items, d]``, and what the codewords contribute at each level."""

    tokens: Tensor
    levels: list[Level]


class IntRR(Pointed):
    """One token per item, made by the network that also decodes (arXiv 2602.20704).

    Every item has an embedding of its own (its *UID*). A :class:`RecursiveAssignment` network turns
    it into one token; a causal backbone reads the tokens of the history once; the same network
    turns the backbone's last state into the SID of the next item. Sizes and switches are in
    ``properties/model/IntRR.yaml``.

    The collision level is a level like the others: the paper's fourth digit.
    """

    trainer = "recbole_gr.trainer.figures:FiguresTrainer"
    weights_per_item = True  # the UID embedding
    results_version = 1  # since T5's logits have no scale in the forward pass

    def __init__(
        self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor | None = None
    ):
        super().__init__(config, dataset, sid, content)
        options.check_levels(config, self.n_levels)
        width = config["hidden_size"]
        self.uid_embedding = nn.Embedding(self.n_items, config["uid_size"])
        nn.init.normal_(self.uid_embedding.weight, std=config["uid_std"])
        self.uid_projection = nn.Linear(config["uid_size"], width)
        self.ran = RecursiveAssignment(
            self.sizes,
            width,
            config["ran_hidden_size"],
            config["context"],
            config["temperature"],
            config["codebook_std"],
        )
        self.backbone = backbone_class(config["backbone"], "IntRR")(config)
        self.level_weights = tuple(config["level_weights"] or [1.0] * self.n_levels)
        self.lambda_aln = config["lambda_aln"]
        self.aligned = config["alignment_levels"] or self.n_levels
        self.one_target = config["train_sample"] == "prefix"
        self.decoding = config["decoding"]
        self.shown_items, self.shown_tokens = self._shown(config["redistribution_items"], dataset)
        self._served: tuple[tuple, Served] | None = None

    def _shown(self, tokens: Sequence[str] | None, dataset: Dataset) -> tuple[Tensor, list[str]]:
        """Ids and tokens of the items whose redistribution is reported."""
        if tokens is None:
            items = alike_items(self.codes)
            return items, [str(dataset.id2token(self.ITEM_ID, int(item))) for item in items]
        tokens = list(map(str, tokens))
        try:
            return torch.as_tensor(dataset.token2id(self.ITEM_ID, tokens)), tokens
        except ValueError as error:
            raise ConfigError(f"redistribution_items: not an item of the data: {error}") from error

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check every key (see :mod:`recbole_gr.model.intrr.settings`); may raise ConfigError."""
        super().prepare_config(config)
        options.prepare(config)

    # Training

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """``L_rec + lambda_aln * L_aln`` (IntRR, figure 2; means and sums as in the released code).

        ``L_rec``: sum over the levels of the cross-entropy of the target's code given its codes
        above, mean over the targets. ``L_aln``: sum over the levels of the cross-entropy of an
        item's own Stage-1 code in what the item side assigns to it, mean over the items of the
        histories. An item counts once for every target that it is in the history of, so a whole
        sequence has the loss of all its prefix samples together.
        """
        return self._loss_of(interaction, *_distinct(interaction[self.ITEM_SEQ]))

    def compiled_loss(self, **options: Any) -> Callable[[Interaction], Tensor]:
        """As of any model; the distinct items of a batch, whose number would break the graph, are
        found before it."""
        compiled = torch.compile(self._loss_of, dynamic=True, **options)
        return lambda batch: compiled(batch, *_distinct(batch[self.ITEM_SEQ]))

    def _loss_of(self, interaction: Interaction, items: Tensor, where: Tensor | None) -> Tensor:
        """The loss of a batch with the given :func:`_distinct` items."""
        self._served = None
        counted = self.counted(interaction)
        tokens, alignment = self._read_items(interaction[self.ITEM_SEQ], counted, items, where)
        hidden = self.backbone(tokens)  # [B, T, d]
        if self.one_target:  # a prefix sample: the last position of a row is enough
            hidden = self.last_of(hidden, interaction)
            next_items, which = interaction[self.ITEM_ID], None  # [B]
        else:
            next_items, which = self.sequence(interaction)[:, 1:], counted  # [B, T]
        loss = self.lambda_aln * alignment
        if self.item_head:
            loss = loss + self.item_loss(hidden, next_items, which)
        if self.pointer is not None:
            of_items = self.pointer_loss(self.pointer, interaction, hidden, next_items, which)
            return loss + of_items
        target = self.codes[next_items]
        losses = self.level_losses(self.ran.teach(hidden, target), target, which)
        for weight, of_level in zip(self.level_weights, losses, strict=True):
            loss = loss + weight * of_level
        return loss

    def taught(self, hidden: Tensor, codes: Tensor) -> list[Tensor]:
        """As of any model."""
        return self.ran.teach(hidden, codes)

    def _read_items(
        self, history: Tensor, counted: Tensor, items: Tensor, where: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Tokens of the histories, ``[B, T]`` -> ``[B, T, d]``, and the alignment loss."""
        tokens, logits = self.assign(items)
        alignment: Tensor | float = 0.0
        if self.lambda_aln:
            weight = self._targets_after(counted) * (history > 0)
            weight = weight.flatten().to(tokens.dtype)
            if where is not None:
                weight = weight.new_zeros(len(items)).index_add(0, where.flatten(), weight)
            losses = self._misalignment(items, logits)
            alignment = (losses * weight).sum() / self.batch_weight(weight.sum())
        tokens = self.with_items(tokens, items)
        tokens = tokens if where is None else tokens[where]
        return tokens.view(*history.shape, -1), alignment

    @staticmethod
    def _targets_after(counted: Tensor) -> Tensor:
        """``[B, T]`` how many counted targets each item of a history comes before."""
        return counted.long().flip(1).cumsum(1).flip(1)

    def _misalignment(self, items: Tensor, logits: list[Tensor]) -> Tensor:
        """``[n]`` cross-entropy of each item's SID in the logits of the item side, the sum of the
        first ``alignment_levels`` levels."""
        codes = self.codes[items]
        losses = (
            F.cross_entropy(logits[level].float(), codes[:, level], reduction="none")
            for level in range(self.aligned)
        )
        return sum(losses, start=torch.zeros(len(items), device=items.device))

    def assign(self, items: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the item side makes of ``items [n]``: tokens ``[n, d]``, logits per level."""
        return self.ran.assign(self.uid_projection(self.uid_embedding(items)))

    # Figures

    @torch.no_grad()
    def end_epoch(self) -> dict[str, dict[str, float]]:
        """How the item side stands to the Stage-1 SIDs, see :mod:`.figures`."""
        return assignment_figures(self._assigned_codes()[1:], self.codes[1:], self.sizes)

    def _assigned_codes(self) -> Tensor:
        """``[n_items, L]`` the codes of largest logit on the item side."""
        parts = torch.arange(self.n_items, device=self.codes.device).split(CHUNK)
        logits = (self.assign(part)[1] for part in parts)
        return torch.cat([torch.stack([s.argmax(-1) for s in part], 1) for part in logits])

    @torch.no_grad()
    def redistribution(self) -> list[dict]:
        """How the items of ``redistribution_items`` are spread over the codes of each level (the
        paper's ``p``), as plain data; see :mod:`recbole_gr.report.redistribution`."""
        items = self.shown_items.to(self.codes.device)
        levels = [self.ran.probabilities(logits) for logits in self.assign(items)[1]]
        return described(self.shown_tokens, self.codes[items], levels)

    @torch.no_grad()
    def sid_versions(self) -> dict[str, Tensor]:
        """The Stage-1 SIDs, and the codes of largest logit on the item side."""
        return {"Stage 1": self.codes, "item side": self._assigned_codes()}

    # Inference

    def state(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the backbone's state after the last item of each history."""
        tokens = self.served().tokens[interaction[self.ITEM_SEQ]]
        return self.last_of(self.backbone(tokens), interaction)

    def served(self) -> Served:
        """What scoring needs that no user changes: computed once and kept until weights change.

        A call that gradients may flow through gets its own.
        """
        if exporting():  # constants of the graph; computed by `prepare_export`
            assert self._served is not None
            return self._served[1]
        if self.training or torch.is_grad_enabled():
            return self._serve()
        stamp = self._stamp()
        if self._served is None or self._served[0] != stamp:
            with torch.autocast(self.codes.device.type, enabled=False):
                self._served = stamp, self._serve()
        return self._served[1]

    @torch.no_grad()
    def prepare_export(self) -> None:
        """As of any model; the item side too."""
        super().prepare_export()
        self.served()

    def _serve(self) -> Served:
        parts = torch.arange(self.n_items, device=self.codes.device).split(CHUNK)
        tokens = torch.cat([self.with_items(self.assign(part)[0], part) for part in parts])
        return Served(tokens, self.ran.levels())

    def _stamp(self) -> tuple:
        modules = (self.uid_embedding, self.uid_projection, self.ran, self.item_table)
        weights = [p for module in modules if module is not None for p in module.parameters()]
        return tuple((p.data_ptr(), p._version) for p in weights)

    def train(self, mode: bool = True) -> IntRR:
        """As of any module; training forgets what was kept (a fused optimiser does not count its
        steps in the versions of the weights)."""
        self._served = None
        return super().train(mode)

    def start(self, interaction: Interaction) -> Step:
        """The backbone runs once; every level after that is the RAN alone."""
        return _Decoding(self, interaction)

    def code_log_probs(self, interaction: Interaction) -> Tensor:
        """``[B, L]`` log-probability of each code of each row's own item given those before it."""
        codes, trie = self.codes[interaction[self.ITEM_ID]], self.trie if self.renormalise else None
        return -torch.stack(sid_losses(self.start(interaction), codes, trie), 1)

    def scores_of(self, state: Tensor) -> Tensor:
        """From one table of logits per level and user."""
        first, guided = self.ran.first(state), self.ran.guide(state)
        return leaf_scores(first, guided, self.served().levels, self.trie, self.renormalise)


def _distinct(history: Tensor) -> tuple[Tensor, Tensor | None]:
    """The items ``[n]`` whose tokens a batch needs, and the place ``[B, T]`` of each position among
    them; None: every position is there, in turn.

    A token is that of the item alone, so on a CPU each distinct item is computed once. Elsewhere
    the number of them would be waited for.
    """
    if history.device.type != "cpu":
        return history.flatten(), None
    return torch.unique(history, return_inverse=True)


class _Decoding:
    """Beam steps inside the RAN, for :func:`recbole_gr.generation.beam_search.beam_search`."""

    def __init__(self, model: IntRR, interaction: Interaction):
        self.user = model.state(interaction)  # [B, d]
        user = self.user.unsqueeze(1)
        self.first = model.ran.first(user)
        self.levels, self.guided = model.served().levels, model.ran.guide(user)

    def __call__(self, level: int, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        if codes is None:
            return self.first
        step = self.levels[level - 1]
        # Only the last code counts, so beams need no state to re-index by their parents.
        return follow(step, F.embedding(codes, step.context) + self.guided[level - 1])
