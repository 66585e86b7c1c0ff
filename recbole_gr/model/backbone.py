"""Causal backbones: sequence encoders that any model can take by the name in ``backbone``.

Models ask :func:`backbone_class` for the class, and say which of its methods they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recbole_gr import registry
from recbole_gr.errors import ConfigError
from recbole_gr.model.beam_tokens import BeamTokens, KeysValues
from recbole_gr.model.layers import Stack

if TYPE_CHECKING:
    from recbole.config import Config

_QUERIES = "attention.query_key_value.weight"  # ends their name; the first third of the rows


class Backbone(nn.Module):
    """A causal sequence encoder, base class of all backbones. The constructor of a subclass takes
    the configuration, from which it reads its sizes (``hidden_size`` is d), and nothing else.

    Place ``t`` of the output depends on places ``0 .. t`` of the input alone; sequences are padded
    on the right, so padding needs no mask. IntRR needs :meth:`forward` alone. TIGER also decodes
    with a cache: it asks ``forward`` for the keys and values of the history, once per user, and has
    :meth:`step` go on from them. What a key and a value are is the backbone's own matter; those of
    a recurrent network are its states. The two ways give the same numbers::

        hidden, kept = backbone(history, keep_keys=True)  # [B, S, d]; [B, H, S, dh] twice a block
        own = [BeamTokens() for _ in backbone.blocks]  # of the tokens that the beams generate
        hidden = backbone.step(x, length, None, own, (kept, mask))  # [B, W, d], of W beams

    Attributes:
        blocks: the parts that keep keys and values each.
    """

    blocks: Sequence[Any]

    def forward(
        self, x: Tensor, *, keep_keys: bool = False
    ) -> Tensor | tuple[Tensor, list[KeysValues]]:
        """Whole sequences ``[B, T, d]`` -> ``[B, T, d]``.

        Args:
            x: token embeddings, padded on the right.
            keep_keys: also return the keys and values of every block, ``[B, H, T, dh]`` each.
        """
        raise NotImplementedError

    def step(
        self,
        x: Tensor,
        position: Tensor,
        parents: Tensor | None,
        own: Sequence[BeamTokens],
        shared: tuple[Sequence[KeysValues], Tensor],
    ) -> Tensor:
        """One new token of each beam, ``[B, W, d]`` -> ``[B, W, d]``.

        Args:
            x: embeddings of the new tokens.
            position: ``[B]`` place of the new token in its sequence.
            parents: ``[B, W]`` the beams of the last step that these extend; of no meaning in the
                first step, in which all extend the history.
            own: a :class:`BeamTokens` per block, of the tokens that the beams have generated
                before, none in the first step; the new token is added to it.
            shared: ``(keys and values per block, mask [B, 1, 1, S])`` of the history, at positions
                ``0 .. S - 1``; the mask is 0, or -inf where there is padding.
        """
        raise NotImplementedError


def backbone_class(name: str, model: str, needs: Sequence[str] = ("forward",)) -> type[Backbone]:
    """The class of a backbone that a model can use.

    Args:
        name: of the configuration's ``backbone``.
        model: name of the model, for messages.
        needs: methods of :class:`Backbone` that the model calls.

    Raises:
        ConfigError: there is none of the name, or it lacks a method; says which.
    """
    backbone = registry.get_backbone(name)
    missing = [method for method in needs if getattr(backbone, method) is getattr(Backbone, method)]
    if missing:
        usable = [known for known in registry.BACKBONES if known != name]
        raise ConfigError(
            f"backbone: {name} has no method {' or '.join(missing)}, which {model} needs (see "
            f"recbole_gr.model.backbone.Backbone). Write it, or take {' or '.join(usable)}."
        )
    return backbone


class Transformer(Stack, Backbone):
    """A T5 decoder without cross-attention, as IntRR's released configuration has it: relative
    position bias shared by the layers, logits without a scale, RMS normalisation, a feed-forward
    layer of ``feed_forward_depth`` hidden layers. With ``position: rotary`` the logits are scaled,
    as is usual there."""

    def __init__(self, config: Config):
        unscaled = config["position"] == "relative_bias"
        super().__init__(
            config["n_layers"],
            config["hidden_size"],
            config["n_heads"],
            config["head_size"],
            config["inner_size"],
            config["dropout"],
            config["attention_dropout"],
            position=config["position"],
            depth=config["feed_forward_depth"],
            scaled=not unscaled,
        )
        self.since_format = 2 if unscaled else 1
        if not unscaled:  # torch's own initial weights are meant for logits without a scale
            with torch.no_grad():
                for name, weight in self.state_dict(keep_vars=True).items():
                    if name.endswith(_QUERIES):
                        weight[: len(weight) // 3] *= config["head_size"] ** 0.5

    def upgrade(self, weights: dict[str, Tensor], prefix: str) -> None:
        """Format 1 scaled the logits, and its queries had learned to make up for it."""
        root = self.blocks[0].attention.head_size ** 0.5
        for name in self.state_dict():
            if name.endswith(_QUERIES) and prefix + name in weights:
                weight = weights[prefix + name].clone()
                weight[: len(weight) // 3] /= root
                weights[prefix + name] = weight
