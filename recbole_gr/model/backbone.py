"""Causal backbones: sequence encoders that any model can take by the name in ``backbone``.

A backbone is made from the configuration. ``forward`` maps ``[B, T, d]`` to ``[B, T, d]``, where
place ``t`` of the output depends on places ``0 .. t`` of the input alone; sequences are padded on
the right, so padding needs no mask. TIGER also needs ``blocks``, ``keep_keys`` and ``step`` of
:class:`~recbole_gr.model.layers.Stack`, to decode with a cache of keys and values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_gr.model.layers import Stack

if TYPE_CHECKING:
    from recbole.config import Config


class Transformer(Stack):
    """A T5 decoder without cross-attention, as IntRR's released configuration has it: relative
    position bias shared by the layers, RMS normalisation, a feed-forward layer of
    ``feed_forward_depth`` hidden layers."""

    def __init__(self, config: Config):
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
        )
        # T5 does not scale its logits by 1 / sqrt(head_size), and the released code keeps torch's
        # own initial weights; the queries' rows make up for the scale of our attention.
        with torch.no_grad():
            for block in self.blocks:
                weight = block.attention.query_key_value.weight
                weight[: len(weight) // 3] *= config["head_size"] ** 0.5
