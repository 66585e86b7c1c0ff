"""User-to-Token: the recommender, which reads a history and writes the SID of the next item."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_gr.generation.beam_search import Step
from recbole_gr.model.attention import key_mask_bias
from recbole_gr.model.beam_tokens import BeamTokens
from recbole_gr.model.dropout import Dropout
from recbole_gr.model.layers import CodeHead, Stack, init_weights
from recbole_gr.model.pit.lazy_decoder import LazyDecoder


class Reading(NamedTuple):
    """What was read of a batch of histories, once for all targets and candidates.

    Attributes:
        memory: ``[B, M, d]`` one state per token of the history.
        place: ``[B or 1, T]`` the last token that each of the ``T`` targets may see.
        bias: ``[B or 1, 1, T, M]`` 0 where a target sees a token, else -inf.
    """

    memory: Tensor
    place: Tensor
    bias: Tensor

    def detach(self) -> "Reading":
        """The same without gradient."""
        return Reading(self.memory.detach(), self.place, self.bias)


class UserToToken(nn.Module):
    """``P(c | H_u)``, code by code (PIT); what the two architectures share.

    A history comes as ``[B, M, d]`` embedded tokens, one (item vectors) or ``L`` (SIDs) per item.

    Args:
        size: width of the model.
        sizes: codebook size of each level.
        tokens_per_item: 1 or ``L``.
    """

    level_offset: Tensor

    def __init__(self, size: int, sizes: Sequence[int], tokens_per_item: int):
        super().__init__()
        self.sizes, self.tokens_per_item = tuple(sizes), tokens_per_item
        starts = torch.tensor((0, *self.sizes[:-1])).cumsum(0)
        self.register_buffer("level_offset", starts, persistent=False)
        self.code_embedding = nn.Embedding(sum(self.sizes), size)
        self.begin = nn.Parameter(torch.zeros(size))
        self.heads = nn.ModuleList(CodeHead(size, n) for n in self.sizes)

    def read(self, history: Tensor, length: Tensor, all_targets: bool) -> Reading:
        """Read the histories.

        Args:
            history: ``[B, M, d]`` embedded tokens, padded on the right.
            length: ``[B]`` items of each history.
            all_targets: prepare the prediction of every next item (``T`` = items of the longest
                history); otherwise of the one after the history alone (``T`` = 1).
        """
        raise NotImplementedError

    def logits(self, reading: Reading, codes: Tensor) -> list[Tensor]:
        """Per level ``[B, T, sizes[l]]`` logits of the codes ``[B, T, L]`` given those before."""
        raise NotImplementedError

    def start(self, reading: Reading) -> Step:
        """The same one level at a time, for any number of continuations; at level 0 one row per
        target (see :mod:`recbole_gr.generation.beam_search`)."""
        raise NotImplementedError

    def item_states(self, reading: Reading) -> Tensor:
        """``[B, T, d]`` one state per item of the history: the mean of its tokens' (inferred)."""
        if self.tokens_per_item == 1:
            return reading.memory
        return reading.memory.unflatten(1, (-1, self.tokens_per_item)).mean(2)

    def history_of(self, codes: Tensor) -> Tensor:
        """``[B, T, L]`` SIDs of the history's items -> ``[B, T * L, d]`` embedded tokens."""
        return self.code_embedding((codes + self.level_offset).flatten(1))

    def _initialise(self, std: float) -> None:
        self.apply(lambda module: init_weights(module, std))
        nn.init.normal_(self.begin, std=std)

    def _embed(self, codes: Tensor) -> Tensor:
        """``[..., L]`` SIDs -> ``[..., L, d]``: the first token, then all codes but the last."""
        begin = self.begin.expand(*codes.shape[:-1], 1, -1)
        return torch.cat([begin, self.code_embedding((codes + self.level_offset)[..., :-1])], -2)


class LazyUserToToken(UserToToken):
    """A causal pass over the history, then :class:`LazyDecoder`.

    ``n_context_layers`` causal blocks let the states of the history know what came before
    (inferred; 0 gives OneRec-V2's context without any). All is causal, so one pass over a sequence
    predicts every item in it.
    """

    def __init__(
        self,
        size: int,
        sizes: Sequence[int],
        tokens_per_item: int,
        n_context_layers: int,
        n_layers: int,
        n_heads: int,
        head_size: int,
        inner: int,
        dropout: float,
        init_std: float,
    ):
        super().__init__(size, sizes, tokens_per_item)
        parts = (size, n_heads, head_size, inner, dropout)
        self.context = (
            Stack(n_context_layers, *parts, causal=True, position="rotary")
            if n_context_layers
            else Dropout(dropout)
        )
        self.decoder = LazyDecoder(n_layers, *parts)
        self._initialise(init_std)

    def read(self, history: Tensor, length: Tensor, all_targets: bool) -> Reading:
        memory = self.context(history)
        token = torch.arange(history.shape[1], device=history.device)
        last = token[self.tokens_per_item - 1 :: self.tokens_per_item]  # of each item
        place = last.unsqueeze(0) if all_targets else last[length - 1].unsqueeze(1)  # [1 or B, T]
        # Tokens after the place are the future or padding.
        hidden = token > place.unsqueeze(2)
        bias = torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, float("-inf"))
        return Reading(memory, place, bias.unsqueeze(1))

    def logits(self, reading: Reading, codes: Tensor) -> list[Tensor]:
        context = self.decoder.context(reading.memory)
        hidden = self.decoder(self._embed(codes), context, reading.place, reading.bias)
        return [head(hidden[..., level, :]) for level, head in enumerate(self.heads)]

    def start(self, reading: Reading) -> Step:
        return _LazySteps(self, reading)


