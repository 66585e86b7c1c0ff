"""How far two tokenizers put the same items together."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class Agreement(NamedTuple):
    """Two ways to part the same items, compared.

    Attributes:
        adjusted_rand: the adjusted Rand index (Hubert and Arabie, 1985): pairs of items that both
            put together, 1 where the parts are the same and 0 on average by chance.
        mutual_information: normalised by the mean of the two entropies, 0 to 1; many small parts
            raise it by themselves.
        kept: share of the pairs that are together by the first which are so by the second; None
            where the first has no pair together.
    """

    adjusted_rand: float
    mutual_information: float
    kept: float | None


def agreement(first: torch.Tensor, second: torch.Tensor) -> Agreement:
    """Compare two partitions of the same ``n`` items.

    Args:
        first, second: LongTensor ``[n]``, the part of each item from 0 on.
    """
    n = len(first)
    both = torch.unique(first * (int(second.max()) + 1) + second, return_counts=True)[1]
    counts = [torch.unique(part, return_counts=True)[1] for part in (first, second)]
    together, in_first, in_second = (_pairs(part) for part in (both, *counts))
    expected = in_first * in_second / max(1, n * (n - 1) // 2)
    most = (in_first + in_second) / 2
    h_both, h_first, h_second = (_entropy(part) for part in (both, *counts))
    mean = (h_first + h_second) / 2
    return Agreement(
        1.0 if most == expected else (together - expected) / (most - expected),
        1.0 if mean == 0 else max(0.0, h_first + h_second - h_both) / mean,
        together / in_first if in_first else None,
    )


def prefix_parts(codes: torch.Tensor) -> list[torch.Tensor]:
    """The part of each item by its first 1, 2, ... codes ``[n, L]``: ``L`` LongTensors ``[n]``."""
    parts, prefix = [], codes.new_zeros(len(codes))
    for column in codes.unbind(1):
        prefix = torch.unique(prefix * (int(column.max()) + 1) + column, return_inverse=True)[1]
        parts.append(prefix)
    return parts


def _pairs(counts: torch.Tensor) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _entropy(counts: torch.Tensor) -> float:
    share = counts.double() / counts.sum()
    entropy = -float((share * share.log()).sum())
    return 0.0 if math.isclose(entropy, 0.0, abs_tol=1e-12) else entropy
