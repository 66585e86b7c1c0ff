"""Collision policies: items that share a SID.

======== ========================================================================================
suffix   one more level numbers the items of each SID; every SID becomes unique (TIGER, 3.1)
sinkhorn colliding items move to free codes of the last level, near ones first (LC-Rec, LETTER)
share    nothing: several items live on one SID
======== ========================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.sid.suffix import add_suffix, position_in_group
from recbole_gr.sid.table import sid_keys

POLICIES = ("suffix", "sinkhorn", "share")

#: From rows ``[n]`` to the distances ``[n, V]`` of these items to the codes of the last level.
Distances: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

_CHUNK_VALUES = 2**25  # transport plan entries held at once, 256 MiB in float64


def resolve(
    codes: torch.Tensor,
    sizes: Sequence[int],
    policy: str | Sequence[str],
    *,
    last_level_distances: Distances | None = None,
    epsilon: float = 0.003,
    iterations: int = 50,
    numbering: str | None = None,
    suffix_size: int | None = None,
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Apply collision policies to SIDs.

    Args:
        codes: LongTensor ``[N, L]``, one row per item in item-id order, no padding row.
        sizes: codebook size of each level.
        policy: ``suffix``, ``sinkhorn``, ``share``, or a list of them applied in turn, such as
            ``[sinkhorn, suffix]``.
        last_level_distances: function from a LongTensor of rows ``[n]`` to the distances
            ``[n, sizes[-1]]`` of these items to the codes of the last level, given their other
            codes; needed by ``sinkhorn``.
        epsilon, iterations: see :func:`sinkhorn`.
        numbering, suffix_size: see :func:`~recbole_gr.sid.suffix.add_suffix`.

    Returns:
        tuple: LongTensor ``[N, L]`` (``L + 1`` after ``suffix``) and the codebook sizes.

    Raises:
        ConfigError: unknown policy, or ``sinkhorn`` without distances.
    """
    for name in [policy] if isinstance(policy, str) else policy:
        if name not in POLICIES:
            raise ConfigError(
                f"collision: unknown policy '{name}'{did_you_mean(name, POLICIES)} "
                f"Policies: {', '.join(POLICIES)}"
            )
        if name == "suffix":
            codes, sizes = add_suffix(codes, sizes, numbering, suffix_size)
        elif name == "sinkhorn":
            if last_level_distances is None:
                raise ConfigError(
                    "collision: sinkhorn needs a tokenizer's distances; SIDs read from a file "
                    "can only use suffix or share"
                )
            codes = reassign_last_level(codes, sizes, last_level_distances, epsilon, iterations)
    return codes, tuple(sizes)


def reassign_last_level(
    codes: torch.Tensor,
    sizes: Sequence[int],
    last_level_distances: Distances,
    epsilon: float = 0.003,
    iterations: int = 50,
) -> torch.Tensor:
    """Move colliding items to free codes of the last level.

    Of the items that share a SID the nearest to its last code stays. The others of one prefix
    (all levels but the last) compete for the last-level codes that no item of the prefix uses:
    an entropic transport plan with at most one unit per code weighs their distances against each
    other (LC-Rec and LETTER use Sinkhorn for this), and the plan is rounded greedily, the largest
    entry first. Only items beyond a prefix's last free code still share a SID afterwards; their
    number is logged. The result depends on the arguments alone.

    Args and return value: as in :func:`resolve`; the sizes stay.
    """
    movers, prefixes, rank = _movers(codes, sizes, last_level_distances)
    if not len(movers):
        return codes
    codes, size = codes.clone(), sizes[-1]
    occupied = _occupied_codes(codes, sizes, movers, prefixes)
    free = size - occupied.offsets.diff()
    # A prefix with more movers than free codes keeps the surplus where it is; the most crowded
    # SIDs are relieved first.
    order = rank.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(rank, dtype=torch.bool)
    chosen[order] = position_in_group(prefixes[order]) < free[prefixes[order]]
    left = int((~chosen).sum())
    movers, prefixes = movers[chosen], prefixes[chosen]
    position = position_in_group(prefixes)
    counts = torch.bincount(prefixes, minlength=len(free))
    for group in _chunks_of_equal_size(counts, size):
        in_group = torch.full_like(counts, -1)
        in_group[group] = torch.arange(len(group), device=codes.device)
        here = (in_group[prefixes] >= 0).nonzero().squeeze(1)
        rows, slot = in_group[prefixes[here]], position[here]
        cost = codes.new_zeros((len(group), int(counts[group].max()), size), dtype=torch.float64)
        cost[rows, slot] = last_level_distances(movers[here]).to(cost)
        blocked = occupied.mask(group, size)
        present = torch.zeros(cost.shape[:2], dtype=torch.bool, device=codes.device)
        present[rows, slot] = True
        plan = sinkhorn(cost, present, blocked, epsilon, iterations)
        assigned = _round_plan(plan, present)
        codes[movers[here], -1] = assigned[rows, slot]
    if left:
        logging.getLogger().warning(
            "sinkhorn: %d items still share a SID: their prefixes hold more items than the last "
            "level has codes (%d)",
            left,
            size,
        )
    return codes


