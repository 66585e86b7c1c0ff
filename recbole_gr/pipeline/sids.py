"""The SID table of a run, from item content and a configuration."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recbole_gr.compat import installed
from recbole_gr.config.user_settings import option
from recbole_gr.errors import ConfigError
from recbole_gr.quality.assessment import assess
from recbole_gr.quality.measures import collision_figures
from recbole_gr.registry import get_tokenizer
from recbole_gr.sid.collision import resolve
from recbole_gr.sid.exchange import read_json, read_npy, write_json, write_npy
from recbole_gr.sid.suffix import FROM_ZERO
from recbole_gr.sid.table import SIDTable
from recbole_gr.storage.cache import cached
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.hashes import digest_of
from recbole_gr.storage.memory import peak_memory
from recbole_gr.terminal.log import brief, say
from recbole_gr.untrusted.archives import load_npy

if TYPE_CHECKING:
    from recbole_gr.config import Settings
    from recbole_gr.data.content import ItemContent
    from recbole_gr.quality.assessment import Behaviour
    from recbole_gr.quality.measures import QualityReport
    from recbole_gr.tokenizer.base import Tokenizer
    from recbole_gr.tokenizer.fitting import FitReport, Signals

# Part of every cache key: raise it when a tokenizer gives other codes for the same options.
_VERSION = 3
# Options that came since, with what was before: tables of then are found.
_BEFORE: dict[str, Any] = {"suffix_numbering": FROM_ZERO, "suffix_size": None}
_BEFORE |= {"tokenizer_schedule": "capped", "reconstruction_variance": 0.0}


def prepare_sid(
    config: Settings,
    content: ItemContent,
    signals: Callable[[], Signals] | None = None,
    behaviour: Behaviour | None = None,
) -> tuple[SIDTable, QualityReport]:
    """The SIDs of a run: read from ``sid_file``, found in the cache, or learned from content.

    Learned tables are kept in ``sid_dir`` under the hash of everything they depend on: content,
    items, tokenizer and its options with the seed. The fitted tokenizer lies beside the table.

    Args:
        config: RecBole's ``Config`` or a dictionary.
        content: item content with ``vectors [n_items, d]`` (row 0 is padding), ``digest`` and
            ``item_tokens`` (``n_items`` strings).
        signals: function that returns what the tokenizer learns from beside content, tensors by
            name (see ``recbole_gr.pipeline.signals``); not called where SIDs are read from a file.
        behaviour: :class:`~recbole_gr.quality.assessment.Behaviour` of the training split, for
            the report and for ``fit_items: train``, with which a tokenizer learns from items with
            training interactions alone and the others get their SIDs by content.

    Returns:
        tuple: SIDTable and its QualityReport, which is also logged.

    Raises:
        ConfigError: unusable options, content or SID file.
    """
    if option(config, "sid_file"):
        table = read_sid_file(config, content.item_tokens)
        _warn_of_other_content(config, table, content)
        report = judged(config, table, content, None, behaviour)
    else:
        # Made before its signals, which may take a training: its options are checked here.
        name = option(config, "tokenizer") or "RKMeans"
        tokenizer = get_tokenizer(name)(config, content.vectors.shape[1])
        given = signals() if signals else {}
        table, report = _learned_table(config, tokenizer, content, given, behaviour)
    text = report.to_text()
    logging.getLogger().info(text, extra=brief(text.partition("\n")[0]))
    return table, report


def read_sid_file(config: Settings, item_tokens: Sequence[str]) -> SIDTable:
    """Table from the ``.json``, ``.npy`` or ``.npz`` file that ``sid_file`` names.

    The rows of a ``.npy`` file are the lines of the data set's ``.item`` file if there are equally
    many, and otherwise the items in the order of their internal ids. Unique SIDs are taken as
    they are; where items share SIDs, the policy ``collision`` applies (suffix or share).

    Args:
        config: RecBole's ``Config`` or a dictionary.
        item_tokens: item tokens by internal id (entry 0 is the padding token).

    Raises:
        ConfigError: missing or malformed file, or items without a SID.
    """
    path = Path(option(config, "sid_file"))
    if not path.is_file():
        raise ConfigError(f"sid_file {path} does not exist")
    if path.suffix == ".json":
        table = read_json(path, item_tokens)
    elif path.suffix == ".npy":
        table = read_npy(path, _npy_rows(config, path), item_tokens)
    elif path.suffix == ".npz":
        table = SIDTable.load(path, item_tokens)
    else:
        raise ConfigError(f"sid_file {path}: the name must end in .json, .npy or .npz")
    before = collision_figures(table.codes[1:], table.sizes)
    if not before["collision_rate"]:
        return table
    policy, numbering = option(config, "collision") or "suffix", option(config, "suffix_numbering")
    numbers = {"numbering": numbering, "suffix_size": option(config, "suffix_size")}
    codes, sizes = resolve(table.codes[1:], table.sizes, policy, **numbers)
    options = {**table.meta.get("options", {}), "suffix_numbering": numbering}
    meta = {**table.meta, "options": options, "before_policy": before}
    meta["content_levels"] = table.content_levels
    return SIDTable.from_item_codes(codes, sizes, meta)


def item_file_tokens(config: Settings) -> list[str] | None:
    """Item tokens in the order of the data set's ``.item`` file; None if there is no such file."""
    folder, dataset = option(config, "data_path"), option(config, "dataset")
    if not folder or not os.path.isfile(os.path.join(folder, f"{dataset}.item")):
        return None
    from recbole_gr.data.item_file import ItemFile

    file = ItemFile(config)
    return file.cells[file.id_field].tolist()


