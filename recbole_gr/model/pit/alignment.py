"""Collaborative signal alignment: the loss that lets user behaviour into the item vectors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_gr.model.attention import Attention
from recbole_gr.model.dropout import Dropout


class CrossLayer(nn.Module):
    """``z' = z0 * (U V z + b) + z`` (DCN-V2, Wang et al. 2021, equation 2, of low rank)."""

    def __init__(self, size: int, rank: int):
        super().__init__()
        self.narrow = nn.Linear(size, rank, bias=False)
        self.wide = nn.Linear(rank, size)

    def forward(self, start: Tensor, z: Tensor) -> Tensor:
        return _AddProduct.apply(z, start, self.wide(self.narrow(z)))


class _AddProduct(torch.autograd.Function):
    """``z + a * b`` of tensors of one shape.

    The backward pass of ``torch.addcmul`` also scales each gradient by its factor of 1; on tensors
    as wide as these that is a third of the time of this net.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.addcmul(z, a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return grad, grad * b, grad * a


class CollaborativeAlignment(nn.Module):
    """Predicts whether a user takes an item: ``y = DIN(sg(H_u), X_i)`` (PIT, idea of CSA).

    The paper has one cross-attention layer and an MLP of four layers in DIN's place, joined by a
    DCN. The exact net is inferred: the item vector attends to the user's states, then attention
    result ``r`` and item ``X`` go through ``[r; X; r * X; r - X]``, two cross layers and an MLP.
    Inner widths are small, as this net judges several items for each target and step.
    The states must come without gradient, so this loss trains the item vectors and this net alone.
    """

    def __init__(self, size: int, n_heads: int, head_size: int, dropout: float):
        super().__init__()
        self.attention = Attention(size, n_heads, head_size, 0.0, cross=True)
        self.query = nn.Linear(size, size, bias=False)
        self.attention_norm = nn.LayerNorm(size)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, 2 * size), nn.ReLU(), Dropout(dropout), nn.Linear(2 * size, size)
        )
        self.feed_forward_norm = nn.LayerNorm(size)
        self.cross = nn.ModuleList(CrossLayer(4 * size, max(1, size // 2)) for _ in range(2))
        widths, layers = [4 * size, size, max(1, size // 2), max(1, size // 4)], []
        for wide, narrow in zip(widths, widths[1:]):
            layers += [nn.Linear(wide, narrow), nn.ReLU(), Dropout(dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, states: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
        """Logits of "the user takes the item".

        Args:
            states: ``[B, T, d]`` the user's states ``H_u``, detached.
            vectors: ``[B, Q, d]`` item vectors to judge.
            bias: ``[B or 1, 1, Q, T]``, -inf where a state may not be seen.

        Returns:
            ``[B, Q]``.
        """
        query = self.query(vectors)
        memory = self.attention.keys_values(states)
        r = self.attention_norm(query + self.attention.cross(query, memory, bias))
        r = self.feed_forward_norm(r + self.feed_forward(r))
        start = z = torch.cat([r, vectors, r * vectors, r - vectors], dim=2)  # [B, Q, 4 d]
        for layer in self.cross:
            z = layer(start, z)
        return self.mlp(z).squeeze(2)


def draw_negatives(own: Tensor, n_items: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Items drawn evenly from the catalogue, and which of them the user has not taken.

    Args:
        own: ``[B, S]`` items of each user, 0 where there are none.
        n_items: the catalogue is ``1 .. n_items - 1``.
        shape: ``(B, ...)`` shape of the result.

    Returns:
        ``(items, usable)`` of that shape. What remains of the usable ones is distributed evenly
        over the items that are not the user's, as if the others had been drawn again.
    """
    items = torch.randint(1, n_items, shape, device=own.device)
    taken = (items.flatten(1).unsqueeze(2) == own.unsqueeze(1)).any(2)
    return items, ~taken.view(shape)


def alignment_loss(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the samples of weight 1 (PIT, pointwise; form inferred).

    Args:
        logits, label, weight: of one shape; weight is 0 for samples that do not count.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), label, reduction="none")
    return (loss * weight).sum()
