"""Softmax cross-entropy over a sample of the catalogue, corrected for how it was drawn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedNegatives(nn.Module):
    """Items that stand for the catalogue in one batch, the same for all its targets.

    Drawn evenly they are distinct; drawn by popularity an item may come several times. Every item
    but the padding can be drawn: of popularity it is ``training interactions + 1``.

    Args:
        number: of items, K; drawn evenly it is at most the catalogue.
        n_items: items with the padding.
        counts: ``[n_items]`` training interactions to draw by; None draws evenly.

    Attributes:
        log_expected: ``[n_items]`` log of how often each is expected among the K.
    """

    log_expected: Tensor

    def __init__(self, number: int, n_items: int, counts: Tensor | None = None) -> None:
        super().__init__()
        self._n = n_items - 1
        self._number = number if counts is not None else min(number, self._n)
        weights = torch.ones(n_items, dtype=torch.float64)
        if counts is not None:
            weights += counts
        weights[0] = 0
        self._below = None if counts is None else weights.cumsum(0)
        expected = self._number * weights / weights.sum()
        self.register_buffer("log_expected", expected.log().float(), persistent=False)

    def draw(self, seed: int) -> Tensor:
        """The items ``[K]`` of a batch, which follow from its seed alone."""
        generator = torch.Generator().manual_seed(seed)
        if self._below is None:
            drawn = torch.randperm(self._n, generator=generator)[: self._number] + 1
        else:
            place = torch.rand(self._number, generator=generator, dtype=torch.float64)
            place *= self._below[-1]
            drawn = torch.searchsorted(self._below, place, right=True).clamp_(max=self._n)
        return drawn.to(self.log_expected.device)


def sampled_softmax_loss(
    states: Tensor,
    at_targets: Tensor,
    at_negatives: Tensor,
    log_expected: Tensor,
    hits: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over the rows of ``-log(e^s / (e^s + sum of e^(s_k - log_expected_k)))``.

    ``s`` is the target's logit and ``s_k`` those of the negatives, without those that are the
    target itself. The sum has the expectation of the sum over all other items, so that the loss is
    that of the full softmax with an unbiased estimate of its denominator.

    Args:
        states: ``[N, d]``.
        at_targets: ``[N, d]`` embeddings of the targets.
        at_negatives: ``[K, d]`` embeddings of the negatives.
        log_expected: ``[K]`` log of how often each is expected among the K.
        hits: BoolTensor ``[N, K]``, where a negative is the target of the row.
        weights: ``[N]`` of the rows in the mean; None: all alike.

    Returns:
        scalar, of at least float32.
    """
    exact = torch.promote_types(states.dtype, torch.float32)
    own = (states * at_targets).sum(1, keepdim=True).to(exact)
    others = (states @ at_negatives.T).to(exact) - log_expected
    logits = torch.cat([own, others.masked_fill(hits, float("-inf"))], 1)
    first = logits.new_zeros(len(logits), dtype=torch.long)
    if weights is None:
        return F.cross_entropy(logits, first)
    losses = F.cross_entropy(logits, first, reduction="none") * weights
    return losses.sum() / weights.sum().clamp_min(1)
