"""Beam search over SIDs that can only end on items, for any model that scores codes step by step.

A model takes part by giving a function ``step(level, codes, parents) -> logits``:

* ``level`` 0: ``codes`` and ``parents`` are None; logits ``[B, 1, V_0]``, one row per user.
* ``level`` l: ``codes [B, W]`` are the codes chosen at level ``l - 1`` and ``parents [B, W]`` says
  which of the previous beams each one extends (the model re-indexes its key/value cache by it);
  logits ``[B, W, V_l]``.

The number of beams ``W`` may change between levels: there are never more beams than prefixes.
Scores are log-probabilities under the softmax over the whole codebook of a level, masked after
normalising; ``renormalise=True`` normalises over the codes that lead to an item instead, as the
released code of some papers does (specs/intrr.md 5.1).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_gr.sid.trie import DEAD, SIDTrie

Step = Callable[[int, Tensor | None, Tensor | None], Tensor]
NEVER = float("-inf")
TAIL_SCORE = -1e4  # below every log-probability of a generated item


class Beams(NamedTuple):
    """Finished beams, best first: ``nodes [B, W]`` leaves of the trie (-1 dead), ``scores [B, W]``
    log-probabilities of the SIDs (-inf dead), ``codes [B, W, L]``."""

    nodes: Tensor
    scores: Tensor
    codes: Tensor


class Generated(NamedTuple):
    """Ranked items: ``items [B, k]`` (0 where fewer than k exist), ``scores [B, k]`` log-probs."""

    items: Tensor
    scores: Tensor


def beam_search(
    step: Step,
    trie: SIDTrie,
    batch_size: int,
    beam_size: int,
    exclude: Tensor | None = None,
    renormalise: bool = False,
) -> Beams:
    """The ``beam_size`` most probable SIDs of each user, found level by level.

    Ties are broken by the lower item id below the prefix, so the result does not depend on the
    device or the batch. With ``beam_size >= trie.n_nodes[-1]`` the search is exhaustive.

    Args:
        step: the model, see the module's docstring.
        trie: the catalogue.
        batch_size: number of users ``B``.
        beam_size: prefixes kept per level and user.
        exclude: ``[B, H]`` item ids that may not be returned (0 = none). A prefix all of whose
            items are excluded is dropped at its level, so exclusion costs no beams.
        renormalise: see the module's docstring.
    """
    excluded = None if exclude is None else _ExcludedPrefixes(trie, exclude)
    nodes = trie.root(batch_size)  # [B, 1]
    scores = torch.zeros(nodes.shape, device=nodes.device)
    codes = torch.empty(batch_size, 1, 0, dtype=torch.long, device=nodes.device)
    last = parents = None
    for level in range(trie.n_levels):
        logits = step(level, last, parents)  # [B, W, V]
        extended, chosen, child = extend(trie, level, nodes, scores, logits, renormalise)
        width = min(beam_size, trie.n_nodes[level + 1])  # never more beams than prefixes
        spare = 0 if excluded is None else excluded.spare()
        width_with_spare = min(width + spare, extended.shape[1] * extended.shape[2])
        tie = trie.lowest_items(level, nodes, child)
        scores, index = best(extended.flatten(1), tie.flatten(1), width_with_spare)
        parents = index // child.shape[2]
        nodes = child.flatten(1).gather(1, index).long()
        if chosen is None:
            last = index % child.shape[2]
        else:
            last = chosen.flatten(1).gather(1, index)
        if excluded is not None:
            # At most `spare` nodes of a level are fully excluded, so the best `width` survivors
            # are always among the best `width + spare`; a stable sort keeps their order.
            gone = excluded.contains(level, nodes)
            keep = gone.int().argsort(dim=1, stable=True)[:, :width]
            scores = scores.masked_fill(gone, NEVER).gather(1, keep)
            nodes, last, parents = (x.gather(1, keep) for x in (nodes, last, parents))
        nodes = nodes.masked_fill(scores == NEVER, DEAD)
        previous = codes.gather(1, parents.unsqueeze(-1).expand(-1, -1, codes.shape[2]))
        codes = torch.cat([previous, last.unsqueeze(-1)], dim=2)
    return Beams(nodes, scores, codes)


def extend(
    trie: SIDTrie,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    logits: Tensor,
    renormalise: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Score every continuation of every beam.

    Args:
        nodes: ``[B, W]`` nodes of depth ``level``, -1 dead.
        scores: ``[B, W]`` log-probabilities of the prefixes.
        logits: ``[B, W, V]``.

    Returns:
        ``(scores [B, W, K], codes [B, W, K] or None, child [B, W, K])`` as
        :meth:`SIDTrie.candidates` gives them; -inf where the code leads to no item.
    """
    codes, child = trie.candidates(level, nodes)
    logits = logits.float()  # sums of half-precision log-probabilities tie
    if renormalise:
        logp = logits if codes is None else logits.gather(2, codes)
        logp = logp.masked_fill(child < 0, NEVER)
        total = torch.logsumexp(logp, 2, keepdim=True)
        logp = logp - total.masked_fill(total == NEVER, 0.0)  # a dead beam has nothing allowed
    else:
        logp = torch.log_softmax(logits, 2)
        if codes is not None:
            logp = logp.gather(2, codes)
        logp.masked_fill_(child < 0, NEVER)
    return logp.add_(scores.unsqueeze(-1)), codes, child


