"""Embeddings of items by their id and their content."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ItemsWithContent(nn.Module):
    """In the place of an ``nn.Embedding`` of items: its rows plus a linear map of the content.

    Items that no training row holds keep the random embedding of their id, and have what the map
    makes of their content.

    Args:
        ids: the embedding ``[n_items, d]`` that it takes the place of.
        content: ``[n_items, c]``, zero for the padding; scaled to a mean length of 1, so that
            vectors of any source begin with as large a part.
    """

    content: Tensor

    def __init__(self, ids: nn.Embedding, content: Tensor) -> None:
        super().__init__()
        self.ids = ids
        self.register_buffer("content", of_mean_length_1(content))
        self.project = nn.Linear(content.shape[1], ids.embedding_dim, bias=False)

    @property
    def weight(self) -> Tensor:
        """Embeddings ``[n_items, d]`` of all items."""
        return self.ids.weight + self.project(self.content)

    def forward(self, items: Tensor) -> Tensor:
        """Embeddings ``[..., d]`` of items ``[...]``."""
        return self.ids(items) + self.project(F.embedding(items, self.content))


def of_mean_length_1(content: Tensor) -> Tensor:
    """Content ``[n_items, c]`` over the mean length of its rows, those of zeros left out."""
    length = content.norm(dim=1)
    scale = length.sum() / (length > 0).sum().clamp(min=1)
    return content / scale.clamp(min=torch.finfo(scale.dtype).tiny)
