"""Moves of items to other SIDs: where they could go, what it would gain, and which SID is free.

All is of whole tensors, ours throughout (after the idea of Grevo, arXiv 2607.25329: candidates from
behavioural neighbours and codes of low load, few items a round).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_gr.sid.table import sid_keys

MOST_COMPARED = 1 << 15  # items that neighbours are looked for among
MOST_MOVES = 1 << 17  # in a round
CHUNK = 4096
FEW = 2.0  # held-out targets that an item's own variance is mixed with the pooled one by


def held_out(users: Tensor, n_folds: int, fold: int) -> Tensor:
    """``[...]`` bool: whether each user is of a fold, one of about equally large ones."""
    mixed = (users * 0x9E3779B1) & 0xFFFFFFFF
    return (mixed >> 7) % n_folds == fold


def half_of(users: Tensor, n_folds: int) -> Tensor:
    """``[...]`` which half of its fold each user is of, 0 or 1."""
    mixed = (users * 0x9E3779B1) & 0xFFFFFFFF
    return (mixed >> 7) // n_folds % 2


@torch.no_grad()
def nearest_items(vectors: Tensor, n: int, seed: int = 0) -> Tensor:
    """``[n_items, n]`` the items of the highest cosine to each, itself left out, 0 where there are
    none; row 0 is padding. Of very many items a random part is looked through, another by each
    ``seed``, so that time stays linear in the catalogue."""
    vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
    n_items = len(vectors)
    among = torch.arange(1, n_items, device=vectors.device)
    if len(among) > MOST_COMPARED:
        order = torch.randperm(len(among), generator=torch.Generator().manual_seed(seed))
        among = among[order[:MOST_COMPARED].sort().values.to(among.device)]
    near = torch.zeros(n_items, n, dtype=torch.long, device=vectors.device)
    n_found = min(n, len(among) - 1)
    for chunk in torch.arange(1, n_items, device=vectors.device).split(CHUNK):
        likeness = vectors[chunk] @ vectors[among].T
        likeness.masked_fill_(chunk.unsqueeze(1) == among, float("-inf"))
        near[chunk, :n_found] = among[likeness.topk(n_found, dim=1).indices]
    return near


def prefix_mass(codes: Tensor, mass: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[n, L - 1]`` the mass ``[n]`` of all items below each item's prefix of 1, 2, ... codes."""
    columns = []
    for depth in range(1, len(sizes)):
        _, group = torch.unique(sid_keys(codes[:, :depth], sizes[:depth]), return_inverse=True)
        columns.append(torch.zeros_like(mass).index_add(0, group, mass)[group])
    return torch.stack(columns, 1) if columns else mass.new_zeros(len(mass), 0)


def lower_bounds(sums: Tensor, squares: Tensor, count: Tensor, margin: float) -> Tensor:
    """Mean gain less ``margin`` standard errors, ``[..., n, M, D]``; -inf without a target.

    The variance of an item with few targets is mixed with that of all.

    Args:
        sums, squares: ``[..., n, M, D]`` of the gains of its held-out targets.
        count: ``[..., n]`` targets.
    """
    n = count[..., None, None]
    mean = sums / n.clamp_min(1)
    spread = (squares - sums * mean).clamp_min(0)
    free = (n - 1).clamp_min(0)
    pooled = spread.flatten(0, -2).sum(0) / (free.sum() * sums.shape[-2]).clamp_min(1)  # [D]
    variance = (spread + FEW * pooled) / (free + FEW)
    bound = mean - margin * (variance / n.clamp_min(1)).sqrt()
    return bound.masked_fill(n == 0, float("-inf"))


def of_mass(
    codes: Tensor, near: Tensor, mass: Tensor, sizes: Sequence[int], of_items: bool = False
) -> Tensor:
    """What each item's prefixes would say more of it, or less, if it moved below its neighbours'.

    A prefix says more of an item the better it is predicted for the item's users and the fewer
    other items it stands for. Beside the gain in ``-log P(prefix | user)`` therefore counts
    ``-log`` of the item's share of what is below it, for the prefix that it has and, with the item
    added, for that of the neighbour.

    Args:
        codes: ``[n, L]`` the SID of each item.
        near: ``[n, M]`` neighbours, 0 for none.
        mass: ``[n]`` interactions of each item.
        of_items: the gain beside it is over ``-log P(SID | user)`` of the item's whole SID; then
            what it has is its share of that SID.

    Returns:
        ``[n, M, L - 1]``, for prefixes of 1, 2, ... codes; -inf where it is no move.
    """
    below = prefix_mass(codes, mass, sizes)  # [n, D]
    if of_items:
        _, group = torch.unique(sid_keys(codes, sizes), return_inverse=True)
        has = torch.zeros_like(mass).index_add(0, group, mass)[group].view(-1, 1, 1)
    else:
        has = below.unsqueeze(1)
    gain = has.log() - (below[near] + mass.view(-1, 1, 1)).log()
    same = (codes[near] == codes.unsqueeze(1)).int().cummin(2).values.bool()
    gain = gain.masked_fill(same[..., : below.shape[1]] | (near == 0).unsqueeze(2), float("-inf"))
    gain[0] = float("-inf")
    return gain


