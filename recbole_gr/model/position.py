"""Two ways for attention to know positions: T5's learned bias by distance, and rotations."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_gr.errors import ConfigError

Rotation = Sequence[Tensor]  # cosines and signed sines, see :class:`Rotary`


class RelativePositionBias(nn.Module):
    """A learned number per head for the distance between query and key (T5, section 2.1).

    Half of the buckets hold one distance each, the other half cover logarithmically growing
    ranges up to ``max_distance``. ``bidirectional`` keeps separate buckets for keys after the
    query; otherwise only distances back in time exist.
    """

    def __init__(
        self, n_heads: int, bidirectional: bool, n_buckets: int = 32, max_distance: int = 128
    ):
        super().__init__()
        self.weight = nn.Embedding(n_buckets, n_heads)
        self.bidirectional, self.n_buckets = bidirectional, n_buckets
        self.max_distance = max_distance

    def bucket(self, back: Tensor) -> Tensor:
        """Bucket of each distance ``back`` = query position - key position."""
        n_buckets = self.n_buckets
        offset = torch.zeros_like(back)
        if self.bidirectional:
            n_buckets //= 2
            offset = (back < 0).long() * n_buckets
            back = back.abs()
        back = back.clamp_min(0)
        exact = n_buckets // 2
        ratio = (back.clamp_min(1).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (ratio * (n_buckets - exact)).long()).clamp_max(n_buckets - 1)
        return offset + torch.where(back < exact, back, far)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """``[..., Q], [..., K]`` positions -> ``[..., H, Q, K]`` bias."""
        bucket = self.bucket(queries.unsqueeze(-1) - keys.unsqueeze(-2))
        return self.weight(bucket).movedim(-1, -3)


class Rotary(nn.Module):
    """Positions as rotations of query and key (Su et al., RoFormer, section 3.2): the logits then
    depend on the distance alone, without a bias to learn, so the fused attention kernels apply."""

    frequency: Tensor

    def __init__(self, head_size: int, base: float = 10_000.0):
        super().__init__()
        if head_size % 2:
            raise ConfigError(f"head_size: {head_size} must be even with position: rotary")
        power = torch.arange(0, head_size, 2) / head_size
        self.register_buffer("frequency", base**-power, persistent=False)

    def forward(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """``[...]`` positions -> cosines and signed sines ``[..., head_size]``."""
        angle = position.unsqueeze(-1) * self.frequency
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Rotate ``[..., T, dh]`` by what :class:`Rotary` gives for its positions, ``[..., T, dh]`` or
    what broadcasts to it: feature ``i`` of the first half with feature ``i`` of the second."""
    if rotation is None:
        return x
    cos, sin = (r.to(x.dtype) for r in rotation)
    turned: Tensor = _Rotate.apply(x, cos, sin)
    return turned


class _Rotate(torch.autograd.Function):
    """The gradient is the upstream one turned back. Written out, as halves that are multiplied
    apart and joined are too short for a CPU: 5 times as long, and twice with the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return torch.addcmul(x * cos, _swap(x), sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return torch.addcmul(grad * cos, _swap(grad), sin, value=-1), None, None


def _swap(x: Tensor) -> Tensor:
    return torch.cat(x.chunk(2, dim=-1)[::-1], dim=-1)
