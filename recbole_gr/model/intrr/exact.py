"""The score of every item without a search: a level depends on the one code above it."""

from functools import partial

import torch
from torch import Tensor

from recbole_gr.compat.tracing import exporting
from recbole_gr.model.intrr.ran import Level, follow
from recbole_gr.sid.trie import SIDTrie

USERS = 32  # scored together: a level's hidden layers are [users, V, H]


def leaf_scores(
    first: Tensor, guided: tuple[Tensor, ...], levels: list[Level], trie: SIDTrie, renormalise: bool
) -> Tensor:
    """Log-probability of every SID of the catalogue for each user.

    As ``q_l`` depends on the code at level ``l - 1`` and the user alone, one table of logits
    ``[V_(l-1), V_l]`` per user and level serves all prefixes. Every edge of the trie looks its
    logit up there. The result is that of a beam search which keeps every prefix.

    Args:
        first: ``[B, V_1]`` logits of the first level.
        guided: per level after the first ``[B, H]``, from ``RecursiveAssignment.guide``.
        levels: from ``RecursiveAssignment.levels``.
        renormalise: over the codes that lead to an item (released code), so that the catalogue has
            probability 1; otherwise over the codebook.

    Returns:
        ``[B, n_leaves]`` in the order of the trie.
    """
    score = partial(_scores, levels=levels, trie=trie, renormalise=renormalise)
    if exporting():  # a graph for any number of users has no number of parts
        return score(first, *guided)
    parts = zip(*(rows.split(USERS) for rows in (first, *guided)))
    return torch.cat([score(*part) for part in parts])


def _scores(
    first: Tensor, *guided: Tensor, levels: list[Level], trie: SIDTrie, renormalise: bool
) -> Tensor:
    scores = first.new_zeros(first.shape[0], 1, dtype=torch.float32)
    above = torch.zeros(1, dtype=torch.long, device=first.device)  # the last code of each node
    table = first.unsqueeze(1)  # [B, V_above, V]
    for place in range(trie.n_levels):
        if place:
            level, user = levels[place - 1], guided[place - 1]
            table = follow(level, level.context + user.unsqueeze(1))
        table = table.float() if renormalise else table.float().log_softmax(2)
        parent, code = trie.parents(place), trie.edge_codes(place)
        logp = table.flatten(1)[:, above[parent] * table.shape[2] + code]  # [B, n_edges]
        if renormalise:
            logp = logp - _log_sum(logp, parent, trie.n_nodes[place])[:, parent]
        scores, above = scores[:, parent] + logp, code
    return scores


def _log_sum(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """``[B, E]`` -> ``[B, n_groups]`` log of the sum of exponentials in each group, none empty."""
    top = values.new_full((values.shape[0], n_groups), float("-inf"))
    top = top.scatter_reduce(1, group.expand(values.shape[0], -1), values, "amax")
    total = torch.zeros_like(top).index_add(1, group, (values - top[:, group]).exp())
    return top + total.log()
