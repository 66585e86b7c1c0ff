"""Residual k-means on content that a contrastive projection has bent towards behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from recbole_gr.errors import ConfigError
from recbole_gr.sid.counting import distinct
from recbole_gr.terminal.bars import Bar
from recbole_gr.tokenizer.rkmeans import RKMeans

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures, Signals


class I2IRKMeans(RKMeans):
    """Item-to-item contrastive projection of the content, then residual k-means.

    A small MLP is trained so that items next to each other in training sequences come to lie
    close: symmetric InfoNCE over pairs, the other pairs of a batch being the negatives. Residual
    k-means then clusters the projected vectors, scaled to length 1. An item that no sequence holds
    is projected from its content like any other.

    Source: the recipe of OneRec's tokenizer, which PIT (arXiv 2602.08530) takes for its starting
    SIDs; sizes and temperature are inferred.
    """

    signals: tuple[str, ...] = ("item_pairs",)

    def build(self) -> None:
        hidden, self.code_dim = self.positive("i2i_hidden"), self.positive("i2i_dim")
        self.projection = nn.Sequential(
            nn.Linear(self.dim, hidden), nn.ReLU(), nn.Linear(hidden, self.code_dim)
        )
        for level, size in enumerate(self.sizes):
            self.register_buffer(f"centroids_{level}", torch.zeros(size, self.code_dim))

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        pairs = (signals or {}).get("item_pairs")
        if pairs is None or len(pairs) == 0:
            raise ConfigError(
                "I2IRKMeans needs pairs of neighbouring items, which the training sequences do not "
                "give here; use another tokenizer, such as RKMeans"
            )
        losses = self._train_projection(content, pairs.to(content.device), progress)
        figures, history = super().fit_content(self._project(content).float(), signals, progress)
        figures = {"contrastive_first": losses[0], "contrastive_last": losses[-1], **figures}
        return figures, history

    def encode_batch(self, content: torch.Tensor) -> torch.Tensor:
        return super().encode_batch(self._project(content))

    def last_level_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return super().last_level_batch(self._project(content), codes)

    @torch.no_grad()
    def _project(self, content: torch.Tensor) -> torch.Tensor:
        """``[n, d]`` -> ``[n, i2i_dim]`` of length 1, in float64 so that an item's codes do not
        depend on its batch."""
        x = content.double()
        for layer in self.projection:
            if isinstance(layer, nn.Linear):
                x = F.linear(x, layer.weight.double(), layer.bias.double())
            else:
                x = layer(x)
        return F.normalize(x, dim=1)

    def _train_projection(
        self, content: torch.Tensor, pairs: torch.Tensor, progress: bool
    ) -> list[float]:
        """Mean loss of each epoch."""
        epochs, batch_size = self.positive("i2i_epochs"), self.positive("i2i_batch_size")
        temperature = self.positive("i2i_temperature", float)
        self.projection.apply(_reset)
        optimizer = torch.optim.AdamW(
            self.projection.parameters(),
            lr=self.positive("i2i_learning_rate", float),
            weight_decay=float(self.options["i2i_weight_decay"]),
        )
        losses = []
        bar = Bar(range(epochs), desc=f"{type(self).__name__} pairs", disable=not progress)
        with torch.enable_grad():
            for _ in bar:
                total = content.new_zeros(())
                order = torch.randperm(len(pairs), device=pairs.device)
                batches = order.split(batch_size)
                for rows in batches:
                    left, right = pairs[rows].unbind(1)
                    loss = self._contrast(content, left, right, temperature)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += loss.detach()
                losses.append(float(total) / len(batches))
                bar.set_postfix(loss=losses[-1])
        return losses

    def _contrast(
        self, content: torch.Tensor, left: torch.Tensor, right: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Symmetric InfoNCE of the pairs ``left, right [b]``.

        What equals one of a pair's own items is not its negative: in a small catalogue a batch
        holds every item many times.
        """
        items, where = distinct(torch.cat([left, right]), len(content))
        vectors = F.normalize(self.projection(content[items]), dim=1)
        a, b = where.split([len(left), len(right)])
        logits = vectors[a] @ vectors[b].T / temperature  # [b, b]
        own = (right == right.unsqueeze(1)) | (right == left.unsqueeze(1))
        other = (left == left.unsqueeze(1)) | (left == right.unsqueeze(1))
        diagonal = torch.eye(len(left), dtype=torch.bool, device=left.device)
        label = torch.arange(len(left), device=left.device)
        forth = F.cross_entropy(logits.masked_fill(own & ~diagonal, float("-inf")), label)
        back = F.cross_entropy(logits.T.masked_fill(other & ~diagonal, float("-inf")), label)
        return (forth + back) / 2


def _reset(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.reset_parameters()
