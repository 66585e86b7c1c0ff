"""The part of the key/value cache that belongs to the beams."""

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]  # of one attention, [B, H, S, dh] each


class BeamTokens:
    """Keys and values of the tokens that the beams have generated, one token per step.

    They stay where they were computed, ``[B, H, W_s, dh]`` for step ``s``. When beams are dropped
    or split only ``path`` changes, which says which beam of step ``s`` each present beam came from.
    (Re-ordering and joining the tensors at every step was slower, and slow for exact scores.)
    """

    def __init__(self) -> None:
        self.keys: list[Tensor] = []  # per step [B, H, W_s, dh]
        self.values: list[Tensor] = []
        self.path: list[Tensor] = []  # per step but the last [B, W]

    def __len__(self) -> int:
        return len(self.keys)

    def append(self, k: Tensor, v: Tensor, parents: Tensor | None) -> None:
        """Follow the surviving beams (``parents [B, W]``) and add one token (``[B, H, W, dh]``)."""
        if self.keys:
            assert parents is not None, "every step after the first extends beams"
            self.path = [path.gather(1, parents) for path in self.path] + [parents]
        self.keys.append(k.contiguous())
        self.values.append(v.contiguous())

    def logits(self, q: Tensor) -> Tensor:
        """``q [B, H, W, dh]`` times the keys of each beam's own tokens: ``[B, H, W, t]``."""
        keys = [_follow(k, path) for k, path in zip(self.keys, self.path)] + self.keys[-1:]
        return torch.stack([(q * k).sum(-1) for k in keys], dim=3)

    def mix(self, weight: Tensor) -> Tensor:
        """The values of each beam's own tokens weighted by ``[B, H, W, t]``: ``[B, H, W, dh]``."""
        *earlier, last = weight.unsqueeze(-1).unbind(3)  # [B, H, W, 1] each
        out = last * self.values[-1]
        for column, v, path in zip(earlier, self.values, self.path):
            out = out.addcmul(column, _follow(v, path))
        return out


def _follow(cache: Tensor, path: Tensor) -> Tensor:
    """``[B, H, W_s, dh]`` re-indexed by ``path [B, W]`` -> ``[B, H, W, dh]``."""
    index = path[:, None, :, None].expand(-1, cache.shape[1], -1, cache.shape[3])
    return cache.gather(2, index)
