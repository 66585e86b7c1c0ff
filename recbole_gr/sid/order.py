"""SIDs in lexicographic order, and where each prefix begins."""

import torch
from torch import Tensor


def sort_sids(codes: Tensor, items: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Rows in lexicographic order of the codes, then of the item id; exact repeats dropped."""
    order = torch.argsort(items, stable=True)
    # Neighbouring levels are packed into one 63-bit key, so that few stable sorts are needed.
    level = len(sizes)
    while level > 0:
        key, span = torch.zeros(len(codes), dtype=torch.long), 1
        while level > 0 and span * sizes[level - 1] < 1 << 62:
            level -= 1
            key += codes[:, level] * span
            span *= sizes[level]
        order = order[torch.argsort(key[order], stable=True)]
    codes, items = codes[order], items[order]
    repeat = torch.zeros(len(items), dtype=torch.bool)
    repeat[1:] = (codes[1:] == codes[:-1]).all(1) & (items[1:] == items[:-1])
    return codes[~repeat], items[~repeat]


def first_of_prefix(codes: Tensor) -> Tensor:
    """``[N, L]`` True where sorted row ``n`` is the first with its prefix of length ``l + 1``."""
    new = torch.ones(codes.shape, dtype=torch.bool)
    for level in range(codes.shape[1]):
        new[1:, level] = codes[1:, level] != codes[:-1, level]
        if level:
            new[1:, level] |= new[1:, level - 1]
    return new
