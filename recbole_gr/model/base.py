"""The base class of generative recommenders: items as SIDs, generation, scores for RecBole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import Beams, Observe, Step, beam_search
from recbole_gr.generation.exact import exact_scores, sid_losses
from recbole_gr.generation.ranking import Generated, rank_items
from recbole_gr.sid.likelihood import check_normalisation, level_losses
from recbole_gr.sid.table import SIDTable
from recbole_gr.sid.trie import SIDTrie

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

EXCLUDED = "excluded_items"  # [B, H] in a batch: items that may not be returned (0 = none)


class GenerativeRecommender(SequentialRecommender):
    """A recommender that answers with SIDs, on RecBole's sequential interface.

    Batches hold item ids, exactly as for RecBole's own models; items become SIDs by the table
    ``codes`` on the device. A subclass implements :meth:`calculate_loss` and :meth:`start`. What
    else it can do is said by attributes of the class and by methods whose defaults do nothing, so
    that subclasses inherit it and nobody asks for the name of a model.

    Attributes:
        generative: sets these models apart (:func:`recbole_gr.registry.is_generative`).
        trainer: the class that trains it, or its ``"package.module:Class"``.
        continual: stands for a run over all periods of the data (:mod:`recbole_gr.continual`).
        needs_content: the constructor takes the item content ``[n_items, d]`` as its last argument,
            and ``saved_content`` gives it back from the weights of a checkpoint.
        weights_per_item: a new item would need training.
        ranks_items: something is added to the scores of SIDs, item by item (:meth:`beside`).
        codes_in_order: a code of a SID is predicted from those before it.
        results_version: counted up when the same settings and data give other results than before.
        tokenizes_items: :meth:`add_items` codes new items, in the place of the fitted tokenizer.
        of_sids: how the names of weights begin that are learned of the SIDs of single items.
        of_data: names of what is saved with the weights but follows from the data alone.
        history_fields: interaction fields that it reads of a history, beside the item; None: all.
        codes: ``[n_items, L]`` SIDs, row 0 (padding) zeros; part of the checkpoint.
        trie: the same SIDs as a :class:`SIDTrie`; rebuilt, not saved.
        sizes: codebook size of each level.
        batch_share: share of the batch's targets in this process's rows; the trainer's to keep.
    """

    input_type = InputType.POINTWISE
    generative = True
    trainer: str | type = "recbole_gr.trainer.generation:GenerationTrainer"
    continual = False
    needs_content = False
    weights_per_item = False
    ranks_items = False
    codes_in_order = True
    results_version = 0
    tokenizes_items = False
    of_sids: tuple[str, ...] = ()
    of_data: tuple[str, ...] = ()
    history_fields: tuple[str, ...] | None = ()

    codes: Tensor
    level_offset: Tensor
    batch_share = 1.0

    def __init__(self, config: Config, dataset: Dataset, sid: SIDTable):
        super().__init__(config, dataset)
        if len(sid.codes) != self.n_items:
            raise ConfigError(
                f"the SID table has {len(sid.codes) - 1} items, the data {self.n_items - 1}: "
                "make the table from this data set"
            )
        self.sizes, self.n_levels = tuple(sid.sizes), len(sid.sizes)
        self.sid_meta = dict(sid.meta)
        self.register_buffer("codes", sid.codes.clamp_min(0))
        self.trie = self.tree_of(sid)
        self.beam_size = config["beam_size"]
        self.over_trie = config["loss_normalisation"] == "trie"
        renormalise = config["renormalise"]  # where it is not given, as the loss
        self.renormalise = self.over_trie if renormalise is None else renormalise
        self.exclude_history = bool(config["exclude_history"])
        # Codes of all levels share one embedding table; level l starts at offset[l].
        starts = torch.tensor((0, *self.sizes[:-1])).cumsum(0)
        self.register_buffer("level_offset", starts, persistent=False)

    def start(self, interaction: Interaction) -> Step:
        """Read the users of a batch once; the returned function scores SIDs level by level
        (see :mod:`recbole_gr.generation.beam_search`)."""
        raise NotImplementedError

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """Check and complete the configuration before any data is read; may raise ConfigError."""
        if cls.codes_in_order:  # else nothing is normalised code by code
            check_normalisation(config)

    @classmethod
    def reads_content(cls, config: Mapping[str, Any]) -> bool:
        """Whether its constructor takes the item content with this configuration."""
        return cls.needs_content

    @property
    def item_probabilities(self) -> bool:
        """Whether the scores of items are log-probabilities, and not a sum with something else."""
        return not self.ranks_items

    @property
    def loss_trie(self) -> SIDTrie | None:
        """The tree whose codes a training loss is normalised over; None: the codebooks."""
        return self.trie if self.over_trie else None

    def level_losses(
        self,
        logits: Sequence[Tensor],
        codes: Tensor,
        counted: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> list[Tensor]:
        """Per level, the mean loss of the codes of the targets, normalised as
        ``loss_normalisation`` says (see :func:`recbole_gr.sid.likelihood.level_losses`)."""
        return level_losses(logits, codes, counted, self.loss_trie, label_smoothing)

    @staticmethod
    def tree_of(table: SIDTable) -> SIDTrie:
        """The tree of SIDs that a search goes along."""
        return SIDTrie.from_table(table)

    def search(
        self,
        interaction: Interaction,
        beam_size: int | None = None,
        observe: Observe | None = None,
    ) -> Beams:
        """Constrained beam search for a batch of users, on SIDs; ``observe`` sees its levels."""
        step, n_users = self.start(interaction), interaction[self.ITEM_SEQ_LEN].shape[0]
        how = (self._excluded(interaction), self.renormalise, observe)
        beams = beam_search(step, self.trie, n_users, beam_size or self.beam_size, *how)
        added = self.beside(step)
        return beams if added is None else self.ordered(beams, added, interaction)

    def beside(self, step: Step) -> Tensor | None:
        """``[B, n_items]`` that is added to the log-probability of the items' SIDs, of the users
        that ``step`` has read and scored; None, as here: nothing."""
        return None

    def ordered(self, beams: Beams, added: Tensor, interaction: Interaction) -> Beams:
        """The items of finished beams in order with what :meth:`beside` adds, as beams that name
        them."""
        raise NotImplementedError

    def search_and_score(self, interaction: Interaction) -> tuple[Beams, Tensor | None]:
        """:meth:`search`, and what :meth:`exact` gives if the search comes by it; else None."""
        return self.search(interaction), None

    def _excluded(self, interaction: Interaction) -> Tensor | None:
        """``[B, H]`` items that may not be returned, None where all may."""
        if EXCLUDED in interaction:
            return interaction[EXCLUDED]
        return interaction[self.ITEM_SEQ] if self.exclude_history else None

    def sid_table(self) -> SIDTable:
        """The SIDs of the items, on the CPU."""
        return SIDTable.from_item_codes(self.codes[1:].cpu(), self.sizes, self.sid_meta)

    @torch.no_grad()
    def add_sids(self, codes: Tensor) -> Tensor:
        """Take in new items by their SIDs ``[n, L]``, without training; returns their ids ``[n]``.

        For models whose weights belong to codes, not to items (``weights_per_item``).

        Raises:
            ConfigError: a code is outside its codebook.
        """
        new = SIDTable.from_item_codes(codes, self.sizes).codes[1:].to(self.codes)
        ids = torch.arange(self.n_items, self.n_items + len(new), device=new.device)
        self.codes = torch.cat([self.codes, new])
        self.n_items += len(new)
        self.trie = self.tree_of(self.sid_table()).to(new.device)
        return ids

    def add_items(self, content: Tensor) -> Tensor:
        """As :meth:`add_sids`, by their content ``[n, d]``; where ``tokenizes_items``."""
        raise NotImplementedError

    @staticmethod
    def saved_content(state_dict: Mapping[str, Tensor]) -> Tensor:
        """The item content ``[n_items, d]`` in the weights of a checkpoint (``needs_content``)."""
        raise NotImplementedError

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Take from the checkpoint of an earlier period what is not among the weights."""

    def end_epoch(self) -> dict[str, dict[str, float]]:
        """Figures of an epoch, ``{topic: {name: value}}``, for the trainer to keep and log."""
        return {}

    def redistribution(self) -> list[dict] | None:
        """How single items are spread over the codes of each level, as plain data for
        :mod:`recbole_gr.report.redistribution`; None where an item has the codes of its SID."""
        return None

    def batch_weight(self, own: Tensor) -> Tensor:
        """What a mean over samples other than the targets is divided by.

        Where several processes have a part of a batch each, the trainer weighs the loss of a part
        by ``batch_share``, which is right for a mean over targets. A mean over other samples is
        divided by this, so that the weighted losses of all parts are the mean over the batch.

        Args:
            own: scalar, the number (or summed weight) of the samples in the rows at hand.

        Returns:
            ``own``, at least 1, in a run of one process.
        """
        if processes.world_size() == 1:
            return own.clamp_min(1)
        return self._batch_weight(own)

    @torch.compiler.disable
    def _batch_weight(self, own: Tensor) -> Tensor:
        if not self.batch_share:  # the padding row of an empty shard
            processes.all_reduce_sum(torch.zeros_like(own))
            return torch.ones_like(own)
        return processes.all_reduce_sum(own.clone()).clamp_min(1) * self.batch_share

    def compiled_loss(self, **options: Any) -> Callable[[Interaction], Tensor]:
        """:meth:`calculate_loss` for batches of any size, compiled: what the trainer calls where
        ``torch_compile`` is True. ``options`` are those of ``torch.compile``."""
        return torch.compile(self.calculate_loss, dynamic=True, **options)

    @torch.no_grad()
    def generate(self, interaction: Interaction, k: int, beam_size: int | None = None) -> Generated:
        """The ``k`` best items of each user, ``items [B, k]`` and log-probabilities ``[B, k]``.

        Uses at least ``k`` beams. Item 0 with -inf fills places for which the beams hold no item.
        """
        beams = self.search(interaction, max(k, beam_size or self.beam_size))
        return self.rank(beams, k, interaction)

    @torch.no_grad()
    def prepare_export(self) -> None:
        """Compute what :meth:`search` computes once and keeps, before it is recorded as a graph."""
        _ = self.trie.item_paths(), self.trie.n_below()

    def rank(self, beams: Beams, k: int, interaction: Interaction) -> Generated:
        """The ``k`` best items of finished beams (see :func:`rank_items`)."""
        return rank_items(self.trie, beams, k, exclude=self._excluded(interaction))

    @torch.no_grad()
    def exact(self, interaction: Interaction) -> Tensor:
        """Log-probability of every item, ``[B, n_items]`` (column 0 -inf), without a search."""
        users, step = len(interaction[self.ITEM_SEQ_LEN]), self.start(interaction)
        scores = exact_scores(step, self.trie, users, self.renormalise)
        added = self.beside(step)
        return scores if added is None else scores + added

    def exact_width(self) -> int:
        """About how many numbers :meth:`exact` holds at once for each user."""
        return max(n * size for n, size in zip(self.trie.n_nodes, self.sizes))

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]`` for RecBole's dense path: log-probabilities of the generated items,
        -inf for all others."""
        found = self.generate(interaction, self.beam_size)
        dense = found.scores.new_full((len(found.items), self.n_items), float("-inf"))
        dense.scatter_(1, found.items, found.scores)
        dense[:, 0] = float("-inf")
        return dense

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` log-probability of each row's own item (RecBole's sampled evaluation)."""
        step, codes = self.start(interaction), self.codes[interaction[self.ITEM_ID]]
        losses = sid_losses(step, codes, self.trie if self.renormalise else None)
        score = -sum(losses, start=torch.zeros(len(codes), device=codes.device))
        leaf = self.trie.item_paths()[-1][interaction[self.ITEM_ID], 0]
        score, added = score - self.trie.sharing(leaf.long()).log(), self.beside(step)
        if added is None:
            return score
        return score + added.gather(1, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}codes")
        if saved is not None and not torch.equal(saved.to(self.codes.device), self.codes):
            raise ConfigError(
                "the checkpoint was trained on other SIDs than this run's: give the table it was "
                "trained on with --sid_file (or the same tokenizer, seed and content)"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def flat_tokens(self, items: Tensor) -> Tensor:
        """``[B, T]`` items -> ``[B, T * L]`` rows of the shared code embedding table."""
        return (self.codes[items] + self.level_offset).flatten(1)

    def sequence(self, interaction: Interaction) -> Tensor:
        """``[B, T + 1]`` the history with the target put at its end, padding after it."""
        history, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        items = torch.nn.functional.pad(history, (0, 1))
        return items.scatter(1, length.unsqueeze(1), interaction[self.ITEM_ID].unsqueeze(1))

    def counted(self, interaction: Interaction) -> Tensor:
        """``[B, T]`` bool: whether the prediction of item ``t + 1`` from items ``0 .. t`` counts.

        A training row counts its last ``n_targets`` predictions; a prefix sample is a row with
        ``n_targets`` = 1 (see :mod:`recbole_gr.data`).
        """
        length = interaction[self.ITEM_SEQ_LEN].unsqueeze(1)
        place = torch.arange(interaction[self.ITEM_SEQ].shape[1], device=length.device)
        n_targets = interaction["n_targets"].unsqueeze(1) if "n_targets" in interaction else 1
        return (place < length) & (place >= length - n_targets)
