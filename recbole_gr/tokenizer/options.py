"""Options of a tokenizer: from a configuration to checked values."""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import TYPE_CHECKING, Any

from recbole_gr.config.given import option
from recbole_gr.config.schema import Key, check_settings
from recbole_gr.errors import ConfigError
from recbole_gr.sid.sizes import AUTO, LARGEST, auto_size

if TYPE_CHECKING:
    from recbole_gr.config import Settings


def options_of(
    config: Settings, defaults: Mapping[str, Any], keys: Mapping[str, Key]
) -> dict[str, Any]:
    """Values of all keys of ``defaults``; ``tokenizer_seed`` is an integer, by default ``seed``.

    Raises:
        ConfigError: a value that its key may not have.
    """
    given = {key: value for key in defaults if (value := option(config, key)) is not None}
    options = {**defaults, **check_settings(given, keys)}
    if options["tokenizer_seed"] is None:
        seed = option(config, "seed")
        options["tokenizer_seed"] = 2020 if seed is None else int(seed)
    return options


def codebook_sizes(codebook_size: Any, levels: int) -> tuple[int, ...]:
    """One codebook size per level from an integer, a list, or `auto`, which is 256 here: the
    catalogue is not known yet.

    Raises:
        ConfigError: a list of another length.
    """
    codebook_size = LARGEST if codebook_size == AUTO else codebook_size
    given = codebook_size if isinstance(codebook_size, (list, tuple)) else [codebook_size] * levels
    if len(given) != levels:
        raise ConfigError(
            f"codebook_size: {codebook_size!r} must be an integer, or {levels} of them (sid_levels)"
        )
    return tuple(given)


def reduced_sizes(codebook_size: Any, sizes: tuple[int, ...], n_items: int) -> tuple[int, ...]:
    """Sizes of the codebooks to use for a catalogue, none larger than it.

    Args:
        codebook_size (Any): the option; `auto` takes what suits the catalogue (`auto_size`).
        sizes (tuple[int, ...]): of `codebook_sizes`.
        n_items (int): that the tokenizer learns from.
    """
    if codebook_size == AUTO:
        sizes = (auto_size(n_items, len(sizes)),) * len(sizes)
    return tuple(min(size, n_items) for size in sizes)


def log_reduced(
    codebook_size: Any, before: tuple[int, ...], sizes: tuple[int, ...], n_items: int
) -> None:
    """Say that codebooks are smaller than asked for, or than usual, and why."""
    if codebook_size == AUTO:
        getLogger().info(
            "codebook_size: auto takes %d codes a level for %d items, in place of %d, so that "
            "items share codes of the first level and the others tell them apart",
            sizes[0], n_items, before[0],
        )  # fmt: skip
    else:
        getLogger().warning(
            "codebook_size: %s codes for %d items; reduced to %s", before, n_items, sizes
        )
