"""SIDs of a new period: items that keep theirs, and unique new ones for the others.

Source: DACT (arXiv 2603.29705), hierarchical code reassignment, as its published code does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from recbole_gr.errors import ConfigError
from recbole_gr.sid.suffix import add_suffix, counts_from_one
from recbole_gr.sid.table import sid_keys

SUFFIX_MODES = ("unique", "repo")


@dataclass
class Churn:
    """How many of the old items changed their SIDs, as shares.

    Attributes:
        raw: by level of the new tokenizer's codes, against those that the tokenizer before gives;
            both as they are before Sinkhorn or a suffix makes SIDs of them.
        raw_any: any of these levels.
        served: by level of the new tokenizer's codes, against the old SIDs, which Sinkhorn may have
            moved away from what the tokenizer before gives.
        served_any: any of these levels.
        final: by level of the SIDs after reassignment, against the old ones; the suffix last.
        final_any: any level.
    """

    raw: list[float]
    raw_any: float
    served: list[float]
    served_any: float
    final: list[float]
    final_any: float


def reassign(
    raw: torch.Tensor,
    old: torch.Tensor,
    sizes: Sequence[int],
    keep_depth: int = 1,
    suffix_mode: str = "unique",
    numbering: str | None = None,
    before: torch.Tensor | None = None,
) -> tuple[torch.Tensor, tuple[int, ...], Churn]:
    """Merge the codes of a new tokenizer with the SIDs that items already have.

    An old item keeps its whole SID, suffix included, where the new codes agree with it on the
    first ``keep_depth`` levels; else it takes its new codes, as new items do. The comparison is
    with the stored SIDs, not with what the old tokenizer would say now.

    Suffixes: ``unique`` gives each item that does not keep its SID, in item-id order, the least
    suffix that no other item under its codes has. ``repo`` numbers the raw codes of all items and
    then puts the kept SIDs over them, as the authors' code does: a kept and a changed item may end
    on one SID (3 pairs in their published table). With the numbering ``alone_is_zero`` the least
    suffix is 1, and 0 where no other item is under the codes.

    Args:
        raw: LongTensor ``[N, L]`` codes of all items by the new tokenizer, in item-id order.
        old: LongTensor ``[n, L + 1]`` SIDs of the first ``n <= N`` items, suffix last.
        sizes: codebook sizes of the ``L`` levels.
        keep_depth: 1 in DACT; 0 freezes all old SIDs; ``L`` keeps exact matches alone.
        suffix_mode: ``unique`` or ``repo``.
        numbering: see :func:`~recbole_gr.sid.suffix.add_suffix`.
        before: LongTensor ``[n, L]`` to compare with in place of the stored SIDs: the codes of the
            tokenizer before, where the SIDs are not its own.

    Returns:
        tuple: LongTensor ``[N, L + 1]``, its codebook sizes, and :class:`Churn`.

    Raises:
        ConfigError: shapes or options that do not fit.
    """
    n_levels, n_old = raw.shape[1], len(old)
    if old.shape[1] != n_levels + 1 or n_old > len(raw) or len(sizes) != n_levels:
        raise ConfigError(
            f"old SIDs {list(old.shape)} do not fit new codes {list(raw.shape)}: they need one "
            "level more, the suffix, and no more items"
        )
    whole = isinstance(keep_depth, int) and not isinstance(keep_depth, bool)
    if not whole or not 0 <= keep_depth <= n_levels:
        raise ConfigError(f"keep_depth: {keep_depth!r} must be an integer from 0 to {n_levels}")
    if suffix_mode not in SUFFIX_MODES:
        raise ConfigError(f"suffix_mode: {suffix_mode!r} is not one of {', '.join(SUFFIX_MODES)}")
    kept = torch.zeros(len(raw), dtype=torch.bool)
    then = old if before is None else before
    kept[:n_old] = (raw[:n_old, :keep_depth] == then[:, :keep_depth]).all(1)
    stored = torch.nn.functional.pad(old, (0, 0, 0, len(raw) - n_old))
    codes = torch.where(kept.unsqueeze(1), stored[:, :-1], raw)
    if suffix_mode == "repo":
        suffix = add_suffix(raw, sizes, numbering)[0][:, -1]
    else:
        first = int(counts_from_one(numbering))
        suffix = _free_suffixes(sid_keys(codes, sizes), stored[:, -1], kept, first)
    suffix = torch.where(kept, stored[:, -1], suffix)
    new = torch.cat([codes, suffix.unsqueeze(1)], 1)
    size = max(int(suffix.max()), int(old[:, -1].max()) if n_old else 0) + 1
    return new, (*sizes, size), churn_of(raw, new, old)


def churn_of(
    raw: torch.Tensor, new: torch.Tensor, old: torch.Tensor, before: torch.Tensor | None = None
) -> Churn:
    """:class:`Churn` from new codes ``[N, L]``, new SIDs ``[N, L + 1]``, old ones ``[n, L + 1]``
    and the codes ``[n, L]`` of the tokenizer before, by default those of the old SIDs."""
    served = old[:, :-1]
    now = raw[: len(old)]
    changes = (now != (served if before is None else before), now != served, new[: len(old)] != old)
    raw_by, served_by, final_by = map(_shares, changes)
    raw_any, served_any, final_any = (_share(change.any(1)) for change in changes)
    return Churn(raw_by, raw_any, served_by, served_any, final_by, final_any)


def _free_suffixes(
    group: torch.Tensor, suffix: torch.Tensor, kept: torch.Tensor, first: int
) -> torch.Tensor:
    """For the rows that are not ``kept``, in order, the least suffixes free in their groups, from
    ``first`` on; 0 for a row that is a group of its own.

    The j-th new item of a group takes the j-th number that no kept row of it has: that number is
    ``j`` plus the kept ones that lie below it.

    Args:
        group: LongTensor ``[N]`` equal where codes are equal.
        suffix: LongTensor ``[N]`` of the kept rows.
        kept: BoolTensor ``[N]``.
        first: 0 or 1.
    """
    _, group, counts = torch.unique(group, return_inverse=True, return_counts=True)
    new_items = (~kept).nonzero().squeeze(1)
    kept, suffix = kept & (suffix >= first), suffix - first
    n_groups = int(group.max()) + 1
    # Free numbers come before a kept suffix s: s minus the kept ones below it.
    order = torch.argsort(suffix[kept], stable=True)
    rows = kept.nonzero().squeeze(1)[order]
    rows = rows[torch.argsort(group[rows], stable=True)]  # by group, then by suffix
    below = _place_in_group(group[rows])
    span = int(suffix.max()) + len(group) + 2
    free_before = group[rows] * span + suffix[rows] - below
    new_items = new_items[torch.argsort(group[new_items], stable=True)]
    place = _place_in_group(group[new_items])  # j
    # The kept rows with at most j free numbers before them push the j-th free number up by one.
    passed = torch.searchsorted(free_before, group[new_items] * span + place, right=True)
    starts = torch.searchsorted(group[rows], torch.arange(n_groups))
    result = torch.zeros_like(suffix)
    result[new_items] = place + passed - starts[group[new_items]] + first
    return torch.where(counts[group] > 1, result, 0)


def _place_in_group(sorted_groups: torch.Tensor) -> torch.Tensor:
    """0, 1, 2, ... within each run of equal values."""
    row = torch.arange(len(sorted_groups))
    opens = torch.ones(len(sorted_groups), dtype=torch.bool)
    opens[1:] = sorted_groups[1:] != sorted_groups[:-1]
    if not len(row):
        return row
    return row - torch.where(opens, row, 0).cummax(0).values


def _share(values: torch.Tensor) -> float:
    return float(values.double().mean()) if len(values) else 0.0


def _shares(values: torch.Tensor) -> list[float]:
    return [_share(column) for column in values.unbind(1)]