def sinkhorn(
    cost: torch.Tensor,
    present: torch.Tensor,
    blocked: torch.Tensor,
    epsilon: float = 0.003,
    iterations: int = 50,
) -> torch.Tensor:
    """Entropic transport plans of items to codes, at most one item per code.

    Costs are scaled to [0, 1] within each problem. Rows are scaled to mass 1, columns to mass 1
    or less, in turn (Sinkhorn iterations in the log domain, Bregman projections).

    Args:
        cost: float tensor ``[G, m, V]`` of G problems with up to m items and V codes.
        present: BoolTensor ``[G, m]``, the rows that are items.
        blocked: BoolTensor ``[G, V]``, codes not to be used.
        epsilon: entropy relative to the scaled costs; small values come near the best assignment.
        iterations: row and column scalings.

    Returns:
        float tensor ``[G, m, V]``, log of the plan; -inf for blocked codes and absent rows.
    """
    shut = blocked[:, None, :] | ~present[:, :, None]
    low = cost.masked_fill(shut, torch.inf).amin((1, 2), keepdim=True)
    high = cost.masked_fill(shut, -torch.inf).amax((1, 2), keepdim=True)
    plan = ((low - cost) / (high - low).clamp(min=1e-12) / epsilon).masked_fill(shut, -torch.inf)
    for _ in range(iterations):
        plan = plan - plan.logsumexp(2, keepdim=True).clamp(min=-1e300)
        plan = plan - plan.logsumexp(1, keepdim=True).clamp(min=0)
    return plan


def _round_plan(plan: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Distinct codes ``[G, m]`` from a log plan: each item takes its best code still free.

    Where several items want one code, the larger entry wins and ties go to the lower row; the
    others choose again. Each round places at least one item per problem.
    """
    n_groups, n_rows, n_codes = plan.shape
    plan = plan.clone()
    assigned = torch.full((n_groups, n_rows), -1, device=plan.device)
    waiting = present.clone()
    codes = torch.arange(n_codes, device=plan.device)
    slots = torch.arange(n_rows, device=plan.device)
    while bool(waiting.any()):
        best = plan.amax(2)  # [G, m]
        # The lowest code of equal entries, whatever the device's argmax would return.
        wish = torch.where(plan == best[:, :, None], codes, n_codes).amin(2).clamp(max=n_codes - 1)
        wanted = torch.nn.functional.one_hot(wish, n_codes).bool() & waiting[:, :, None]
        bids = torch.where(wanted, best[:, :, None], -torch.inf)
        top = wanted & (bids == bids.amax(1, keepdim=True))
        winner = torch.where(top, slots[:, None], n_rows).amin(1)  # [G, V], n_rows = nobody
        group, code = (winner < n_rows).nonzero().unbind(1)
        row = winner[group, code]
        assigned[group, row] = code
        waiting[group, row] = False
        plan.transpose(1, 2)[group, code] = -torch.inf
    return assigned


def _movers(
    codes: torch.Tensor, sizes: Sequence[int], last_level_distances: Distances
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colliding items that must move.

    Returns:
        tuple: three LongTensors ``[M]``: the rows, ascending; the index of each one's prefix; and
        its rank on its SID, 1 for the nearest after the item that stays.
    """
    keys = sid_keys(codes, sizes)
    _, group, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    rows = (counts[group] > 1).nonzero().squeeze(1)
    if not len(rows):
        return rows, rows, rows
    own = torch.cat(
        [
            last_level_distances(part).gather(1, codes[part, -1:]).squeeze(1)
            for part in rows.split(max(1, _CHUNK_VALUES // sizes[-1]))
        ]
    )
    # Nearest first inside each group; rows are ascending, so equal distances keep item order.
    order = own.argsort(stable=True)
    position = torch.empty_like(rows)
    position[order] = position_in_group(group[rows[order]])
    movers, rank = rows[position > 0], position[position > 0]
    prefixes = sid_keys(codes[movers][:, :-1], sizes[:-1])
    return movers, torch.unique(prefixes, return_inverse=True)[1], rank


class _Occupied:
    """Last-level codes in use under some prefixes, as compressed sparse rows."""

    def __init__(
        self, prefixes: torch.Tensor, codes: torch.Tensor, n_prefixes: int, size: int
    ) -> None:
        pairs = torch.unique(prefixes * size + codes)
        self.codes = pairs % size
        counts = torch.bincount(pairs // size, minlength=n_prefixes)
        self.offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def mask(self, prefixes: torch.Tensor, size: int) -> torch.Tensor:
        """BoolTensor ``[len(prefixes), size]``, True where a code is used."""
        starts, counts = self.offsets[prefixes], self.offsets.diff()[prefixes]
        row = torch.repeat_interleave(torch.arange(len(prefixes), device=starts.device), counts)
        first = counts.cumsum(0) - counts
        column = torch.arange(len(row), device=starts.device) - first[row] + starts[row]
        mask = torch.zeros((len(prefixes), size), dtype=torch.bool, device=starts.device)
        mask[row, self.codes[column]] = True
        return mask


def _occupied_codes(
    codes: torch.Tensor, sizes: Sequence[int], movers: torch.Tensor, prefixes: torch.Tensor
) -> _Occupied:
    """Codes used by the items of the movers' prefixes (movers share theirs with one that stays)."""
    keys = sid_keys(codes[:, :-1], sizes[:-1])
    wanted = torch.zeros(int(prefixes.max()) + 1, dtype=torch.int64, device=codes.device)
    wanted[prefixes] = keys[movers]
    order = wanted.argsort()
    index = torch.searchsorted(wanted[order], keys).clamp(max=len(wanted) - 1)
    hit = wanted[order][index] == keys
    return _Occupied(order[index[hit]], codes[hit, -1], len(wanted), sizes[-1])


def _chunks_of_equal_size(counts: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Split the groups with movers into lists of like-sized groups that fit in memory."""
    groups = counts.argsort(stable=True)
    groups = groups[counts[groups] > 0]
    costs = (counts[groups] * size).tolist()
    start = 0
    for end in range(1, len(costs) + 1):
        # Sizes ascend, so the padded chunk costs its last group's size times its length.
        full = end == len(costs) or costs[end] * (end + 1 - start) > _CHUNK_VALUES
        if full or costs[end] > 2 * costs[start]:
            yield groups[start:end]
            start = end
