"""Collaborative vectors, tokenizers and code tables of one period after the other."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from recbole_gr.config.user_settings import option
from recbole_gr.continual.given import FILES, given_table, suffixed, with_suffix_level
from recbole_gr.continual.methods import DRIFT_AWARE, FINETUNE, FROZEN
from recbole_gr.continual.store import read_json
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.item_sids import ItemSIDs
from recbole_gr.pipeline.sids import fitted_table
from recbole_gr.pipeline.signals import item_behaviour, tokenizer_signals
from recbole_gr.quality.measures import collision_figures
from recbole_gr.registry import get_tokenizer, tokenizers_where
from recbole_gr.sid.reassign import Churn, churn_of, reassign
from recbole_gr.sid.sizes import AUTO, LARGEST
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.cache import cached
from recbole_gr.storage.json_files import save_json
from recbole_gr.terminal.log import say

if TYPE_CHECKING:
    import torch
    from recbole.config import Config
    from recbole.data.dataset import Dataset

    from recbole_gr.data.content import ItemContent
    from recbole_gr.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class PeriodItems:
    """What tokenizers see of a period.

    Attributes:
        period (int): which one.
        folder (pathlib.Path): where its files are kept.
        config (Config): a recommender's configuration of this period.
        train (SequentialDataset): its training split.
        content (ItemContent): content of all items so far.
    """

    period: int
    folder: Path
    config: Config
    train: Dataset
    content: ItemContent


def first_items(content: ItemContent, n_items: int) -> ItemContent:
    """The content of the first ``n_items`` items (padding included): ids only ever grow."""
    tokens, digest = content.item_tokens[:n_items], f"{content.digest}-{n_items}"
    return replace(
        content, vectors=content.vectors[:n_items], item_tokens=tokens, digest=digest
    )


def ways_of(tokenizer_class: type[Tokenizer]) -> set[str]:
    """The ways in which a tokenizer can follow the periods."""
    able = {FINETUNE: tokenizer_class.fine_tunes, DRIFT_AWARE: tokenizer_class.follows_drift}
    return {FROZEN, *(way for way, can in able.items() if can)}


class TokenizerChain:
    """SIDs of every period by one way of following the data.

    * ``frozen``: the tokenizer of the first period codes new items; old ones keep their SIDs.
    * ``finetune``: it goes on learning in every period and all items are coded again.
    * ``dact``: drift-aware fine-tuning, then hierarchical reassignment (DACT, sections 3.5 to 5).
    * ``files``, or another name: a table of SIDs is given for each period.

    All but ``files`` share the first period. The suffix level has the same number of codes in every
    period, so that a recommender's weights fit from one to the next.

    Args:
        how: a value of the key `continual_tokenizer`.
        config: of the continual run.
        files: tables of the first periods; the chain ends with them. None: they are learned.
    """

    def __init__(self, how: str, config: Config, files: Sequence[str] | None = None):
        self.how, self.config, self.files = how, config, files
        self.tokenizer_class: Any = None if files else get_tokenizer(config["tokenizer"])
        self.signals = self.tokenizer_class.signals if self.tokenizer_class else ()
        self.tokenizer: Any = None  # of the class that the configuration names
        self.table: SIDTable | None = None
        self._first: torch.Tensor | None = None  # SIDs of the first period, without padding
        self.names: list[str] = []  # of what each period's SIDs are kept under
        if self.tokenizer_class is not None and how not in ways_of(self.tokenizer_class):
            able = tokenizers_where(lambda tokenizer: how in ways_of(tokenizer))
            raise ConfigError(
                f"continual_tokenizer: {how} needs a tokenizer that goes on learning, "
                f"{' or '.join(able)}; {config['tokenizer']} cannot"
            )
        if not files and option(config, "continual_start_sids"):
            able = tokenizers_where(lambda tokenizer: tokenizer.imitates)
            imitates = get_tokenizer(config["tokenizer"]).imitates
            if not (imitates or option(config, "continual_start_tokenizer")):
                raise ConfigError(
                    "continual_start_sids needs a tokenizer that can be fitted to SIDs, "
                    f"{' or '.join(able)}, not {config['tokenizer']}; to learn SIDs anew give "
                    "--continual.start_sids=~"
                )

    @property
    def follows(self) -> bool:
        """Whether it learns from the collaborative vectors of every period."""
        return self.how in (FINETUNE, DRIFT_AWARE) and "cf_vectors" in self.signals

    def lasts(self, period: int) -> bool:
        """Whether it has SIDs of a period."""
        return self.files is None or period < len(self.files)

    def advance(
        self, items: PeriodItems, vectors: torch.Tensor | None
    ) -> tuple[ItemSIDs, dict[str, Any]]:
        """Go on to the next period.

        Args:
            items (PeriodItems): the period.
            vectors: collaborative vectors ``[n_items - 1, e]``, or None.

        Returns:
            tuple: ItemSIDs for a recommender, and a dict of figures: ``seconds``, ``churn`` (None
            in the first period), ``fit``.
        """
        tokens = items.content.item_tokens
        if self.files:  # read again each time, as a file may have changed
            table, figures = self._from_file(items, self.files[items.period])
            # All files so far: a recommender goes on from the period before.
            digest = hashlib.sha256("".join([*self.names[-1:], table.digest()]).encode())
            self.names.append(f"{FILES}-{digest.hexdigest()[:8]}")
        else:
            self.names.append(self.how if items.period else "start")
            table, figures = self._learned(items, vectors, items.folder / self.names[-1], tokens)
        self.table = table
        self._first = table.codes[1:] if self._first is None else self._first
        judged = ItemSIDs.judged(items.config, items.train, items.content, table, self.tokenizer)
        return judged, figures

    def _learned(
        self, items: PeriodItems, vectors: torch.Tensor | None, stem: Path, tokens: Sequence[str]
    ) -> tuple[SIDTable, dict[str, Any]]:
        """Table and figures of a period, found in its folder or made and kept there."""
        table_file, figures_file, tokenizer_file = (
            stem.with_suffix(end) for end in (".npz", ".json", ".tokenizer.pth")
        )

        def load(path: Path) -> tuple[SIDTable, dict[str, Any]]:
            self.tokenizer = self.tokenizer_class.load(tokenizer_file)
            self.tokenizer.to(self.config["device"])
            return SIDTable.load(table_file, tokens), read_json(path)

        def make() -> tuple[SIDTable, dict[str, Any]]:
            started = perf_counter()
            table, figures = self._make(items, vectors)
            table = replace(table, meta={**table.meta, "file": table_file.name})
            return table, {**figures, "seconds": perf_counter() - started}

        def save(path: Path, made: tuple[SIDTable, dict[str, Any]]) -> None:
            # Beside the table, also where it did not change: it codes items that come next.
            self.tokenizer.save(tokenizer_file)
            made[0].save(table_file, tokens)
            save_json(path, made[1])  # last: what is looked for

        return cached(figures_file, load, make, save, "give another --continual.dir")

    def _make(
        self, items: PeriodItems, vectors: torch.Tensor | None
    ) -> tuple[SIDTable, dict[str, Any]]:
        content = items.content.vectors
        if self.table is None:
            table, fit = self._start(items, vectors)
            return self._widened(table), {"churn": None, "fit": fit}
        learned, before = None, self.tokenizer.encode(content[1 : self.table.n_items]).cpu()
        if self.how != FROZEN:
            following = self.tokenizer_class(items.config, content.shape[1])
            following.to(self.config["device"])
            go_on = following.fit_continual if self.how == DRIFT_AWARE else following.fine_tune
            learned, _ = go_on(self.tokenizer, content[1:], vectors, self.config["show_progress"])
            self.tokenizer = following
        raw, old = self.tokenizer.encode(content[1:]).cpu(), self.table.codes[1:]
        keep = {FROZEN: 0, DRIFT_AWARE: self.config["keep_depth"]}.get(self.how)
        sizes, numbering = self.tokenizer.sizes, self.tokenizer.options["suffix_numbering"]
        if keep is None:  # every item takes its new codes
            new, sizes, _ = reassign(raw, old[:0], sizes, numbering=numbering)
        else:
            mode = self.config["suffix_mode"]
            # Given SIDs are not those of the tokenizer that was fitted to them.
            then = before if self.config["continual_start_sids"] else None
            new, sizes, _ = reassign(raw, old, sizes, keep, mode, numbering, then)
        meta = {
            "tokenizer": type(self.tokenizer).__name__,
            "options": dict(self.tokenizer.options),
            "content_levels": raw.shape[1],
            "before_policy": collision_figures(raw, self.tokenizer.sizes),
        }
        churn = self._churn(churn_of(raw, new, old, before), new)
        table = self._widened(SIDTable.from_item_codes(new, sizes, meta))
        return table, {"churn": churn, "fit": learned}

    def _start(
        self, items: PeriodItems, vectors: torch.Tensor | None
    ) -> tuple[SIDTable, dict[str, Any]]:
        """Tokenizer, table and figures of the first period: learned, or from what is given."""
        content, config = items.content.vectors, self.config
        sids, file = config["continual_start_sids"], config["continual_start_tokenizer"]
        if file:
            self.tokenizer = self.tokenizer_class.load(file).to(config["device"])
            if self.tokenizer.dim != content.shape[1]:
                raise ConfigError(
                    f"continual_start_tokenizer: {file} is for content of {self.tokenizer.dim} "
                    f"dimensions, that of this run has {content.shape[1]}"
                )
        else:
            self.tokenizer = self.tokenizer_class(items.config, content.shape[1])
        numbering = self.tokenizer.options["suffix_numbering"]
        if not sids:
            if file:
                table, fit = self.tokenizer.tokenize(content), {}
            else:
                signals, behaviour = self._signals(items, vectors), item_behaviour(items.train)
                table, report = fitted_table(
                    items.config, self.tokenizer, items.content, signals, behaviour
                )
                fit = report.figures
            if table.n_levels == table.meta["content_levels"]:  # a policy without suffix
                table = suffixed(table, numbering)
            return table, fit
        levels = len(self.tokenizer.sizes)
        table = given_table(config, sids, items.content.item_tokens)
        table = with_suffix_level(table, levels, numbering, sids)
        codes = table.codes[1:, :levels]
        if not file:
            self.tokenizer.to(config["device"])
            say("%s is fitted to the SIDs of %s", type(self.tokenizer).__name__, sids)
            fit = self.tokenizer.fit_codes(content[1:], codes, vectors, config["show_progress"])
        now = self.tokenizer.encode(content[1:]).cpu()
        shares = (now == codes).cumprod(1).double().mean(0).tolist()
        say(
            "The tokenizer gives %s of the items their first code in %s, %s their first %d; the "
            "others keep their SIDs too until it gives them another first code than now",
            f"{shares[0]:.1%}", sids, f"{shares[-1]:.1%}", levels,
        )  # fmt: skip
        meta = {
            "tokenizer": type(self.tokenizer).__name__, "options": dict(self.tokenizer.options),
            "content_levels": levels, "before_policy": collision_figures(codes, table.sizes[:-1]),
            **table.meta,
        }  # fmt: skip
        sizes = (*map(max, zip(self.tokenizer.sizes, table.sizes)), table.sizes[-1])
        return SIDTable.from_item_codes(table.codes[1:], sizes, meta), {} if file else fit

    def _signals(self, items: PeriodItems, vectors: torch.Tensor | None) -> dict[str, Any]:
        if "cf_vectors" in self.signals:
            return {"cf_vectors": vectors}
        return tokenizer_signals(items.config, items.train)()

    def _from_file(self, items: PeriodItems, path: str) -> tuple[SIDTable, dict[str, Any]]:
        table = self._widened(given_table(self.config, path, items.content.item_tokens))
        churn = None
        if self.table is not None:
            old = self.table.codes[1:]
            if table.n_levels != self.table.n_levels:
                raise ConfigError(
                    f"continual_sid_files: SIDs have {table.n_levels} levels in {path} and "
                    f"{self.table.n_levels} before; give the level that makes them unique in every "
                    "file"
                )
            codes = table.codes[1:]
            churn = self._churn(churn_of(codes[:, :-1], codes, old), codes)
        return table, {"churn": churn, "fit": None, "seconds": None}

    def _churn(self, churn: Churn, codes: torch.Tensor) -> dict[str, Any]:
        """As plain data, with the share of the first period's items whose SIDs, now ``codes``, are
        other ones than then: ``since_start``."""
        assert self._first is not None
        changed = (codes[: len(self._first)] != self._first).any(1)
        return {**dataclasses.asdict(churn), "since_start": float(changed.double().mean())}

    def _widened(self, table: SIDTable) -> SIDTable:
        """The table with the suffix level that all periods have."""
        size = self.config["continual_suffix_size"]
        if table.sizes[-1] > size:
            raise ConfigError(
                f"continual_suffix_size: {size} codes, and the items on one SID need "
                f"{table.sizes[-1]}; raise it, or use larger codebooks"
            )
        sizes = table.sizes[:-1]
        if self.files:  # most state no codebooks, and a later one may use more codes
            given = self.config["codebook_size"]
            given = LARGEST if given == AUTO else given
            given = given if isinstance(given, (list, tuple)) else [given] * len(sizes)
            sizes = tuple(map(max, zip(sizes, given)))
        return replace(table, sizes=(*sizes, size))


def log_churn(how: str | None, period: int, figures: dict[str, Any]) -> None:
    """Say how many of the old items changed their SIDs."""
    churn = figures["churn"]
    if churn is not None:
        logging.getLogger().info(
            "period %d, tokenizer %s: of old items %.1f %% have other codes by the tokenizer than "
            "before (levels %s), %.1f %% other ones than in the SIDs so far, %.1f %% other SIDs",
            period, how, 100 * churn["raw_any"],
            ", ".join(f"{100 * share:.1f}" for share in churn["raw"]), 100 * churn["served_any"],
            100 * churn["final_any"],
        )  # fmt: skip
