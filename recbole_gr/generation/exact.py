"""Scores of all items without a search: what a beam search is measured against."""

from functools import partial

import torch
from torch import Tensor

from recbole_gr.generation.beam_search import NEVER, ExcludedPrefixes, Step, best
from recbole_gr.generation.ranking import Generated
from recbole_gr.sid.likelihood import code_losses
from recbole_gr.sid.trie import SIDTrie

AT_ONCE = 2**26  # numbers that an exact scorer may hold at once


def exact_scores(
    step: Step,
    trie: SIDTrie,
    batch_size: int,
    renormalise: bool = False,
    merge: str = "logsumexp",
) -> Tensor:
    """Log-probability of every item, scoring each distinct prefix once.

    Nothing is searched: all nodes of a level are beams, in the order of the trie, and the scores
    are looked up edge by edge. It is the reference for :func:`beam_search`; memory grows with the
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


def sid_losses(step: Step, codes: Tensor, trie: SIDTrie | None = None) -> list[Tensor]:
    """Per level, ``-log P`` of the code of each user's own SID given those before it, ``[B]``.

    Args:
        step: the model, as for a search.
        codes: ``[B, L]``.
        trie: normalise over its codes; None: over the codebook.
    """
    parents = torch.zeros(len(codes), 1, dtype=torch.long, device=codes.device)
    logits = [step(0, None, None)[:, 0]]
    for level in range(1, codes.shape[1]):
        logits.append(step(level, codes[:, level - 1 : level], parents)[:, 0])
    return code_losses(logits, codes, trie)


def best_leaves(
    trie: SIDTrie, scores: Tensor, n: int, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The SIDs with the highest scores, best first, ties by their lowest item.

    Args:
        scores: ``[B, n_leaves]`` in the order of the trie.
        n: how many.
        exclude: ``[B, H]`` items that may not be returned (0 = none).

    Returns:
        ``(nodes, scores)``, both ``[B, W]`` with ``W`` at most ``n``; -inf where no more are left.
    """
    excluded = None if exclude is None else ExcludedPrefixes(trie, exclude)
    width = min(n, scores.shape[1])
    spare = 0 if excluded is None else excluded.spare()
    ties = partial(_lowest_items, trie, scores.shape[0])
    scores, nodes = best(scores, ties, min(width + spare, scores.shape[1]))
    if excluded is not None:
        scores, keep = excluded.leave_out(trie.n_levels - 1, nodes, scores, width)
        nodes = nodes.gather(1, keep)
    return nodes, scores


def _lowest_items(trie: SIDTrie, n_rows: int) -> Tensor:
    return trie.leaf_item[trie.leaf_start[:-1].long()].expand(n_rows, -1)


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
