"""A pointer beside SIDs: the next item may be one of content near to that of the last items.

Ours, after the pointer networks of Vinyals et al. 2015 and See et al. 2017, whose copies are here
the neighbours of what was taken. Codes have to be learned prefix by prefix, and an item that nobody
or few have taken is hardly learned at all; that it is alike to the last one is known beforehand.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.quality.neighbours import near_content

NEVER = float("-inf")
FIRST_SHARPNESS = 20.0
LEAST = 1e-30  # probability that has a gradient


class Users(NamedTuple):
    """What is known of users: ``state [B, d]`` and their last items ``last [B, M]``, 0 for none."""

    state: Tensor
    last: Tensor

    def split(self, n_rows: int) -> list[Users]:
        """In parts of so many users."""
        return [Users(*part) for part in zip(self.state.split(n_rows), self.last.split(n_rows))]


class ContentPointer(nn.Module):
    """``P(i | u) = g_0 P_SID(i | u) + sum_j g_j N(i | h_j)``: a mixture of what SIDs say with the
    neighbours of the last items ``h_1 .. h_M``.

    ``N(. | h)`` is the softmax of the cosine of an item's content with that of ``h``, times a
    learned sharpness, over the ``k`` items nearest to ``h``, which is none of them. The shares
    ``g = softmax(W s + b)`` are those of the state ``s`` that generates the SID. All of it is
    trained by the likelihood of the item, for which ``P_SID`` is wanted of the target alone.

    Args:
        width: of the states.
        n_last: ``M``, last items that have a share.
        k: neighbours of an item.
        content: ``[n_items, c]``, row 0 the padding; without columns where a checkpoint brings the
            neighbours.
    """

    near: Tensor
    cosine: Tensor

    def __init__(self, width: int, n_last: int, k: int, content: Tensor):
        super().__init__()
        self.n_last = n_last
        k = min(k, max(1, len(content) - 2))
        near = torch.zeros(len(content), k, dtype=torch.long)
        cosine = torch.full((len(content), k), NEVER)
        if content.shape[1]:
            vectors = F.normalize(content[1:].float().cpu(), dim=1)
            empty = ~vectors.any(1)  # what has no content is near to nothing
            found = near_content(vectors, k)  # [N, k], -1 for none
            for column, rows in enumerate(found.unbind(1)):
                none = (rows < 0) | empty | empty[rows.clamp_min(0)]
                alike = (vectors * vectors[rows.clamp_min(0)]).sum(1)
                near[1:, column] = (rows + 1).masked_fill(none, 0)
                cosine[1:, column] = alike.masked_fill(none, NEVER)
        self.register_buffer("near", near)
        self.register_buffer("cosine", cosine)
        self.gate = nn.Linear(width, 1 + n_last)
        self.log_sharpness = nn.Parameter(torch.tensor(FIRST_SHARPNESS).log())
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Shares that no state changes yet, the largest that of the SIDs."""
        self.gate.weight.zero_()
        self.gate.bias.zero_()
        self.gate.bias[0] = 1.0

    def last(self, history: Tensor) -> Tensor:
        """``[B, T]`` -> ``[B, T, M]``, at each place its item and those before it."""
        n = history.shape[1]
        return torch.stack([F.pad(history, (back, 0))[:, :n] for back in range(self.n_last)], 2)

    def last_of(self, history: Tensor, length: Tensor) -> Tensor:
        """``[B, M]`` the last items of histories ``[B, T]``, the newest first."""
        back = torch.arange(self.n_last, device=history.device)
        place = length.unsqueeze(1) - 1 - back
        return history.gather(1, place.clamp_min(0)).masked_fill(place < 0, 0)

    def log_likelihood(
        self, log_prob: Tensor, state: Tensor, last: Tensor, target: Tensor
    ) -> Tensor:
        """``log P`` of targets ``[...]``, float32.

        Args:
            log_prob: ``[...]`` of their SIDs.
            state: ``[..., d]``.
            last: ``[..., M]``.
            target: ``[...]`` items.
        """
        shares = self._log_shares(state, last)
        hit = self.near[last] == target[..., None, None]
        pointed = _log((self._neighbours(last) * hit).sum(-1))
        parts = torch.cat([log_prob.float().unsqueeze(-1), pointed], -1) + shares
        return parts.logsumexp(-1)

    def mixed(self, log_probs: Tensor, state: Tensor, last: Tensor) -> Tensor:
        """Log-probabilities of all items ``[B, n_items]``, of those of their SIDs; column 0 -inf.

        Args:
            log_probs: ``[B, n_items]``.
            state: ``[B, d]``.
            last: ``[B, M]``.
        """
        shares = self._log_shares(state, last)
        own = log_probs.float() + shares[:, :1]
        pointed = self._neighbours(last) * shares[:, 1:].exp().unsqueeze(-1)
        pointed = torch.zeros_like(own).scatter_add(
            1, self.near[last].flatten(1), pointed.flatten(1)
        )
        every = torch.logaddexp(own, _log(pointed))
        return F.pad(every[:, 1:], (1, 0), value=NEVER)

    def _log_shares(self, state: Tensor, last: Tensor) -> Tensor:
        """``[..., 1 + M]`` of the SIDs and of the last items; -inf of one without neighbours."""
        logits = self.gate(state).float()
        alone = (self.cosine == NEVER).all(1)[last]
        logits = torch.cat([logits[..., :1], logits[..., 1:].masked_fill(alone, NEVER)], -1)
        return logits.log_softmax(-1)

    def _neighbours(self, last: Tensor) -> Tensor:
        """``[..., M, k]`` probabilities of the neighbours of items ``[..., M]``, 0 where none."""
        cosine = self.cosine[last]
        none = cosine == NEVER
        alone = none.all(-1, keepdim=True)
        logits = self.log_sharpness.exp() * cosine.masked_fill(none, 0.0)  # no gradient of inf
        return logits.masked_fill(none & ~alone, NEVER).softmax(-1).masked_fill(none, 0.0)


def _log(probability: Tensor) -> Tensor:
    """Its logarithm, -inf and without a gradient where it is 0."""
    return probability.clamp_min(LEAST).log().masked_fill(probability == 0, NEVER)
