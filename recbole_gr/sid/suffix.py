"""The level that numbers the items of each SID, so that every SID becomes unique."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.sid.table import sid_keys

FROM_ZERO, ALONE_IS_ZERO = NUMBERINGS = ("from_zero", "alone_is_zero")


def add_suffix(
    codes: torch.Tensor,
    sizes: Sequence[int],
    numbering: str | None = None,
    suffix_size: int | None = None,
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Append a level that numbers the items of each SID (TIGER, section 3.1).

    The level is added even where no item collides, so that the number of levels does not depend on
    luck; its codebook is as large as the numbers need.

    Args:
        codes: LongTensor ``[N, L]``, one row per item in item-id order, no padding row.
        sizes: codebook size of each level.
        numbering: of ``NUMBERINGS``; None is the first. ``from_zero``: the first item of a SID, by
            item id, gets 0, the next 1, and so on. ``alone_is_zero`` (IntRR's released code): they
            get 1, 2, ..., and an item that shares its SID with none 0.
        suffix_size: codes of the new level at least.

    Returns:
        tuple: LongTensor ``[N, L + 1]`` and the sizes with the new level's.

    Raises:
        ConfigError: unknown numbering.
    """
    keys = sid_keys(codes, sizes)
    digits = position_in_group(keys)
    if counts_from_one(numbering):
        _, index, counts = torch.unique(keys, return_inverse=True, return_counts=True)
        digits = torch.where(counts[index] > 1, digits + 1, 0)
    size = max(int(digits.max()) + 1, suffix_size or 1)
    return torch.cat([codes, digits[:, None]], 1), (*sizes, size)


def counts_from_one(numbering: str | None) -> bool:
    """Whether the items of a SID that several have are numbered from 1.

    Raises:
        ConfigError: unknown numbering.
    """
    if numbering not in (None, *NUMBERINGS):
        raise ConfigError(
            f"suffix_numbering: unknown '{numbering}'{did_you_mean(str(numbering), NUMBERINGS)} "
            f"Numberings: {', '.join(NUMBERINGS)}"
        )
    return numbering == ALONE_IS_ZERO


def position_in_group(keys: torch.Tensor) -> torch.Tensor:
    """0 for the first row of each distinct key, 1 for the second, ... in row order."""
    order = keys.argsort(stable=True)
    ordered = keys[order]
    rank = torch.arange(len(keys), device=keys.device)
    is_start = torch.ones_like(ordered, dtype=torch.bool)
    is_start[1:] = ordered[1:] != ordered[:-1]
    start = torch.where(is_start, rank, 0).cummax(0).values
    position = torch.empty_like(keys)
    position[order] = rank - start
    return position


def is_suffix(codes: torch.Tensor, sizes: Sequence[int]) -> bool:
    """Whether the last level only numbers the items of each SID, in either ``numbering``.

    A table from elsewhere does not say where its levels come from. Where every SID before the last
    level has as many items as any other, more than one, this may as well be a full grid of codes,
    and the answer is no.

    Args:
        codes: LongTensor ``[N, L]``.
        sizes: codebook size of each level.
    """
    if codes.shape[1] < 2:
        return False
    ordered = codes[sid_keys(codes, sizes).argsort()]
    before, last = ordered[:, :-1], ordered[:, -1]
    counts = torch.unique(sid_keys(before, sizes[:-1]), return_counts=True)[1]
    if len(counts) > 1 and int(counts.min()) == int(counts.max()) > 1:
        return False
    found = (add_suffix(before, sizes[:-1], numbering)[0] for numbering in NUMBERINGS)
    return any(torch.equal(numbered[:, -1], last) for numbered in found)