def write_sids(
    folder: str | Path,
    config: Settings,
    table: SIDTable,
    report: QualityReport,
    item_tokens: Sequence[str],
) -> list[Path]:
    """Write a table and its report for people and other programs.

    Files: ``sid.json`` (LETTER, LC-Rec, MiniOneRec), ``sid.npy`` (rows as :func:`read_sid_file`
    reads them), ``sid.npz`` (this library's own), ``report.txt``, ``.json`` and ``.png``.

    Args:
        folder: made if missing.
        config: RecBole's ``Config`` or a dictionary.
        table, report: of :func:`prepare_sid`.
        item_tokens: item tokens by internal id.

    Returns:
        list: the paths written.
    """
    from recbole_gr.quality.plot import plot_quality

    folder = Path(folder)
    write_json(table, folder / "sid.json", item_tokens)
    write_npy(table, folder / "sid.npy", item_file_tokens(config), item_tokens)
    table.save(folder / "sid.npz", item_tokens)
    with atomic_write(folder / "report.txt") as temporary:
        temporary.write_text(report.to_text() + "\n", encoding="utf-8")
    report.to_json(folder / "report.json")
    plot_quality(table, folder / "report.png", report)
    names = ("sid.json", "sid.npy", "sid.npz", "report.txt", "report.json", "report.png")
    return [folder / name for name in names]


def judged(
    config: Settings,
    table: SIDTable,
    content: ItemContent,
    tokenizer: Tokenizer | None = None,
    behaviour: Behaviour | None = None,
) -> QualityReport:
    """The quality of a table as the keys ``report_neighbours`` and ``report_queries`` ask for it.

    Args:
        config, content, behaviour: as for :func:`prepare_sid`.
        table: of these items.
        tokenizer: that made it, fitted; None where that is not known.
    """
    keys = ("neighbours", "queries")
    asked = {key: option(config, f"report_{key}") for key in keys}
    asked = {key: value for key, value in asked.items() if value is not None}
    return assess(table, content.vectors, tokenizer, behaviour, **asked)


def fitted_table(
    config: Settings,
    tokenizer: Tokenizer,
    content: ItemContent,
    signals: Signals,
    behaviour: Behaviour | None = None,
) -> tuple[SIDTable, FitReport]:
    """Fit a new tokenizer, on the configured device, and tokenize all items with it.

    Args:
        tokenizer: not fitted yet.
        signals: what it learns from beside content.
        config, content, behaviour: as for :func:`prepare_sid`.
    """
    show = option(config, "show_progress")
    tokenizer.to(option(config, "device") or "cpu")
    items, seen = content.vectors[1:], _seen_items(config, behaviour)
    if seen is not None:
        items, signals = items[seen], _signals_of(seen, signals)
    say("%s learns SIDs of %s items", type(tokenizer).__name__, f"{len(items):,}")
    fit = tokenizer.fit(items, signals=signals, progress=True if show is None else bool(show))
    return tokenizer.tokenize(content.vectors), fit


