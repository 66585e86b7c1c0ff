"""Stage 1 of a run as one value: the items' content, their semantic IDs, and how good these are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbole_gr.data.content import ItemContent, item_content
from recbole_gr.data.prepare import training_split
from recbole_gr.data.titles import item_titles
from recbole_gr.distributed import processes
from recbole_gr.pages.walk import Walk, gathered
from recbole_gr.pipeline.sids import judged, prepare_sid
from recbole_gr.pipeline.signals import item_behaviour, tokenizer_signals
from recbole_gr.quality.gate import apply_gate
from recbole_gr.quality.measures import QualityReport
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.checkpoint import plain

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset
    from torch import Tensor

    from recbole_gr.config import Config
    from recbole_gr.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class ItemSIDs:
    """What a recommender is given of the items.

    Attributes:
        content: vectors ``[n_items, d]`` with what encoded them.
        table: codes ``[n_items, L]``.
        report: quality of the table.
    """

    content: ItemContent
    table: SIDTable
    report: QualityReport

    @classmethod
    def judged(
        cls,
        config: Config,
        train: Dataset,
        content: ItemContent,
        table: SIDTable,
        tokenizer: Tokenizer | None = None,
    ) -> ItemSIDs:
        """With a table that was made elsewhere, which the training split `train` helps to judge.

        Raises:
            ConfigError: collapsed SIDs under ``sid_gate: stop``.
        """
        report = judged(config, table, content, tokenizer, item_behaviour(train))
        return cls(content, table, report).gated(config)

    def gated(self, config: Config) -> ItemSIDs:
        """Itself, unless the SIDs are collapsed and ``sid_gate`` says ``stop``: a ConfigError."""
        apply_gate(config, self.report)
        return self

    def to_plain(self) -> list:
        """Tensors and plain values, for other processes."""
        table = [self.table.codes, list(self.table.sizes), plain(self.table.meta)]
        return [dataclasses.asdict(self.content), table, plain(self.report.to_dict())]

    @classmethod
    def of_plain(cls, kept: list) -> ItemSIDs:
        """The way back from :meth:`to_plain`."""
        content, table, report = kept
        return cls(ItemContent(**content), SIDTable(*table), QualityReport.of_dict(report))


def learned_sids(config: Config, train: Dataset | None = None) -> ItemSIDs:
    """Item content, SIDs by the settings of a generative model, and their quality, whatever it is.

    Args:
        config: ``item_content``, ``tokenizer`` or ``sid_file``, and their keys.
        train: the training split; None reads the data set.

    Raises:
        ConfigError: data, content, options or a SID file cannot be used.
    """
    train = training_split(config) if train is None else train
    content = item_content(config, train)
    signals, behaviour = tokenizer_signals(config, train), item_behaviour(train)
    return ItemSIDs(content, *prepare_sid(config, content, signals, behaviour))


def item_sids(config: Config, train: Dataset | None = None) -> ItemSIDs:
    """As :func:`learned_sids`, for a recommender: of several processes one learns them, for all.

    Raises:
        ConfigError: as there, or the SIDs are collapsed (``sid_gate``).
    """
    if processes.world_size() == 1:
        return learned_sids(config, train).gated(config)
    made = processes.broadcast_object(lambda: learned_sids(config, train).gated(config).to_plain())
    return ItemSIDs.of_plain(made)


def walk_of(
    config: Config,
    train: Dataset,
    sids: ItemSIDs,
    name: str,
    versions: Mapping[str, Tensor] | None = None,
) -> Walk:
    """What the page of the SIDs shows.

    Args:
        config: of a run.
        train: its training split.
        sids: of its items.
        name: of what made them.
        versions: SIDs of before and after, as for :func:`~recbole_gr.pages.walk.gathered`.
    """
    tokens, levels = sids.content.item_tokens, sids.report.content_levels
    known = item_titles(config), sids.content.vectors, item_behaviour(train)
    return gathered(name, sids.table, tokens, *known, levels, versions)


def content_vectors(config: Config, train: Dataset) -> Tensor:
    """The item content ``[n_items, d]`` for a model without SIDs: of several processes one makes
    it, for all."""
    return processes.broadcast_object(lambda: item_content(config, train).vectors)
