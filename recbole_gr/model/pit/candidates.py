"""Candidate SIDs of items, apart from what Item-to-Token proposes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def starting_sid_first(
    start: Tensor, start_log_prob: Tensor, codes: Tensor, log_prob: Tensor
) -> tuple[Tensor, Tensor]:
    """Candidates with the starting SID in place 0, the worst left out if it was not among them.

    So the pool is never poorer than the starting table (PIT, inferred), and "left the starting
    SID" is "selected a place other than 0".

    Args:
        start: ``[n, L]`` starting SIDs.
        start_log_prob: ``[n]``.
        codes: ``[n, N, L]`` distinct candidates, best first.
        log_prob: ``[n, N]``.

    Returns:
        ``(codes [n, N, L], log_prob [n, N])``; the others keep their order.
    """
    same = (codes == start.unsqueeze(1)).all(2)
    others = same.int().argsort(dim=1, stable=True)[:, : codes.shape[1] - 1]
    rest = codes.gather(1, others.unsqueeze(2).expand(-1, -1, codes.shape[2]))
    return (
        torch.cat([start.unsqueeze(1), rest], 1),
        torch.cat([start_log_prob.unsqueeze(1), log_prob.gather(1, others)], 1),
    )


def residual_codebooks(content: Tensor, codes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Centroids in content space that explain given SIDs level by level.

    The centroid of a code is the mean of what the levels before it leave of its items, as in
    residual k-means; so any SID table has codebooks, also one that was read from a file.

    Args:
        content: ``[n, d]``.
        codes: ``[n, L]``.
        sizes: codebook size of each level.

    Returns:
        ``[sizes[l], d]`` per level; a code that no item has is infinitely far away.
    """
    residual, books = content, []
    for level, size in enumerate(sizes):
        count = torch.bincount(codes[:, level], minlength=size).unsqueeze(1)
        total = residual.new_zeros(size, residual.shape[1])
        book = total.index_add(0, codes[:, level], residual) / count.clamp_min(1)
        residual = residual - book[codes[:, level]]
        books.append(book.masked_fill(count == 0, float("inf")))
    return books


def nearest_sids(content: Tensor, books: list[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """The ``width`` SIDs whose centroids add up closest to each item, by beam search.

    These stand in for Item-to-Token's proposals where it is left out (PIT's ablation, inferred).

    Args:
        content: ``[n, d]``.
        books: of :func:`residual_codebooks`.
        width: SIDs per item; a level's beams are the nearest sums so far.

    Returns:
        ``(codes [n, width, L], log_prob [n, width])``, nearest first; minus the squared distance
        over the mean squared distance takes the log-probability's place.
    """
    residual = content.unsqueeze(1)  # [n, W, d]
    codes = torch.empty(len(content), 1, 0, dtype=torch.long, device=content.device)
    dead = torch.zeros(len(content), 1, dtype=torch.bool, device=content.device)
    for book in books:
        usable = torch.isfinite(book[:, 0])
        book = book.masked_fill(~usable.unsqueeze(1), 0.0)
        # |r - b|^2 without a tensor [n, W, K, d].
        distance = residual.square().sum(2, keepdim=True) - 2 * residual @ book.T
        distance = distance + book.square().sum(1)
        distance = distance.masked_fill(dead.unsqueeze(2) | ~usable, float("inf"))
        n_beams, size = distance.shape[1:]
        keep = min(width, n_beams * size)
        distance, index = distance.flatten(1).sort(dim=1, stable=True)
        distance, index = distance[:, :keep], index[:, :keep]
        parents, code = index // size, index % size
        rows = torch.arange(len(content), device=content.device).unsqueeze(1)
        residual = residual[rows, parents] - book[code]
        codes = torch.cat([codes[rows, parents], code.unsqueeze(2)], 2)
        dead = torch.isinf(distance)
    finite = distance[~dead]
    return codes, -distance / finite.mean().clamp_min(1e-12)