def accepted_by_others(chosen: Tensor, accepted: Tensor) -> Tensor:
    """Gains of the moves that one half of the users chooses, as the other half has them.

    The best of many uncertain gains is mostly the one that chance has raised most: by the users who
    choose it, it pays too well. By others it is one gain with no more noise than its own.

    Args:
        chosen, accepted: ``[2, n, M, D]`` gains of all moves by each half, those to choose by and
            those, less their noise, to accept by.

    Returns:
        ``[n, M, D]``, -inf for moves that neither half chooses; of a move that both choose the
        larger.
    """
    gain, place = chosen.flatten(2).max(2, keepdim=True)  # [2, n, 1]
    others = accepted.flip(0).flatten(2)
    found = torch.full_like(others, float("-inf"))
    found.scatter_(2, place, others.gather(2, place).masked_fill(gain <= 0, float("-inf")))
    return found.max(0).values.view(chosen.shape[1:])


def what_pays(
    sums: Tensor, squares: Tensor, count: Tensor, by_mass: Tensor, margin: float
) -> Tensor:
    """``[n, M, D]`` what each move pays beyond its noise, -inf where it is none.

    Args:
        sums, squares: ``[G, n, M, D]`` of the gains of targets by all users (G is 1), or by two
            halves, each of which accepts what the other chooses.
        count: ``[G, n]`` targets.
        by_mass: ``[n, M, D]`` from :func:`of_mass`.
        margin: standard errors that are its noise.
    """
    pays = lower_bounds(sums, squares, count, margin) + by_mass
    if len(count) == 1:
        return pays[0]
    return accepted_by_others(lower_bounds(sums, squares, count, 0.0) + by_mass, pays)


def drawn(gains: Tensor, by_mass: Tensor, seed: int) -> Tensor:
    """Gains by which as many items move as by ``gains [n, M, D]``, but any and anywhere: a control.

    Args:
        by_mass: ``[n, M, D]`` -inf where it is no move.
    """
    made = torch.Generator().manual_seed(seed)
    chance = 1 + torch.rand(gains.shape, generator=made).to(gains)
    chance = chance.masked_fill(by_mass.isinf(), float("-inf"))
    order = torch.rand(len(gains), generator=made).to(gains)
    order = order.masked_fill(chance.amax((1, 2)).isinf(), 2.0)  # who cannot move comes last
    moves = order.argsort().argsort() < (gains.amax((1, 2)) > 0).sum()
    return chance.masked_fill(~moves.view(-1, 1, 1), float("-inf"))


def best_moves(gains: Tensor, near: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The items that gain most by the prefix of a neighbour, each by its best move.

    Args:
        gains: ``[n, M, D]`` by the first 1, 2, ... codes of each neighbour.
        near: ``[n, M]`` neighbours.
        most: moves at most.

    Returns:
        ``(items [m], neighbours [m], depths [m])``, largest gain first, all above 0; so many codes
        of the neighbour are to be taken.
    """
    n_depths = gains.shape[2]
    best, place = gains.flatten(1).max(1)
    top, items = best.topk(min(most, MOST_MOVES, len(best)))
    items = items[top > 0]
    place = place[items]
    return items, near[items, place // n_depths], place % n_depths + 1


def free_sids(
    prefixes: Tensor, depths: Tensor, held: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """A SID that nobody holds below each prefix, and no two the same.

    Below the prefix the least loaded codes are taken, the last one among those that are free.

    Args:
        prefixes: ``[m, L]`` SIDs of which the first ``depths [m]`` codes (1 to L - 1) are wanted;
            who comes first chooses first.
        held: ``[E, L]`` SIDs that are held.
        sizes: codebook size of each level.

    Returns:
        ``(codes [m, L], granted [m])``; a prefix below which nothing is free is not granted.
    """
    codes, n_levels = prefixes.clone(), len(sizes)
    granted = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
    for level in range(1, n_levels):
        wanting = depths <= level
        both = torch.cat([codes, held])[:, :level]
        _, group = torch.unique(sid_keys(both, sizes[:level]), return_inverse=True)
        groups, own = torch.unique(group[: len(codes)], return_inverse=True)
        row = torch.full_like(group, len(groups))[: int(group.max()) + 1]
        row[groups] = torch.arange(len(groups), device=row.device)
        load = torch.zeros(len(groups) + 1, sizes[level], dtype=torch.int32, device=codes.device)
        ones = torch.ones(len(held), dtype=torch.int32, device=codes.device)
        load.index_put_((row[group[len(codes) :]], held[:, level]), ones, accumulate=True)
        fixed = (own[~wanting], codes[~wanting, level])
        load.index_put_(fixed, ones.new_ones(len(fixed[0])), accumulate=True)
        emptiest = load.argsort(dim=1, stable=True)  # codes, the least loaded first
        rank = _rank_in_group(own, wanting)
        code = emptiest[own, rank % sizes[level]]
        codes[:, level] = torch.where(wanting, code, codes[:, level])
        if level == n_levels - 1:
            granted = (rank < sizes[level]) & (load[own, code] == 0)
    return codes, granted


def _rank_in_group(group: Tensor, counted: Tensor) -> Tensor:
    """``[m]`` how many of those ``counted`` come before each in its group."""
    order = group.argsort(stable=True)
    before = counted[order].long().cumsum(0) - counted[order].long()
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = group[order][1:] != group[order][:-1]
    start = torch.where(first, before, 0).cummax(0).values
    rank = torch.empty_like(group)
    rank[order] = before - start
    return rank