class EncoderDecoderUserToToken(UserToToken):
    """T5's form: a bidirectional encoder and a decoder, one target per history."""

    def __init__(
        self,
        size: int,
        sizes: Sequence[int],
        tokens_per_item: int,
        n_encoder_layers: int,
        n_layers: int,
        n_heads: int,
        head_size: int,
        inner: int,
        dropout: float,
        init_std: float,
    ):
        super().__init__(size, sizes, tokens_per_item)
        parts = (size, n_heads, head_size, inner, dropout)
        self.encoder = Stack(n_encoder_layers, *parts, causal=False)
        self.decoder = Stack(n_layers, *parts, causal=True, cross=True)
        self._initialise(init_std)

    def read(self, history: Tensor, length: Tensor, all_targets: bool) -> Reading:
        if all_targets:
            raise ValueError("an encoder-decoder predicts one target per history")
        n_tokens = length * self.tokens_per_item
        bias = key_mask_bias(n_tokens, history.shape[1])  # [B, 1, 1, M]
        memory = self.encoder(history, key_bias=bias)
        return Reading(memory, (n_tokens - 1).unsqueeze(1), bias)

    def logits(self, reading: Reading, codes: Tensor) -> list[Tensor]:
        x = self._embed(codes.squeeze(1))
        hidden = self.decoder(x, memory=reading.memory, memory_bias=reading.bias)  # [B, L, d]
        return [head(hidden[:, level : level + 1]) for level, head in enumerate(self.heads)]

    def start(self, reading: Reading) -> Step:
        return _StackSteps(self, reading)


class _LazySteps:
    """Decoding with :class:`LazyDecoder`: the beams of a user may belong to several targets."""

    target: Tensor  # [B, W] the target of each beam

    def __init__(self, model: LazyUserToToken, reading: Reading):
        self.model, self.reading = model, reading
        self.context = model.decoder.context(reading.memory)
        self.own = [BeamTokens() for _ in model.decoder.blocks]

    def __call__(self, level: int, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        model, (memory, place, bias) = self.model, self.reading
        n_users, n_targets = memory.shape[0], place.shape[1]
        if codes is None or parents is None:
            x = model.begin.expand(n_users, n_targets, -1)
            target = torch.arange(n_targets, device=memory.device).unsqueeze(0)
            self.target = target.expand(n_users, -1)
        else:
            x = model.code_embedding(codes + model.level_offset[level - 1])
            self.target = self.target.gather(1, parents)
            if n_targets == 1:  # a broadcast will do
                bias = bias.expand(n_users, -1, -1, -1)
            else:
                rows = self.target[:, None, :, None].expand(-1, 1, -1, bias.shape[3])
                bias = bias.expand(n_users, -1, -1, -1).gather(2, rows)
            place = place.expand(n_users, -1).gather(1, self.target)
        hidden = model.decoder.step(x, parents, self.own, self.context, place, bias)
        return model.heads[level](hidden)


class _StackSteps:
    """Decoding with a :class:`Stack`: the encoder's keys and values once per user."""

    def __init__(self, model: EncoderDecoderUserToToken, reading: Reading):
        self.model, self.reading = model, reading
        blocks = model.decoder.blocks
        cross = (block.cross for block in blocks if block.cross is not None)
        self.keys_values = [attention.keys_values(reading.memory) for attention in cross]
        self.own = [BeamTokens() for _ in blocks]

    def __call__(self, level: int, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        model, (memory, _, bias) = self.model, self.reading
        if codes is None:
            x = model.begin.expand(memory.shape[0], 1, -1)
        else:
            x = model.code_embedding(codes + model.level_offset[level - 1])
        position = torch.full((1,), level, device=memory.device)
        hidden = model.decoder.step(
            x, position, parents, self.own, memory=self.keys_values, memory_bias=bias
        )
        return model.heads[level](hidden)
