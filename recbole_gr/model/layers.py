"""Transformer parts shared by the recommenders: T5's form, with a cache made for beam search.

Every module has two ways through it that give the same numbers: ``forward`` over whole sequences
(training) and ``step`` over one new token of each beam (decoding). In ``step`` the beams of a
user are the *queries* of one attention call over that user's keys, so the user's keys and values
are stored once and never copied; only the few tokens a beam has generated itself are per beam.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.model.attention import Attention
from recbole_gr.model.beam_tokens import BeamTokens, KeysValues
from recbole_gr.model.dropout import Dropout
from recbole_gr.model.norm import RMSNorm
from recbole_gr.model.position import RelativePositionBias, Rotary, Rotation


def logits_of(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, a model's last product.

    Where no gradient is wanted it ranks, and is made in single precision whatever autocast says:
    bfloat16 knows steps of 1/16 between 8 and 16, and items would be tied that are not.
    """
    kind = x.device.type
    if torch.is_grad_enabled() or not torch.is_autocast_enabled(kind):
        return F.linear(x, weight, bias)
    with torch.autocast(kind, enabled=False):
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float())


class CodeHead(nn.Linear):
    """Logits of the codes of a level from states, see :func:`logits_of`."""

    def __init__(self, size: int, n_codes: int):
        super().__init__(size, n_codes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., d]`` -> ``[..., V]``."""
        return logits_of(x, self.weight)


def feed_forward(size: int, inner: int, dropout: float, depth: int) -> nn.Module:
    """A feed-forward layer with ``depth`` hidden layers of ``inner`` features."""
    return (
        FeedForward(size, inner, dropout)
        if depth == 1
        else DeepFeedForward(size, inner, dropout, depth)
    )


class DeepFeedForward(nn.Sequential):
    """Several hidden layers, with biases and dropout at the output (IntRR's released code)."""

    def __init__(self, size: int, inner: int, dropout: float, depth: int):
        layers: list[nn.Module] = [nn.Linear(size, inner), nn.ReLU(inplace=True)]
        for _ in range(depth - 1):
            layers += [nn.Linear(inner, inner), Dropout(dropout), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(inner, size), Dropout(dropout))


class FeedForward(nn.Module):
    """``W_out relu(W_in x)`` without biases (T5)."""

    def __init__(self, size: int, inner: int, dropout: float):
        super().__init__()
        self.inner = nn.Linear(size, inner, bias=False)
        self.outer = nn.Linear(inner, size, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.dropout(F.relu(self.inner(x), inplace=True)))


class Block(nn.Module):
    """Self-attention, optional cross-attention, feed-forward; each normed before and added to
    its input (T5's pre-norm residual form)."""

    def __init__(
        self,
        size: int,
        n_heads: int,
        head_size: int,
        inner: int,
        dropout: float,
        attention_dropout: float,
        cross: bool,
        depth: int = 1,
        scaled: bool = True,
    ):
        super().__init__()
        heads = (size, n_heads, head_size, attention_dropout)
        self.attention_norm = RMSNorm(size)
        self.attention = Attention(*heads, scaled=scaled)
        self.cross_norm = RMSNorm(size) if cross else None
        self.cross = Attention(*heads, cross=True, scaled=scaled) if cross else None
        self.feed_forward_norm = RMSNorm(size)
        self.feed_forward = feed_forward(size, inner, dropout, depth)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        causal: bool,
        rotation: Rotation | None,
        memory: Tensor | None = None,
        memory_bias: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """``x [B, T, d]`` -> the block's output and its self-attention keys and values."""
        q, k, v = self.attention.project(self.attention_norm(x), rotation)
        x = x + self.dropout(self.attention.attend(q, k, v, bias, causal))
        attended = None
        if self.cross is not None:
            assert memory is not None, "cross-attention needs the encoder's output"
            attended = self.cross.keys_values(memory)
        return self._rest(x, attended, memory_bias), (k, v)

    def step(
        self,
        x: Tensor,
        parents: Tensor | None,
        own: BeamTokens,
        own_bias: Tensor | None,
        rotation: Rotation | None,
        shared: tuple[Tensor, Tensor, Tensor] | None,
        memory: KeysValues | None,
        memory_bias: Tensor | None,
    ) -> Tensor:
        """One new token of each beam, ``x [B, W, d]``; see :meth:`Stack.step`."""
        q, k, v = self.attention.project(self.attention_norm(x), rotation)
        own.append(k, v, parents)
        x = x + self.dropout(self.attention.attend_own(q, own, own_bias, shared))
        return self._rest(x, memory, memory_bias)

    def _rest(self, x: Tensor, memory: KeysValues | None, memory_bias: Tensor | None) -> Tensor:
        if self.cross is not None and self.cross_norm is not None:
            assert memory is not None, "cross-attention needs the encoder's keys and values"
            x = x + self.dropout(self.cross.cross(self.cross_norm(x), memory, memory_bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Stack(nn.Module):
    """Blocks with a final norm (T5), and one of two ways to know positions.

    ``relative_bias``: T5's learned bias by distance, shared by all blocks. ``rotary``: rotated
    queries and keys, several times faster to train where it lets the fused kernel run.
    ``scaled``: see :class:`~recbole_gr.model.attention.Attention`.
    """

    blocks: Sequence[Block]

    def __init__(
        self,
        n_layers: int,
        size: int,
        n_heads: int,
        head_size: int,
        inner: int,
        dropout: float,
        attention_dropout: float = 0.0,
        causal: bool = True,
        cross: bool = False,
        position: str = "relative_bias",
        depth: int = 1,
        scaled: bool = True,
    ):
        super().__init__()
        block = (size, n_heads, head_size, inner, dropout, attention_dropout, cross, depth, scaled)
        blocks = (Block(*block) for _ in range(n_layers))
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        rotary = position == "rotary"
        self.rotary = Rotary(head_size) if rotary else None
        self.bias = None if rotary else RelativePositionBias(n_heads, bidirectional=not causal)
        self.norm = RMSNorm(size)
        self.dropout = Dropout(dropout)
        self.causal = causal

    def forward(
        self,
        x: Tensor,
        key_bias: Tensor | None = None,
        memory: Tensor | None = None,
        memory_bias: Tensor | None = None,
        keep_keys: bool = False,
    ) -> Tensor | tuple[Tensor, list[KeysValues]]:
        """Whole sequences.

        Args:
            x: ``[B, T, d]`` token embeddings, padded on the right. A causal stack needs no mask
                for the padding: no real token looks ahead to it.
            key_bias: ``[B, 1, 1, T]`` 0 or -inf, for stacks that are not causal.
            memory: ``[B, S, d]`` encoder output for cross-attention.
            memory_bias: ``[B, 1, 1, S]``.
            keep_keys: also return the self-attention keys and values of every block.
        """
        position = torch.arange(x.shape[1], device=x.device)
        rotation = None if self.rotary is None else self.rotary(position)
        bias, causal = key_bias, self.causal and self.bias is None
        if self.bias is not None:
            bias = self.bias(position, position).unsqueeze(0)  # [1, H, T, T]
            if self.causal:
                future = position.unsqueeze(0) > position.unsqueeze(1)
                bias = bias.masked_fill(future, float("-inf"))
            if key_bias is not None:
                bias = bias + key_bias
        x, kept = self.dropout(x), []
        for block in self.blocks:
            x, keys_values = block(x, bias, causal, rotation, memory, memory_bias)
            if keep_keys:
                kept.append(keys_values)
        x = self.dropout(self.norm(x))
        return (x, kept) if keep_keys else x

    def step(
        self,
        x: Tensor,
        position: Tensor,
        parents: Tensor | None,
        own: Sequence[BeamTokens],
        shared: tuple[Sequence[KeysValues], Tensor] | None = None,
        memory: Sequence[KeysValues] | None = None,
        memory_bias: Tensor | None = None,
    ) -> Tensor:
        """One new token of each beam.

        Args:
            x: ``[B, W, d]``.
            position: ``[B]`` or ``[1]`` place of the new token in its sequence.
            parents: ``[B, W]`` the beams of the last step that these extend, None in the first.
            own: a :class:`BeamTokens` per block; the new token is added to it.
            shared: ``(keys and values per block, mask [B, 1, 1, S])`` of the history in
                self-attention, at positions ``0 .. S - 1``.
            memory: cross-attention keys and values per block; ``memory_bias [B, 1, 1, S]``.

        Returns:
            ``[B, W, d]``.
        """
        rotation: Rotation | None = None
        own_bias = mask = None
        if self.rotary is not None:
            rotation = [r[:, None, None] for r in self.rotary(position)]  # [B, 1, 1, dh]
        elif self.bias is not None:
            place = torch.arange(len(own[0]) + 1, device=x.device)
            own_bias = self.bias(place[-1:], place)  # [H, 1, t]
        if shared is not None:
            history, mask = shared
            if self.bias is not None:
                place = torch.arange(mask.shape[3], device=x.device)
                mask = mask + self.bias(position.unsqueeze(1), place)  # [B, H, 1, S]
        for i, block in enumerate(self.blocks):
            user = None if mask is None else (*history[i], mask)
            attended = None if memory is None else memory[i]
            x = block.step(x, parents, own[i], own_bias, rotation, user, attended, memory_bias)
        return self.norm(x)


def init_weights(module: nn.Module, std: float = 0.02) -> None:
    """Normal initialisation of linear and embedding weights, zero biases."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
