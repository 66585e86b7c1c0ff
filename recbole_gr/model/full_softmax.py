"""Softmax cross-entropy over the whole catalogue, in pieces that never hold all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits of one piece. On a CPU a piece stays in the cache between its passes; a GPU wants more.
PIECE = {"cpu": 2**19, "cuda": 2**25}


def full_softmax_loss(
    states: Tensor,
    items: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over the rows of ``-log softmax(states @ items.T)`` at the targets.

    The logits of a piece of the rows are made, turned into their gradient in place, and forgotten;
    what is kept for the backward pass are the gradients of `states` and `items`. Under autocast the
    products are computed in its type, sums and exponentials in float32.

    Args:
        states: ``[N, d]``.
        items: ``[n_items, d]``, the weight of an item embedding.
        targets: LongTensor ``[N]``, item ids.
        label_smoothing: share of the target distribution that is spread over all items.
        weights: ``[N]`` of the rows in the mean; None: all alike.

    Returns:
        scalar, of at least float32.
    """
    kind = states.device.type
    lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    exact = torch.promote_types(states.dtype, torch.float32)
    if weights is None:
        weights = states.new_ones(len(states), dtype=exact)
    return _FullSoftmax.apply(states, items, targets, label_smoothing, lower, weights.to(exact))


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, items: Tensor, targets: Tensor, smoothing: float, lower: Any,
        weights: Tensor,
    ) -> Tensor:
        n, n_items = len(states), len(items)
        kind = states.dtype if lower is None else lower
        rows = max(1, PIECE.get(states.device.type, PIECE["cuda"]) // n_items)
        exact = torch.promote_types(states.dtype, torch.float32)
        low_items = items.to(kind)
        d_states = torch.empty_like(states, dtype=exact)
        d_items = torch.zeros_like(items, dtype=exact)
        total = states.new_zeros((), dtype=exact)
        for piece in range(0, n, rows):
            part, target = states[piece : piece + rows].to(kind), targets[piece : piece + rows]
            target, weight = target.unsqueeze(1), weights[piece : piece + rows].unsqueeze(1)
            logits = (part @ low_items.T).to(exact)  # (rows, n_items)
            logits -= logits.amax(1, keepdim=True)
            expected = (1 - smoothing) * logits.gather(1, target)
            if smoothing:
                expected += smoothing * logits.mean(1, keepdim=True)
            odds = logits.exp_()
            norm = odds.sum(1, keepdim=True)
            total += ((norm.log() - expected) * weight).sum()
            # Less the target distribution they are the gradient of the logits times the norm, which
            # is divided by on the side that has d columns.
            odds.scatter_add_(1, target, (smoothing - 1) * norm)
            if smoothing:
                odds -= norm * (smoothing / n_items)
            grad, share = odds.to(kind), weight / norm
            d_states[piece : piece + rows] = (grad @ low_items) * share
            if kind == exact:
                d_items.addmm_(grad.T, part * share)
            else:
                d_items += (grad.T @ (part * share).to(kind)).to(exact)
        n_counted = weights.sum().clamp_min(1)
        ctx.save_for_backward(d_states, d_items, n_counted)
        ctx.kinds = states.dtype, items.dtype
        return total / n_counted

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        d_states, d_items, n_counted = ctx.saved_tensors
        scale = grad / n_counted
        return (d_states * scale).to(ctx.kinds[0]), (d_items * scale).to(ctx.kinds[1]), *(None,) * 4
