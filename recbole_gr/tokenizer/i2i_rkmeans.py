"""Residual k-means on content that a contrastive projection has bent towards behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        hidden, self.code_dim = self.options["i2i_hidden"], self.options["i2i_dim"]
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
        epochs, batch_size = self.options["i2i_epochs"], self.options["i2i_batch_size"]
        temperature = self.options["i2i_temperature"]
        self.projection.apply(_reset)
        optimizer = torch.optim.AdamW(
            self.projection.parameters(),
            lr=self.options["i2i_learning_rate"],
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
        crossed = left.unsqueeze(1) == right
        own = crossed | (right.unsqueeze(1) == right)  # [b, b] of a row's pair: its column is none
        other = crossed | (left.unsqueeze(1) == left)  # of a column's pair: its row is none
        return _InfoNCE.apply(vectors[a], vectors[b], own, other, temperature)


class _InfoNCE(torch.autograd.Function):
    """Mean over rows and columns of the cross-entropy of the diagonal of ``a b^T / temperature``.

    All vectors have length 1, so that one shift serves all rows and columns, and one exponential
    both directions. Autograd would go through a dozen matrices of this size; here it is four.
    """

    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, own: torch.Tensor, other: torch.Tensor, t: float
    ) -> torch.Tensor:
        """``a, b [n, d]``; ``own, other [n, n]`` hide entries from rows and from columns, but for
        the diagonal, which they hold too."""
        # The least exponential is exp(-2 / t), which float32 holds down to a temperature of 0.025.
        exact = a.dtype if 2 / t < 80 else torch.float64
        n, shift = len(a), a.new_full((1, 1), -1 / t, dtype=exact).expand(len(a), len(a))
        logits = torch.addmm(shift, a.to(exact), b.to(exact).T, alpha=1 / t)
        of_pair = logits.diagonal().clone()
        share = logits.exp_()
        pair = share.diagonal().clone()
        rows, columns = share.masked_fill(own, 0.0), share.masked_fill_(other, 0.0)
        row_sum, column_sum = rows.sum(1) + pair, columns.sum(0) + pair
        loss = (row_sum.log() + column_sum.log() - 2 * of_pair).mean() / 2
        slope = rows.div_(row_sum.unsqueeze(1)).addcdiv_(columns, column_sum)
        slope.diagonal().copy_(pair / row_sum + pair / column_sum - 2)
        ctx.save_for_backward(slope.mul_(1 / (2 * n * t)).to(a.dtype), a, b)
        return loss.to(a.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slope, a, b = ctx.saved_tensors
        return slope @ b * grad, slope.T @ a * grad, None, None, None


def _reset(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.reset_parameters()
