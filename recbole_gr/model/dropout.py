"""Dropout that is cheap on a CPU."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout that draws one random byte per feature.

    On a CPU the random numbers of torch's dropout cost as much as a matrix product. Here 64
    random bits serve eight features, so the rate is rounded to a multiple of 1/256 (and the
    scale follows the rounded rate: the expectation stays exact). Other devices use torch's own.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.rate)
        return x * _mask(x, round(self.rate * 256))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def random_bytes(shape: Sequence[int]) -> Tensor:
    """Uniform ``uint8`` on the CPU from torch's default generator."""
    n = torch.Size(shape).numel()
    words = torch.empty((n + 7) // 8, dtype=torch.int64)
    # `random_` without bounds leaves the sign bit 0; over [-2**63, 2**63 - 1) all bits are random.
    words.random_(-(2**63), 2**63 - 1)
    return words.view(torch.uint8)[:n].view(shape)


def _mask(x: Tensor, threshold: int) -> Tensor:
    """Of the shape and type of ``x``: 0 where the random byte is below ``threshold``, else the
    scale that keeps the expectation."""
    # Compared as signed bytes into the type of `x`: a tensor of bool, or one compared with
    # unsigned bytes, took five to ten times as long to make and to multiply by (torch 2.13).
    signed = random_bytes(x.shape).view(torch.int8)
    mask = torch.empty(x.shape, dtype=x.dtype)
    return torch.ge(signed, threshold - 128, out=mask).mul_(256 / (256 - threshold))
