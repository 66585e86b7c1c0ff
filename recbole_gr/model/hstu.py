"""HSTU blocks: attention without a softmax, gated, in the place of a feed-forward layer.

Two variants that differ in how weights come from logits and where a norm stands. Both have the two
ways through them that :mod:`recbole_gr.model.layers` has: ``forward`` over whole sequences, and
``step`` over one new token of each beam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.model.backbone import Backbone
from recbole_gr.model.beam_tokens import KeysValues
from recbole_gr.model.dropout import Dropout
from recbole_gr.model.position import RelativePositionBias

if TYPE_CHECKING:
    from recbole.config import Config

    from recbole_gr.model.beam_tokens import BeamTokens

N_DISTANCES = 512  # that HSTUOriginal tells apart


class Block(nn.Module):
    """``x + out(gated attention)`` of a normed input.

    ``u, v, q, k`` are one linear map of the input. Subclasses say which of them are activated
    (:meth:`project`), what the weights are (:meth:`weigh`) and what becomes of their mixture
    (:meth:`gate`).
    """

    bias: nn.Module  # of the logits, from the positions of queries and keys

    def __init__(self, config: Config):
        super().__init__()
        self.n_heads, self.head_size = config["n_heads"], config["head_size"]
        self.dropout = Dropout(config["dropout"])

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.head_size)).transpose(1, 2)  # [B, H, T, dh]

    def forward(self, x: Tensor, position: Tensor) -> tuple[Tensor, KeysValues]:
        """``x [B, T, d]`` -> the block's output, and its keys and values ``[B, H, T, dh]``."""
        u, v, q, k = self.project(x)
        logits = self.scale(q @ k.transpose(2, 3)) + self.bias(position, position)
        future = position.unsqueeze(0) > position.unsqueeze(1)
        return self.add(x, u, self.weigh(logits, future) @ v), (k, v)

    def step(
        self,
        x: Tensor,
        position: Tensor,
        parents: Tensor | None,
        own: BeamTokens,
        shared: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """One new token of each beam, ``x [B, W, d]``; see :meth:`Stack.step`."""
        u, v, q, k = self.project(x)
        own.append(k, v, parents)
        history_k, history_v, hidden = shared  # [B, H, S, dh] twice, [B, 1, 1, S]
        n_own, n_history = len(own), history_k.shape[2]
        # The newest token stands at `position`, the beam's own ones right before it.
        place = torch.arange(n_own, device=x.device)
        near = self.bias(place[-1:], place)  # [H, 1, t]
        far = self.bias(position.unsqueeze(1), torch.arange(n_history, device=x.device))
        logits = self.scale(torch.cat([q @ history_k.transpose(2, 3), own.logits(q)], 3))
        bias = torch.cat([far, near.expand(far.shape[0], -1, -1, -1)], 3)  # [B, H, 1, S + t]
        weight = self.weigh(logits + bias, F.pad(hidden, (0, n_own)))
        mixed = own.mix(weight[..., n_history:]) + weight[..., :n_history] @ history_v
        return self.add(x, u, mixed)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``[B, T, d]`` -> the gate ``u [B, T, H * dh]`` and ``v, q, k [B, H, T, dh]``."""
        raise NotImplementedError

    def scale(self, logits: Tensor) -> Tensor:
        """The products of queries and keys, before the bias is added."""
        raise NotImplementedError

    def weigh(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Logits -> weights of the values, 0 where a key is ``hidden``."""
        raise NotImplementedError

    def gate(self, mixed: Tensor, u: Tensor) -> Tensor:
        """The mixture of values ``[B, T, H * dh]`` -> what is added to the input."""
        raise NotImplementedError

    def add(self, x: Tensor, u: Tensor, mixed: Tensor) -> Tensor:
        return x + self.gate(mixed.transpose(1, 2).flatten(2), u)


class AuthorsBlock(Block):
    """The block in IntRR's released code: softplus weights that sum to 1 over the keys, SiLU on the
    gate alone, no norm after attention, T5's distance buckets."""

    def __init__(self, config: Config):
        super().__init__(config)
        size, inner = config["hidden_size"], self.n_heads * self.head_size
        self.norm = nn.LayerNorm(size)
        self.projection = nn.Linear(size, 4 * inner)
        self.bias = RelativePositionBias(self.n_heads, bidirectional=False)
        self.out = nn.Linear(inner, size)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, v, q, k = self.projection(self.norm(x)).chunk(4, dim=-1)
        return F.silu(u), self.heads(v), self.heads(q), self.heads(k)

    def scale(self, logits: Tensor) -> Tensor:
        return logits * self.head_size**-0.5

    def weigh(self, logits: Tensor, hidden: Tensor) -> Tensor:
        weight = F.softplus(logits.float()).masked_fill(hidden, 0.0)
        return (weight / (weight.sum(-1, keepdim=True) + 1e-8)).to(logits.dtype)

    def gate(self, mixed: Tensor, u: Tensor) -> Tensor:
        return self.dropout(self.out(mixed * u))


class OriginalBlock(Block):
    """The block of Zhai et al., *Actions Speak Louder than Words*, ICML 2024, equations 1 to 3:
    SiLU on ``u, v, q, k`` and on the logits, the mixture normed and then gated.

    The logits' bias is that of the distance between places, one number for all heads; times, which
    the paper also buckets, are not among the inputs here.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        size, inner = config["hidden_size"], self.n_heads * self.head_size
        self.size, self.inner = size, inner
        # The released code divides by the length of its padded sequences. A constant does not
        # depend on the batch, and the norm after it takes the scale out anyway.
        self.length = config["MAX_ITEM_LIST_LENGTH"]
        self.projection = nn.Linear(size, 4 * inner, bias=False)
        nn.init.normal_(self.projection.weight, std=0.02)
        self.bias = DistanceBias(N_DISTANCES)
        self.out = nn.Linear(inner, size)
        nn.init.xavier_uniform_(self.out.weight)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        normed = F.layer_norm(x, (self.size,), eps=1e-6)
        u, v, q, k = F.silu(self.projection(normed)).chunk(4, dim=-1)
        return u, self.heads(v), self.heads(q), self.heads(k)

    def scale(self, logits: Tensor) -> Tensor:
        return logits

    def weigh(self, logits: Tensor, hidden: Tensor) -> Tensor:
        return F.silu(logits).masked_fill(hidden, 0.0) / self.length

    def gate(self, mixed: Tensor, u: Tensor) -> Tensor:
        return self.out(self.dropout(u * F.layer_norm(mixed, (self.inner,), eps=1e-6)))


class DistanceBias(nn.Module):
    """One learned number for each distance back in time, the same for all heads."""

    def __init__(self, n_distances: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_distances) * 0.02)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """``[..., Q], [..., K]`` positions -> ``[..., 1, Q, K]``."""
        back = queries.unsqueeze(-1) - keys.unsqueeze(-2)
        return self.weight[back.clamp(0, len(self.weight) - 1)].unsqueeze(-3)


class HSTU(Backbone):
    """Blocks of IntRR's HSTU; no norm after the last one and no dropout before the first."""

    block: type[Block] = AuthorsBlock
    blocks: Sequence[Block]

    def __init__(self, config: Config):
        super().__init__()
        blocks = (self.block(config) for _ in range(config["n_layers"]))
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]

    def forward(
        self, x: Tensor, *, keep_keys: bool = False
    ) -> Tensor | tuple[Tensor, list[KeysValues]]:
        """Whole sequences ``[B, T, d]``, padded on the right; see :class:`Backbone`."""
        position, kept = torch.arange(x.shape[1], device=x.device), []
        for block in self.blocks:
            x, keys_values = block(x, position)
            kept.append(keys_values)
        return (x, kept) if keep_keys else x

    def step(
        self,
        x: Tensor,
        position: Tensor,
        parents: Tensor | None,
        own: Sequence[BeamTokens],
        shared: tuple[Sequence[KeysValues], Tensor],
    ) -> Tensor:
        """One new token of each beam, ``x [B, W, d]``; arguments as of ``Backbone.step``."""
        keys_values, mask = shared
        hidden = mask < 0
        for block, kept, tokens in zip(self.blocks, keys_values, own):
            x = block.step(x, position, parents, tokens, (*kept, hidden))
        return x


class HSTUOriginal(HSTU):
    """Blocks of HSTU as published."""

    block = OriginalBlock
