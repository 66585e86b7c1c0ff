"""User-guided selection: the candidate SID of an item that a user is taught."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from recbole_gr.distributed import processes
from recbole_gr.generation.beam_search import Step
from recbole_gr.sid.counting import distinct
from recbole_gr.sid.likelihood import Descent
from recbole_gr.sid.trie import SIDTrie


def path_losses(step: Step, codes: Tensor, first: Tensor, trie: SIDTrie | None = None) -> Tensor:
    """Mean over the levels of ``-log P`` of whole SIDs, by the function that beam search uses.

    Args:
        step: scores codes level by level (as for the beam search); level 0 may have
            several rows per user, one per target.
        codes: ``[B, W, L]`` SIDs.
        first: ``[B, W]`` the level-0 row of each.
        trie: normalise over its codes (see :mod:`recbole_gr.sid.likelihood`); None: over the
            codebook.

    Returns:
        ``[B, W]`` float32.
    """
    losses = _losses_of_levels(step, codes, first, trie, codes.shape[2])
    return sum(losses, start=torch.zeros((), device=codes.device)) / codes.shape[2]


def prefix_losses(step: Step, codes: Tensor, first: Tensor, trie: SIDTrie | None = None) -> Tensor:
    """``[B, W, L - 1]`` the losses ``-log P`` of the first 1, 2, ... codes of SIDs, of all but the
    last; as :func:`path_losses`."""
    return torch.stack(_losses_of_levels(step, codes, first, trie, codes.shape[2] - 1), 2).cumsum(2)


def _losses_of_levels(
    step: Step, codes: Tensor, first: Tensor, trie: SIDTrie | None, n_levels: int
) -> list[Tensor]:
    """Of each of the first ``n_levels`` codes, ``[B, W]`` float32."""
    losses, parents = [], first
    descent = None if trie is None else Descent(trie)
    for level in range(n_levels):
        code = codes[:, :, level]
        logits = step(level, codes[:, :, level - 1] if level else None, parents if level else None)
        logits = logits.float()  # [B, T, V], then [B, W, V]
        total = (logits if descent is None else descent.allowed(logits)).logsumexp(2)
        if level == 0:
            total = total.gather(1, first)
            own = logits.flatten(1).gather(1, logits.shape[2] * first + code)
        else:
            own = logits.gather(2, code.unsqueeze(2)).squeeze(2)
            parents = torch.arange(codes.shape[1], device=codes.device).expand_as(first)
        losses.append((total if descent is None else descent.to(code, own, total)) - own)
    return losses


def select(losses: Tensor, log_prob: Tensor, rule: str) -> Tensor:
    """The candidate that each pair of user and item is trained on, ``[...]``.

    ``min`` (the default) is the rule in the words of PIT's reviewers: the candidate that the
    recommender finds cheapest, the first among equals. ``item`` (inferred) applies it to losses to
    which the caller has added ``-log P(item | SID)``, so that what is least is the loss of the item
    and not that of the SID. With ``min`` a SID that many items own is cheap because many own it,
    and on small data the index collapses onto such SIDs. The others isolate its effect: ``max`` the
    dearest, ``top1`` the one that Item-to-Token finds most probable, ``random`` any.

    Args:
        losses: ``[..., N]`` the loss of each candidate.
        log_prob: ``[..., N]`` Item-to-Token's log-probability, -inf for an empty place.
        rule: a value of the key ``select``.
    """
    empty = log_prob == float("-inf")
    if rule == "top1":
        key = -log_prob
    elif rule == "random":
        key = torch.rand(losses.shape, device=losses.device).masked_fill(empty, 2.0)
    else:
        key = (-losses if rule == "max" else losses).masked_fill(empty, float("inf"))
    place = torch.arange(losses.shape[-1], device=losses.device)
    lowest = key == key.amin(-1, keepdim=True)
    return torch.where(lowest, place, losses.shape[-1]).amin(-1)


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Dropout off inside the block, without touching gradients."""
    were = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, were):
            module.train(training)


def observed_by_all(
    items: Tensor, candidates: Tensor, log_prob: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the processes have selected in their parts of a batch, as one batch.

    Args:
        items: ``[n]`` distinct targets of this process, and any padding.
        candidates: ``[n, N, L]`` their SIDs.
        log_prob: ``[n, N]``.
        counts: ``[n, N]`` how often each was selected.

    Returns:
        The same of the whole batch, in every process: an item that several have met stands once,
        with the sum of its counts.
    """
    if processes.world_size() == 1:
        return items, candidates, log_prob, counts
    items, candidates, log_prob, counts = processes.all_gather_rows(
        items, candidates, log_prob, counts
    )
    met, where = distinct(items, len(items))
    row = torch.arange(len(items), device=items.device)
    # What is left over, padding that was never selected, has the last row's candidates.
    first = torch.full_like(met, len(items) - 1).scatter_reduce(0, where, row, "amin")
    counts = counts.new_zeros(len(met), counts.shape[1]).index_add(0, where, counts)
    return met, candidates[first], log_prob[first], counts
