"""The ranked list of items from the SIDs that a search found."""

from typing import NamedTuple

import torch
from torch import Tensor

from recbole_gr.generation.beam_search import NEVER, Beams, best
from recbole_gr.sid.trie import SIDTrie

TAIL_SCORE = -1e4  # below every log-probability of a generated item


class Generated(NamedTuple):
    """Ranked items: ``items [B, k]`` (0 where fewer than k exist), ``scores [B, k]`` log-probs."""

    items: Tensor
    scores: Tensor


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