def _learned_table(
    config: Settings,
    tokenizer: Tokenizer,
    content: ItemContent,
    signals: Signals,
    behaviour: Behaviour | None,
) -> tuple[SIDTable, QualityReport]:
    """The table of `tokenizer` and its report, from the cache or learned and kept there."""

    def load(path: Path) -> tuple[SIDTable, QualityReport]:
        table = SIDTable.load(path, content.item_tokens)
        # The report can do without the tokenizer.
        beside = tokenizer_file(path)
        fitted = type(tokenizer).load(beside) if beside.is_file() else None
        say("SIDs from %s", path)
        return table, judged(config, table, content, fitted, behaviour)

    def make() -> tuple[SIDTable, QualityReport]:
        table, fit = fitted_table(config, tokenizer, content, signals, behaviour)
        about = {
            "seconds": fit.seconds,
            "peak_memory_bytes": peak_memory(tokenizer.device),
            **fit.figures,
        }
        report = judged(config, table, content, tokenizer, behaviour)
        figures = {key: value for key, value in report.to_dict().items() if key != "meta"}
        meta = {**table.meta, "content": content.digest, "fit": about, "report": figures}
        report.meta.update(content=content.digest, fit=about)
        logging.getLogger().info(
            "%s learned SIDs in %.1f s: %s", fit.tokenizer, fit.seconds, fit.figures,
            extra=brief(f"{fit.tokenizer} learned SIDs in {fit.seconds:.1f} s"),
        )  # fmt: skip
        return replace(table, meta=meta), report

    def save(path: Path, made: tuple[SIDTable, QualityReport]) -> None:
        tokenizer.save(tokenizer_file(path))
        try:
            made[0].save(path, content.item_tokens)
        except BaseException:  # a tokenizer without its table is of no use
            tokenizer_file(path).unlink(missing_ok=True)
            raise
        logging.getLogger().info("SIDs are kept in %s", path)

    name = _cache_name(config, tokenizer, content, signals, _seen_items(config, behaviour))
    path = Path(option(config, "sid_dir") or "saved/sid", name)
    table, report = cached(path, load, make, save, "set another sid_dir")
    # By this name its tokenizer is found for items that come later.
    return replace(table, meta={**table.meta, "file": path.name}), report


def tokenizer_file(path: str | Path) -> Path:
    """Where the fitted tokenizer of the table ``path`` is kept."""
    return Path(path).with_suffix(".tokenizer.pth")


def _warn_of_other_content(config: Settings, table: SIDTable, content: ItemContent) -> None:
    learned_from = table.meta.get("content")
    if learned_from and learned_from != content.digest:
        logging.getLogger().warning(
            "sid_file %s was learned from other item content than this run's", config["sid_file"]
        )


def _seen_items(config: Settings, behaviour: Behaviour | None) -> torch.Tensor | None:
    """BoolTensor ``[n_items - 1]``, items that the tokenizer may learn from; None for all."""
    if (option(config, "fit_items") or "all") == "all":
        return None
    if behaviour is None or not bool((behaviour.counts > 0).any()):
        raise ConfigError("fit_items=train needs training interactions, which are not given here")
    return behaviour.counts > 0


def _signals_of(seen: torch.Tensor, signals: Signals) -> Signals:
    """Signals of the seen items alone; rows of ``item_pairs`` are numbered again."""
    place = torch.where(seen, seen.cumsum(0) - 1, -1)
    pairs = {n: place[p] for n, p in signals.items() if n == "item_pairs"}
    rest = {n: s[seen] for n, s in signals.items() if n != "item_pairs"}
    return {**rest, **{n: p[(p >= 0).all(1)] for n, p in pairs.items()}}


def _cache_name(
    config: Settings,
    tokenizer: Tokenizer,
    content: ItemContent,
    signals: Signals,
    seen: torch.Tensor | None,
) -> str:
    """File name that differs wherever the SIDs could."""
    name = type(tokenizer).__name__
    # Training and k-means of another release, or on another kind of device, give other codes.
    by = [installed("torch", "faiss"), torch.device(option(config, "device") or "cpu").type]
    given = tokenizer.options.items()
    options = {k: value for k, value in given if k not in _BEFORE or value != _BEFORE[k]}
    made_by = [type(tokenizer).__module__, name, options, by]
    tokens = list(map(str, content.item_tokens))
    digest = digest_of(_VERSION, made_by, content.digest, tokens, dict(signals), seen)
    return f"{option(config, 'dataset') or 'items'}-{name}-{digest[:16]}.npz"


def _npy_rows(config: Settings, path: str | Path) -> list[str] | None:
    tokens = item_file_tokens(config)
    try:
        n_rows = len(load_npy(path, mmap=True))
    except (OSError, ValueError, TypeError):
        return None  # read_npy reports what is wrong with the file
    return tokens if tokens is not None and len(tokens) == n_rows else None