def best(scores: Tensor, tie: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` highest scores of each row in order, the lower ``tie`` first among equals.

    ``topk`` leaves the order of equal values open. Here score and tie-break share one 64-bit key:
    the bits of a float, read as an integer and with negatives mirrored, sort as the float does.

    Args:
        scores: ``[B, N]`` float32 without NaN.
        tie: ``[B, N]`` integers in ``[0, 2**31)``.

    Returns:
        ``(scores [B, k], index [B, k])``.
    """
    # Elsewhere the look at the values would wait for the device, or break a compiled graph.
    if scores.device.type == "cpu" and not torch.compiler.is_compiling():
        values, index = scores.topk(min(k + 1, scores.shape[1]), dim=1)
        if not (values[:, 1:] == values[:, :-1]).any():  # no ties, so topk's order is the only one
            return values[:, :k], index[:, :k]
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    bits ^= (bits >> 31) & 0x7FFFFFFF
    # In place: there may be a whole codebook of candidates for each beam.
    key = bits.long().mul_(1 << 32).sub_(tie)
    index = key.topk(k, dim=1).indices
    return scores.gather(1, index), index


def rank_items(
    trie: SIDTrie,
    beams: Beams,
    k: int,
    merge: str = "logsumexp",
    tail: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Generated:
    """Items of the finished beams, best first, ties by lower item id.

    A SID shared by ``m`` items is one answer among ``m``: its probability is divided among them,
    equally or by the weights of the trie (:meth:`SIDTrie.weigh`), so no metric counts it as a hit
    for all. An item reached through several SIDs gets the sum of their probabilities.

    Args:
        merge: ``logsumexp`` sums over the SIDs of an item, ``max`` takes its best one.
        tail: ``[n]`` items in the order in which they fill the places left over.
        exclude: ``[B, H]`` item ids to leave out (0 = none); such an item can be reached through
            a SID that it shares, or through ``tail``.

    Returns:
        :class:`Generated` with ``k`` columns. Where the beams hold fewer items: item 0 and -inf;
        with a ``tail`` its items, with falling scores from ``TAIL_SCORE`` down.
    """
    if trie.max_sharing == 1:
        items, scores = trie.items(beams.nodes).squeeze(2), beams.scores  # [B, W]
    else:
        items, share, beam = trie.spread(beams.nodes)  # [B, M]
        scores = beams.scores.gather(1, beam) + share
    scores = scores.masked_fill(items == 0, NEVER)
    if exclude is not None and trie.max_sharing > 1:
        gone = (items.unsqueeze(2) == exclude.unsqueeze(1)).any(2)
        items, scores = items.masked_fill(gone, 0), scores.masked_fill(gone, NEVER)
    if not trie.one_sid_each:
        items, scores = _merge_repeats(items, scores, merge)
    if items.shape[1] < k:
        missing = k - items.shape[1]
        items = torch.nn.functional.pad(items, (0, missing))
        scores = torch.nn.functional.pad(scores, (0, missing), value=NEVER)
    scores, index = best(scores, items, k)
    items = items.gather(1, index).masked_fill(scores == NEVER, 0)
    if tail is not None:
        items, scores = fill_places(items, scores, tail, exclude)
    return Generated(items, scores)


def fill_places(
    items: Tensor, scores: Tensor, tail: Tensor, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Put the first items of ``tail`` that a row lacks into its empty places.

    Args:
        items: ``[B, k]`` with 0 in empty places, which come last.
        scores: ``[B, k]``.
        tail: ``[n]`` distinct items.
        exclude: ``[B, H]`` items that stay out (0 = none).

    Returns:
        ``(items, scores)``; place ``r`` of the tail scores ``TAIL_SCORE - r``, which float32
        holds exactly up to 2**24 items.
    """
    present = items if exclude is None else torch.cat([items, exclude], 1)
    head = tail[: present.shape[1]]  # enough: each of those present spoils one at most
    taken = (head.unsqueeze(1) == present.unsqueeze(1)).any(2)  # [B, h]
    order = taken.int().argsort(dim=1, stable=True)  # what is free first, in order
    empty = items == 0
    rank = (empty.cumsum(1) - 1).clamp(0, len(head) - 1)
    place = order.gather(1, rank)
    fill = empty & ~taken.gather(1, place) & (empty.cumsum(1) <= len(head))
    below = TAIL_SCORE - place.to(scores.dtype)
    return torch.where(fill, head[place], items), torch.where(fill, below, scores)


def exact_scores(
    step: Step,
    trie: SIDTrie,
    batch_size: int,
    renormalise: bool = False,
    merge: str = "logsumexp",
) -> Tensor:
    """Log-probability of every item, scoring each distinct prefix once (specs/field.md 6.6).

    Nothing is searched: all nodes of a level are beams, in the order of the trie, and the scores
    are looked up edge by edge. It is the oracle for :func:`beam_search`; memory grows with the
    nodes of a level, so use small batches.

    Returns:
        ``[B, n_items + 1]``, column = item id, column 0 -inf.
    """
    device = trie.leaf_item.device
    scores = torch.zeros(batch_size, 1, device=device)
    codes = parents = None
    for level in range(trie.n_levels):
        logits = step(level, codes, parents).float()  # [B, n_nodes[level], V]
        parent, code = trie.parents(level), trie.edge_codes(level)
        logp = torch.log_softmax(logits, 2)[:, parent, code]  # [B, n_edges]
        if renormalise:
            allowed = torch.zeros(batch_size, trie.n_nodes[level], device=device)
            logp = logp - allowed.index_add(1, parent, logp.exp()).log()[:, parent]
        scores = scores[:, parent] + logp
        codes = code.expand(batch_size, -1)
        parents = parent.expand(batch_size, -1)
    leaf, item = trie.entries()
    by_entry = scores[:, leaf] + trie.entry_log_share()
    result = torch.full((batch_size, trie.n_items + 1), NEVER, device=device)
    column = item.expand(batch_size, -1)
    if trie.one_sid_each:
        return result.scatter(1, column, by_entry)
    top = result.scatter_reduce(1, column, by_entry, "amax")
    if merge == "max":
        return top
    total = torch.zeros_like(top).scatter_add(1, column, (by_entry - top[:, item]).exp())
    return torch.where(total > 0, top + total.log(), top)


def beam_regret(generated: Generated, exact: Tensor, k: int) -> Tensor:
    """``beam_regret@k``: share of each user's exact top ``k`` that the beam missed, ``[B]``.

    Args:
        generated: at least ``k`` columns.
        exact: ``[B, n_items + 1]`` from :func:`exact_scores`.
    """
    ids = torch.arange(exact.shape[1], device=exact.device).expand(len(exact), -1)
    _, wanted = best(exact, ids, min(k, exact.shape[1] - 1))
    found = (wanted.unsqueeze(2) == generated.items[:, None, :k]).any(2)
    return 1.0 - found.float().mean(1)


def _merge_repeats(items: Tensor, scores: Tensor, merge: str) -> tuple[Tensor, Tensor]:
    """Merge the scores of repeated items into their first place; the others become 0."""
    items, order = items.sort(dim=1, stable=True)
    scores = scores.gather(1, order)
    first = torch.ones_like(items, dtype=torch.bool)
    first[:, 1:] = items[:, 1:] != items[:, :-1]
    group = first.long().cumsum(1) - 1
    top = torch.full_like(scores, NEVER).scatter_reduce(1, group, scores, "amax")
    if merge == "max":
        merged = top.gather(1, group).masked_fill(~first, NEVER)
        return items.masked_fill(~first | (merged == NEVER), 0), merged
    shift = top.masked_fill(top == NEVER, 0.0).gather(1, group)
    total = torch.zeros_like(scores).scatter_add(1, group, (scores - shift).exp())
    merged = (total.gather(1, group).log() + shift).masked_fill(~first, NEVER)
    return items.masked_fill(~first | (merged == NEVER), 0), merged


class _ExcludedPrefixes:
    """For each user the nodes of every level all of whose items are excluded."""

    def __init__(self, trie: SIDTrie, exclude: Tensor):
        exclude = exclude.sort(dim=1).values
        repeat = torch.zeros_like(exclude, dtype=torch.bool)
        repeat[:, 1:] = exclude[:, 1:] == exclude[:, :-1]
        exclude = exclude.masked_fill(repeat | (exclude > trie.n_items), 0)
        self.paths = [path[exclude].flatten(1) for path in trie.item_paths()]  # [B, H * m]
        self.below = trie.n_below()

    def spare(self) -> int:
        """The most nodes of a level that one user's exclusions can cover."""
        return self.paths[0].shape[1]

    def contains(self, level: int, nodes: Tensor) -> Tensor:
        """``[B, W]`` whether every item below ``nodes`` (depth ``level + 1``) is excluded."""
        hits = (nodes.unsqueeze(2) == self.paths[level].unsqueeze(1)).sum(2)
        return (hits >= self.below[level][nodes.clamp_min(0)]) & (nodes >= 0)
