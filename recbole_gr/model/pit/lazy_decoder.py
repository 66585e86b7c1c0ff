"""The lazy decoder: generation that attends to a context it never encodes again."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_gr.model.attention import Attention, scaled_attention
from recbole_gr.model.beam_tokens import BeamTokens
from recbole_gr.model.dropout import Dropout
from recbole_gr.model.layers import FeedForward
from recbole_gr.model.norm import RMSNorm
from recbole_gr.model.position import Rotary, Rotation, rotate


class Context(NamedTuple):
    """Keys and values ``[B, H, M, dh]`` of a user's history, shared by all blocks."""

    keys: Tensor
    values: Tensor


class LazyBlock(nn.Module):
    """Cross-attention without projections of the context, self-attention among the tokens of one
    target, feed-forward; each normed before and added to its input."""

    def __init__(self, size: int, n_heads: int, head_size: int, inner: int, dropout: float):
        super().__init__()
        self.n_heads, self.head_size = n_heads, head_size
        self.cross_norm = RMSNorm(size)
        self.query = nn.Linear(size, n_heads * head_size, bias=False)
        self.out = nn.Linear(n_heads * head_size, size, bias=False)
        self.attention_norm = RMSNorm(size)
        self.attention = Attention(size, n_heads, head_size, 0.0)
        self.feed_forward_norm = RMSNorm(size)
        self.feed_forward = FeedForward(size, inner, dropout)
        self.dropout = Dropout(dropout)

    def read(self, x: Tensor, context: Context, rotation: Rotation, bias: Tensor) -> Tensor:
        """Cross-attention of ``x [B, Q, d]``; ``rotation`` of the queries, ``bias`` additive."""
        q = self.query(self.cross_norm(x)).unflatten(-1, (self.n_heads, self.head_size))
        q = rotate(q.transpose(1, 2), rotation)  # [B, H, Q, dh]
        out = scaled_attention(q, context.keys, context.values, bias)
        return x + self.dropout(self.out(out.transpose(1, 2).flatten(2)))

    def forward(
        self, x: Tensor, length: int, context: Context, rotation: Rotation, bias: Tensor
    ) -> Tensor:
        """``x [B, T * length, d]``: ``length`` tokens of each of ``T`` targets."""
        x = self.read(x, context, rotation, bias)
        tokens = self.attention_norm(x).reshape(-1, length, x.shape[2])  # [B * T, L, d]
        own = self.attention.attend(*self.attention.project(tokens), None, causal=True)
        return self._rest(x, own.view_as(x))

    def step(
        self,
        x: Tensor,
        parents: Tensor | None,
        own: BeamTokens,
        context: Context,
        rotation: Rotation,
        bias: Tensor,
    ) -> Tensor:
        """One new token of each beam, ``x [B, W, d]``."""
        x = self.read(x, context, rotation, bias)
        q, k, v = self.attention.project(self.attention_norm(x))
        own.append(k, v, parents)
        return self._rest(x, self.attention.attend_own(q, own, None))

    def _rest(self, x: Tensor, own: Tensor) -> Tensor:
        x = x + self.dropout(own)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class LazyDecoder(nn.Module):
    """OneRec-V2's decoder (arXiv 2508.20900), which PIT names as one of its recommenders.

    A linear map turns each context vector into one set of keys, normed by RMS, that also serve as
    values and that all blocks share (``L_kv = S_kv = 1`` there). The target's tokens attend to
    them, then to each other. Many targets of one user are decoded in one pass, each seeing the
    context up to its own place. Distances are told by rotations of queries and keys (inferred).
    """

    blocks: Sequence[LazyBlock]

    def __init__(
        self, n_layers: int, size: int, n_heads: int, head_size: int, inner: int, dropout: float
    ):
        super().__init__()
        self.n_heads = n_heads
        self.context_map = nn.Linear(size, n_heads * head_size, bias=False)
        self.context_norm = RMSNorm(head_size)
        self.rotary = Rotary(head_size)
        block = (size, n_heads, head_size, inner, dropout)
        blocks = (LazyBlock(*block) for _ in range(n_layers))
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.dropout = Dropout(dropout)
        self.norm = RMSNorm(size)

    def context(self, memory: Tensor) -> Context:
        """``[B, M, d]`` vectors of the history -> what the blocks attend to."""
        values = self.context_map(memory).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        values = self.context_norm(values)  # [B, H, M, dh]
        place = torch.arange(memory.shape[1], device=memory.device)
        return Context(rotate(values, self.rotary(place)), values)

    def forward(self, x: Tensor, context: Context, place: Tensor, bias: Tensor) -> Tensor:
        """All tokens of all targets.

        Args:
            x: ``[B, T, L, d]`` token embeddings of ``T`` targets.
            context: of :meth:`context`.
            place: ``[B or 1, T]`` place in the context at which each target stands.
            bias: ``[B or 1, 1, T, M]``, -inf where a target may not look.

        Returns:
            ``[B, T, L, d]``.
        """
        length = x.shape[2]
        rotation = self._rotation(place.repeat_interleave(length, 1))
        bias = bias.repeat_interleave(length, 2)  # [B or 1, 1, T * L, M]
        hidden = self.dropout(x.flatten(1, 2))  # [B, T * L, d]
        for block in self.blocks:
            hidden = block(hidden, length, context, rotation, bias)
        return self.dropout(self.norm(hidden)).view_as(x)

    def step(
        self,
        x: Tensor,
        parents: Tensor | None,
        own: Sequence[BeamTokens],
        context: Context,
        place: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """One new token of each beam.

        Args:
            x: ``[B, W, d]``.
            parents: ``[B, W]`` the beams that these extend, None in the first step.
            own: a :class:`BeamTokens` per block.
            context: of :meth:`context`.
            place: ``[B or 1, W]`` place of each beam's target.
            bias: ``[B or 1, 1, W, M]``.

        Returns:
            ``[B, W, d]``.
        """
        rotation, x = self._rotation(place), self.dropout(x)
        for block, tokens in zip(self.blocks, own):
            x = block.step(x, parents, tokens, context, rotation, bias)
        return self.dropout(self.norm(x))

    def _rotation(self, place: Tensor) -> Rotation:
        return [r.unsqueeze(1) for r in self.rotary(place)]  # [B or 1, 1, Q, dh]
