"""TIGER: next-item recommendation as generation of the item's SID.

Rajput et al., *Recommender Systems with Generative Retrieval*, NeurIPS 2023 (section 3.2). The
history is flattened into the codes of its items. ``architecture`` chooses

* ``encoder_decoder``: the paper's T5 form. A bidirectional encoder reads the history, a decoder
  generates the ``L`` codes of the next item.
* ``decoder_only``: one causal stack over history and target. Each position predicts the next
  code, so one pass over a whole sequence trains every target in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recbole_gr.config.train_sample import resolve_train_sample
from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import Step
from recbole_gr.model.attention import key_mask_bias
from recbole_gr.model.backbone import backbone_class
from recbole_gr.model.beam_tokens import BeamTokens
from recbole_gr.model.item_side import ItemSide
from recbole_gr.model.layers import CodeHead, Stack, init_weights, logits_of

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    from recbole_gr.sid.table import SIDTable

DECODES = ("forward", "step")  # what decoder_only needs of a backbone


class TIGER(ItemSide):
    """Generates the SID of the next item, code by code (Rajput et al. 2023).

    See the module's docstring; sizes and switches are in ``properties/model/TIGER.yaml``.
    """

    without = ("item_input", "item_dropout")  # a token is a code, not an item
    results_version = 1  # since T5's logits have no scale in the forward pass

    def __init__(
        self, config: Config, dataset: Dataset, sid: SIDTable, content: Tensor | None = None
    ):
        super().__init__(config, dataset, sid, content)
        size = config["hidden_size"]
        stack = dict(
            size=size,
            n_heads=config["n_heads"],
            head_size=config["head_size"],
            inner=config["inner_size"],
            dropout=config["dropout"],
            attention_dropout=config["attention_dropout"],
            position=config["position"],
            depth=config["feed_forward_depth"],
        )
        self.causal = config["architecture"] == "decoder_only"
        self.one_target = config["train_sample"] == "prefix"
        self.label_smoothing = config["label_smoothing"]
        self.code_embedding = nn.Embedding(sum(self.sizes), size)
        self.user_tokens = config["user_tokens"]
        self.user_embedding = nn.Embedding(self.user_tokens, size) if self.user_tokens else None
        if self.causal:
            self.decoder: Any = backbone_class(config["backbone"], "TIGER", DECODES)(config)
        else:
            self.encoder = Stack(config["n_encoder_layers"], causal=False, **stack)
            self.decoder = Stack(config["n_layers"], causal=True, cross=True, **stack)
            self.begin = nn.Parameter(torch.zeros(size))
        self.heads = nn.ModuleList(CodeHead(size, n) for n in self.sizes)
        std = config["initializer_range"]
        if std is not None:
            self.apply(lambda module: init_weights(module, std))
        if config["tie_embeddings"]:
            self._tie_heads()
        if not self.causal:
            nn.init.normal_(self.begin, std=1.0 if std is None else std)

    @classmethod
    def prepare_config(cls, config: dict) -> None:
        """``train_sample: auto`` becomes ``sequence`` where the model is causal."""
        causal = config["architecture"] == "decoder_only"
        if config["position"] == "auto":
            config["position"] = "rotary" if causal else "relative_bias"
        if not causal and config["backbone"] != "transformer":
            raise ConfigError(
                f"backbone: {config['backbone']} is causal and has no cross-attention; use it with "
                "architecture decoder_only"
            )
        backbone_class(config["backbone"], "TIGER", DECODES)
        super().prepare_config(config)
        resolve_train_sample(config, "decoder_only")

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Sum over the levels of the cross-entropy of the target's code, mean over the targets."""
        if self.causal:
            logits, target, counted, first = self._causal_logits(interaction)
        else:
            logits, target, first = self._decoder_logits(interaction)
            counted = None
        losses = self.level_losses(logits, target, counted, self.label_smoothing)
        loss = sum(losses, start=torch.zeros((), device=target.device))
        if not self.item_head:
            return loss
        items = interaction[self.ITEM_ID].unsqueeze(1)
        if counted is not None:
            items = self.sequence(interaction)[:, 1:]
        return loss + self.item_loss(first, items, counted)

    def _causal_logits(
        self, interaction: Interaction
    ) -> tuple[list[Tensor], Tensor, Tensor | None, Tensor]:
        """Per level ``[B, T, V]`` logits of items ``1 .. T``, their codes ``[B, T, L]``, which of
        them count, and the states ``[B, T, d]`` of their first codes."""
        items = self.sequence(interaction)
        x = self._embed(self.flat_tokens(items)[:, :-1].contiguous(), interaction)
        # The code at level 0 of item t + 1 is predicted by the last token of item t, the others
        # by the token before them: the first L - 1 tokens (and the user's) predict nothing.
        first = self.n_levels - 1 + bool(self.user_tokens)
        hidden = self.decoder(x)[:, first:].unflatten(1, (-1, self.n_levels))  # [B, T, L, d]
        if self.one_target:  # a prefix sample: the last position of a row is enough
            last = interaction[self.ITEM_SEQ_LEN] - 1
            rows = torch.arange(len(last), device=last.device)
            hidden = hidden[rows, last].unsqueeze(1)
            target, counted = self.codes[interaction[self.ITEM_ID]].unsqueeze(1), None
        else:
            target, counted = self.codes[items[:, 1:]], self.counted(interaction)
        logits = [head(hidden[:, :, level]) for level, head in enumerate(self.heads)]
        return logits, target, counted, hidden[:, :, 0]

    def _decoder_logits(self, interaction: Interaction) -> tuple[list[Tensor], Tensor, Tensor]:
        """Per level ``[B, V]`` logits of the target, its codes ``[B, L]`` and the state
        ``[B, 1, d]`` of the first."""
        memory, bias = self._encode(interaction)
        target = self.codes[interaction[self.ITEM_ID]]
        begin = self.begin.expand(len(target), 1, -1)
        x = torch.cat([begin, self.code_embedding((target + self.level_offset)[:, :-1])], dim=1)
        hidden = self.decoder(x, memory=memory, memory_bias=bias)  # [B, L, d]
        logits = [head(hidden[:, level]) for level, head in enumerate(self.heads)]
        return logits, target, hidden[:, :1]

    def _encode(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Encoder output ``[B, S, d]`` and the mask of its padding ``[B, 1, 1, S]``."""
        x = self._embed(self.flat_tokens(interaction[self.ITEM_SEQ]), interaction)
        n_tokens = interaction[self.ITEM_SEQ_LEN] * self.n_levels + bool(self.user_tokens)
        bias = key_mask_bias(n_tokens, x.shape[1])
        return self.encoder(x, key_bias=bias), bias

    def _embed(self, tokens: Tensor, interaction: Interaction) -> Tensor:
        """``[B, S]`` flat codes -> ``[B, S (+ 1), d]``, the hashed user's token first if used."""
        x = self.code_embedding(tokens)
        if self.user_embedding is not None:
            user = interaction[self.USER_ID] % self.user_tokens
            x = torch.cat([self.user_embedding(user).unsqueeze(1), x], dim=1)
        return x

    def start(self, interaction: Interaction) -> Step:
        return _HistoryCache(self, interaction) if self.causal else _Memory(self, interaction)

    def _tie_heads(self) -> None:
        """Let the output heads be the rows of the code embedding (as T5 v1.0 does)."""
        self.heads = nn.ModuleList(
            _TiedHead(self.code_embedding, int(start), size)
            for start, size in zip(self.level_offset, self.sizes, strict=True)
        )


class _TiedHead(nn.Module):
    """Logits of one level against that level's rows of the shared embedding table."""

    def __init__(self, embedding: nn.Embedding, start: int, size: int):
        super().__init__()
        self._rows = slice(start, start + size)
        self._embedding = [embedding]  # in a list: the parameter belongs to the model alone

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(x, self._embedding[0].weight[self._rows]) * x.shape[-1] ** -0.5


class _Memory:
    """Decoding of ``encoder_decoder``: encoder and cross keys once per user, then beam steps."""

    def __init__(self, model: TIGER, interaction: Interaction):
        memory, self.bias = model._encode(interaction)
        self.model, blocks = model, model.decoder.blocks
        self.keys_values = [block.cross.keys_values(memory) for block in blocks]
        self.own = [BeamTokens() for _ in blocks]
        self.n_users = memory.shape[0]

    def __call__(self, level: int, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        model = self.model
        if codes is None:
            x = model.begin.expand(self.n_users, 1, -1)
        else:
            x = model.code_embedding(codes + model.level_offset[level - 1])
        position = torch.full((1,), level, device=self.bias.device)
        hidden = model.decoder.step(
            x, position, parents, self.own, memory=self.keys_values, memory_bias=self.bias
        )
        if codes is None:
            self.user = hidden[:, 0]
        return model.heads[level](hidden)


class _HistoryCache:
    """Decoding of ``decoder_only``: the history's keys and values once per user."""

    def __init__(self, model: TIGER, interaction: Interaction):
        self.model = model
        x = model._embed(model.flat_tokens(interaction[model.ITEM_SEQ]), interaction)
        hidden, keys_values = model.decoder(x, keep_keys=True)
        self.n_tokens = interaction[model.ITEM_SEQ_LEN] * model.n_levels + bool(model.user_tokens)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        self.user = hidden[rows, self.n_tokens - 1]  # [B, d]
        self.history = keys_values, key_mask_bias(self.n_tokens, x.shape[1])
        self.own = [BeamTokens() for _ in model.decoder.blocks]

    def __call__(self, level: int, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        model = self.model
        if codes is None:
            return model.heads[0](self.user.unsqueeze(1))
        x = model.code_embedding(codes + model.level_offset[level - 1])
        position = self.n_tokens + level - 1
        hidden = model.decoder.step(x, position, parents, self.own, shared=self.history)
        return model.heads[level](hidden)
