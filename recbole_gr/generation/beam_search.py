"""Beam search over SIDs that can only end on items, for any model that scores codes step by step.

A model takes part by giving a function ``step(level, codes, parents) -> logits``:

* ``level`` 0: ``codes`` and ``parents`` are None; logits ``[B, 1, V_0]``, one row per user.
* ``level`` l: ``codes [B, W]`` are the codes chosen at level ``l - 1`` and ``parents [B, W]`` says
  which of the previous beams each one extends (the model re-indexes its key/value cache by it);
  logits ``[B, W, V_l]``.

The number of beams ``W`` may change between levels: there are never more beams than prefixes.
Scores are log-probabilities under the softmax over the whole codebook of a level, masked after
normalising; ``renormalise=True`` normalises over the codes that lead to an item instead, as the
released code of some papers does.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_gr.sid.likelihood import allowed_logits
from recbole_gr.sid.trie import DEAD, SIDTrie

Step = Callable[[int, Tensor | None, Tensor | None], Tensor]
NEVER = float("-inf")
BLOCK = 64  # scores of which one maximum is taken


class Extension(NamedTuple):
    """One level of a search, as it is shown to who asks for it (``observe``).

    Attributes:
        level: 0 at the first.
        nodes: ``[B, W]`` of depth ``level``, the beams that were extended (-1 dead).
        scores: ``[B, W, K]`` log-probabilities of what may follow them, at the places of
            :meth:`SIDTrie.options`; -inf where one leads to no item.
        kept: ``[B, W']`` of depth ``level + 1``, the beams of the next level, best first (-1 dead).
        kept_scores: ``[B, W']`` their log-probabilities.
    """

    level: int
    nodes: Tensor
    scores: Tensor
    kept: Tensor
    kept_scores: Tensor


Observe = Callable[[Extension], None]


class Beams(NamedTuple):
    """Finished beams, best first: ``nodes [B, W]`` leaves of the trie (-1 dead), ``scores [B, W]``
    log-probabilities of the SIDs (-inf dead), ``codes [B, W, L]``. Where a model ranks items and
    not SIDs, ``items [B, W]`` are those of the beams (0 dead), and the scores theirs."""

    nodes: Tensor
    scores: Tensor
    codes: Tensor
    items: Tensor | None = None


def beam_search(
    step: Step,
    trie: SIDTrie,
    batch_size: int,
    beam_size: int,
    exclude: Tensor | None = None,
    renormalise: bool = False,
    observe: Observe | None = None,
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
        observe: is called after every level with what was extended and what was kept.
    """
    excluded = None if exclude is None else ExcludedPrefixes(trie, exclude)
    nodes = trie.root(batch_size)  # [B, 1]
    scores = torch.zeros(nodes.shape, device=nodes.device)
    codes = torch.empty(batch_size, 1, 0, dtype=torch.long, device=nodes.device)
    last = parents = None
    for level in range(trie.n_levels):
        at_last = renormalise and level == trie.n_levels - 1
        if at_last and last is not None and parents is not None:
            extended = extend_last(step, trie, nodes, scores, last, parents)
        else:
            logits = step(level, last, parents)  # [B, W, V]
            extended = extend(trie, level, nodes, scores, logits, renormalise)
        n_places = extended.shape[2]
        width = min(beam_size, trie.n_nodes[level + 1])  # never more beams than prefixes
        spare = 0 if excluded is None else excluded.spare()
        width_with_spare = min(width + spare, extended.shape[1] * n_places)
        before, tie = nodes, partial(trie.lowest_items, level, nodes)
        scores, index = best(extended.flatten(1), tie, width_with_spare)
        parents = index // n_places
        last, nodes = trie.follow(level, nodes.gather(1, parents).clamp_min(0), index % n_places)
        nodes = nodes.masked_fill(scores == NEVER, DEAD)
        if excluded is not None:
            scores, keep = excluded.leave_out(level, nodes, scores, width)
            nodes, last, parents = (x.gather(1, keep) for x in (nodes, last, parents))
        nodes = nodes.masked_fill(scores == NEVER, DEAD)
        if observe is not None:
            observe(Extension(level, before, extended, nodes, scores))
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
) -> Tensor:
    """Score every continuation of every beam.

    Args:
        nodes: ``[B, W]`` nodes of depth ``level``, -1 dead.
        scores: ``[B, W]`` log-probabilities of the prefixes.
        logits: ``[B, W, V]``.

    Returns:
        ``[B, W, K]``, the places of :meth:`SIDTrie.options`; -inf where one leads to no item.
    """
    codes, closed = trie.options(level, nodes)
    logits = logits.float()  # sums of half-precision log-probabilities tie
    if renormalise:
        logp = allowed_logits((codes, closed), logits)
        total = torch.logsumexp(logp, 2, keepdim=True)
        logp = logp - total.masked_fill(total == NEVER, 0.0)  # a dead beam has nothing allowed
    else:
        logp = torch.log_softmax(logits, 2)
        if codes is not None:
            logp = logp.gather(2, codes)
        logp.add_(closed)
    return logp.add_(scores.unsqueeze(-1))


def extend_last(
    step: Step, trie: SIDTrie, nodes: Tensor, scores: Tensor, last: Tensor, parents: Tensor
) -> Tensor:
    """Score every continuation of every beam at the last level, renormalised.

    A prefix that one code alone completes is not asked for it: among the codes allowed its
    probability is 1. Where a suffix tells items apart, that is most of them.

    Args:
        step: the model.
        nodes, scores: as for :func:`extend`.
        last, parents: as for the model.

    Returns:
        ``[B, W, K]``, as of :func:`extend`.
    """
    level = trie.n_levels - 1
    # Elsewhere the look at how many are asked would wait for the device.
    if nodes.device.type != "cpu" or torch.compiler.is_compiling():
        return extend(trie, level, nodes, scores, step(level, last, parents), renormalise=True)
    closed = trie.options(level, nodes)[1]
    asked = (closed == 0).sum(2) > 1  # [B, W]
    extended = closed + scores.unsqueeze(-1)
    width = int(asked.sum(1).max())
    if width:
        some = asked.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        nodes, scores, last, parents = (x.gather(1, some) for x in (nodes, scores, last, parents))
        found = extend(trie, level, nodes, scores, step(level, last, parents), renormalise=True)
        extended.scatter_(1, some.unsqueeze(-1).expand_as(found), found)
    return extended


def best(scores: Tensor, tie: Tensor | Callable[[], Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` highest scores of each row in order, the lower ``tie`` first among equals.

    ``topk`` leaves the order of equal values open. Here score and tie-break share one 64-bit key:
    the bits of a float, read as an integer and with negatives mirrored, sort as the float does.

    Args:
        scores: ``[B, N]`` float32 without NaN.
        tie: integers in ``[0, 2**31)``, as many as there are scores; or a function that returns
            them, called only where it is needed.

    Returns:
        ``(scores [B, k], index [B, k])``.
    """
    # Elsewhere the look at the values would wait for the device, or break a compiled graph.
    if scores.device.type == "cpu" and not torch.compiler.is_compiling():
        values, index = _highest(scores, min(k + 1, scores.shape[1]))
        if not (values[:, 1:] == values[:, :-1]).any():  # no ties, so there is only one order
            return values[:, :k], index[:, :k]
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    bits ^= (bits >> 31) & 0x7FFFFFFF
    # In place: there may be a whole codebook of candidates for each beam.
    tie = tie() if callable(tie) else tie
    key = bits.long().mul_(1 << 32).sub_(tie.reshape(bits.shape))
    index = key.topk(k, dim=1).indices
    return scores.gather(1, index), index


def _highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``topk`` of each row ``[B, N]``, several times as fast where N is large.

    The k highest values lie in the k blocks with the highest maxima, and maxima are cheap.
    """
    n_blocks = scores.shape[1] // BLOCK
    if n_blocks < 4 * k:
        return scores.topk(k, dim=1)
    blocks = scores[:, : n_blocks * BLOCK]
    chosen = blocks.unflatten(1, (n_blocks, BLOCK)).amax(2).topk(k, dim=1).indices
    place = (chosen.unsqueeze(2) * BLOCK + torch.arange(BLOCK)).flatten(1)
    after = torch.arange(n_blocks * BLOCK, scores.shape[1]).expand(len(scores), -1)
    place = torch.cat([place, after], 1)
    values, index = scores.gather(1, place).topk(k, dim=1)
    return values, place.gather(1, index)


class ExcludedPrefixes:
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

    def leave_out(
        self, level: int, nodes: Tensor, scores: Tensor, width: int
    ) -> tuple[Tensor, Tensor]:
        """The best ``width`` of sorted nodes that are not excluded.

        At most :meth:`spare` nodes of a level are fully excluded, so the best ``width`` survivors
        are always among the best ``width + spare``; a stable sort keeps their order.

        Args:
            nodes: ``[B, width + spare]`` of depth ``level + 1``, best first.
            scores: the same shape.

        Returns:
            ``(scores, keep)``, both ``[B, width]``: -inf for what is excluded even so, and the
            places of ``nodes`` that are kept.
        """
        gone = self.contains(level, nodes)
        keep = gone.int().argsort(dim=1, stable=True)[:, :width]
        return scores.masked_fill(gone, NEVER).gather(1, keep), keep
