"""Codebook sizes of the levels: as asked for, and as a catalogue allows."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from recbole_gr.errors import ConfigError

AUTO = "auto"  # codebook_size: by the catalogue
LARGEST = 256  # of it
_ITEMS_PER_CODE = 4  # at least, on the first level


def auto_size(n_items: int, levels: int) -> int:
    """Codes of each level that suit a catalogue: 256, or fewer where there are few items.

    SIDs are of use where items share codes: with as many codes as items the first level tells them
    all apart, the others carry nothing, and a recommender learns of each item alone. So a code of
    the first level has at least four items on average; and the codes of all levels make twice as
    many SIDs as there are items, or more. Both are powers of two, as OPQ needs.

    Args:
        n_items (int): that the tokenizer learns from.
        levels (int): of a SID.

    Returns:
        int: 256 from 1,024 items on; of three levels 32 for 200 items, 8 for 60, 4 for 20.
    """
    size = max(2 ** ((n_items // _ITEMS_PER_CODE).bit_length() - 1), 2) if n_items > 3 else 2
    while size**levels < 2 * n_items and size < LARGEST:
        size *= 2
    return min(size, LARGEST)


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
