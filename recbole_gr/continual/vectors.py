"""Collaborative vectors of the items in every period, and what their drift did to the SIDs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from recbole_gr.continual.drift_report import drift_report
from recbole_gr.data.vector_files import collaborative_vectors
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.item_vectors import (
    load_item_vectors,
    save_item_vectors,
    train_item_vectors,
)
from recbole_gr.storage.cache import cached
from recbole_gr.storage.json_files import load_json

if TYPE_CHECKING:
    from recbole_gr.continual.tokens import PeriodItems, TokenizerChain
    from recbole_gr.tokenizer.base import Tokenizer


class CollaborativeVectors:
    """Collaborative vectors of period after period, from files or learned by RecBole's SASRec.

    Learned: on the training targets of the period alone, going on from the period before
    (:func:`~recbole_gr.pipeline.item_vectors.train_item_vectors`; DACT, section 3.2).

    Attributes:
        before, now: vectors ``[n, e]`` of the last period and of this one; None where there are
            none.
    """

    def __init__(self) -> None:
        self.before: torch.Tensor | None = None
        self.now: torch.Tensor | None = None
        self._state: dict[str, torch.Tensor] | None = None

    def advance(self, items: PeriodItems) -> torch.Tensor:
        """Vectors ``[n_items - 1, e]`` of the next period.

        Args:
            items (PeriodItems): the period.

        Raises:
            ConfigError: a file that does not fit, or vectors kept for other items.
        """
        self.before = self.now
        if items.config["cf_file"]:
            self.now = collaborative_vectors(items.config, items.train)
            return self.now
        file = items.folder / "cf.pth"
        result = cached(
            file,
            load_item_vectors,
            lambda: train_item_vectors(items.config, self._state),
            save_item_vectors,
            "give another --continual.dir",
        )
        self._state, self.now = result.state, result.vectors
        if len(self.now) != len(items.content.item_tokens) - 1:
            raise ConfigError(
                f"{file} holds vectors of {len(self.now)} items, the period has "
                f"{len(items.content.item_tokens) - 1}: remove its folder to do it again"
            )
        return self.now

    def report_drift(
        self,
        items: PeriodItems,
        chain: TokenizerChain,
        old_tokenizer: Tokenizer,
        old_codes: torch.Tensor,
    ) -> dict[str, Any] | None:
        """Write the drift report of a tokenizer into the period's folder, if it is not there.

        Args:
            items (PeriodItems): the period.
            chain (TokenizerChain): after it went on to the period.
            old_tokenizer: that of the period before.
            old_codes: SIDs ``[n_old, L]`` of that period without padding.

        Returns:
            dict: its figures; None where there are no vectors of the period before.
        """
        folder = items.folder / f"drift-{chain.how}"
        if self.before is None or self.now is None:
            return None
        if (folder / "drift.json").is_file():
            return load_json(folder / "drift.json")
        n_old = len(old_codes)
        assert chain.table is not None
        changed = (chain.table.codes[1 : n_old + 1] != old_codes).any(1)
        confidence = None
        if chain.tokenizer is not old_tokenizer and chain.tokenizer.follows_drift:
            content = items.content.vectors[1:]
            confidence = chain.tokenizer.drift_confidence(old_tokenizer, content, self.now)
        drift_report(
            folder, items.content.item_tokens[1 : n_old + 1],
            torch.as_tensor(self.before), self.now, changed, confidence,
        )  # fmt: skip
        return load_json(folder / "drift.json")
