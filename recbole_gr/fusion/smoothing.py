"""What a model says of rare items, backed by what it says of items of near content."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.quality.neighbours import near_content

SHARPNESS = 20.0  # of the softmax over the cosines of an item's neighbours


class Neighbours(nn.Module):
    """Probabilities of items that few have taken are moved towards those of their neighbours.

    ``P'(i) = (n_i P(i) + s sum_j w_ij P(j)) / (n_i + s)``, with ``n_i`` the training interactions
    of item ``i`` and ``j`` those of its ``k`` nearest items by content that have some: as if the
    neighbours were ``s`` further interactions. A model that was never shown an item as a target
    has learned to give it next to nothing; its neighbours say what it would get.

    Args:
        content: ``[n_items, d]``, row 0 the padding.
        counts: ``[n_items]`` training interactions.
        k: neighbours of an item.

    Attributes:
        strength: ``s``, chosen with the mixture; 0 leaves the scores as they are.
    """

    seen: Tensor
    near: Tensor
    share: Tensor
    strength: Tensor

    def __init__(self, content: Tensor, counts: Tensor, k: int):
        super().__init__()
        vectors, seen = F.normalize(content[1:].float().cpu(), dim=1), counts[1:].cpu()
        near = near_content(vectors, min(k, max(1, len(vectors) - 1)))  # [N, k], -1 for none
        known = (near >= 0) & (seen[near.clamp_min(0)] > 0)
        near = near.clamp_min(0)
        cosine = torch.stack([(vectors * vectors[column]).sum(1) for column in near.unbind(1)], 1)
        # Nothing may back an item all of whose neighbours are as unknown: it stays what it is.
        share = (SHARPNESS * cosine).masked_fill(~known, float("-inf")).softmax(1).nan_to_num(0.0)
        self.register_buffer("near", near)
        self.register_buffer("share", share)
        self.register_buffer("seen", seen.float().where(known.any(1), torch.tensor(float("inf"))))
        self.register_buffer("strength", torch.tensor(0.0))

    def forward(self, scores: Tensor, strength: float | None = None) -> Tensor:
        """``[B, N]`` logits over the items from 1 on -> log-probabilities after smoothing, or the
        logits where ``strength``, as chosen unless given, is 0."""
        s = self.strength if strength is None else scores.new_tensor(strength)
        own = scores.softmax(1)
        around = torch.zeros_like(own)
        for near, share in zip(self.near.unbind(1), self.share.unbind(1)):
            around += own.index_select(1, near) * share
        least = torch.finfo(scores.dtype).tiny
        # As a move from one to the other, so that an item seen without end is left where it is.
        move = s / (self.seen + s.clamp_min(least))
        smoothed = torch.lerp(own, around, move).clamp_min(least).log()
        return torch.where(s > 0, smoothed, scores)
