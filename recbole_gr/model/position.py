"""Two ways for attention to know positions: T5's learned bias by distance, and rotations."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recbole_gr.errors import ConfigError

Rotation = Sequence[Tensor]  # cosines and sines, see :class:`Rotary`


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
        """``[...]`` positions -> cosines and sines ``[..., head_size / 2]``."""
        angle = position.unsqueeze(-1) * self.frequency
        return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Rotate ``[..., T, dh]`` by cosines and sines that broadcast to ``[..., T, dh / 2]``."""
    if rotation is None:
        return x
    cos, sin = (r.to(x.dtype) for r in rotation)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
