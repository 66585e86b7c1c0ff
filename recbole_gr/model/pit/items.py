"""Item vectors: content that training may move."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ItemVectors(nn.Module):
    """``X_i = LayerNorm(W m_i + E_i)``: content plus a trained offset (PIT, inferred).

    ``m_i`` is the item's frozen content, ``E_i`` starts at 0, so that every item begins as its
    content and an item never trained on (a new one) stays there. Content is standardised to
    features of mean 0 and, over the whole catalogue, unit variance.

    Args:
        content: ``[n_items, d_m]`` content, row 0 (padding) is ignored.
        size: length ``d`` of the vectors.
        trainable: whether ``E`` is trained; if not, ``X`` is content alone.
    """

    mean: Tensor
    spread: Tensor
    content: Tensor

    def __init__(self, content: Tensor, size: int, trainable: bool = True):
        super().__init__()
        content = content.float().clone()
        mean = content[1:].mean(0)
        spread = (content[1:] - mean).square().mean().sqrt().clamp_min(1e-12)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        content = (content - mean) / spread
        content[0] = 0.0
        self.register_buffer("content", content)
        self.projection = nn.Linear(content.shape[1], size)
        self.offset = nn.Parameter(torch.zeros(len(content), size), requires_grad=trainable)
        self.norm = nn.LayerNorm(size)

    @classmethod
    def saved_content(cls, state_dict: Mapping[str, Tensor], prefix: str = "items.") -> Tensor:
        """``[n_items, d_m]`` the content that a saved model was made with, row 0 zero."""
        content, mean, spread = (state_dict[prefix + n] for n in ("content", "mean", "spread"))
        content = content * spread + mean
        content[0] = 0.0
        return content

    def forward(self, items: Tensor) -> Tensor:
        """``[...]`` item ids -> ``[..., d]``."""
        return self.norm(self.projection(self.content[items]) + self.offset[items])

    @torch.no_grad()
    def append(self, content: Tensor) -> None:
        """Add items at the end with the content ``[n, d_m]`` and no offset."""
        content = (content.to(self.content) - self.mean) / self.spread
        self.content = torch.cat([self.content, content])
        blank = self.offset.new_zeros(len(content), self.offset.shape[1])
        self.offset.data = torch.cat([self.offset.data, blank])
