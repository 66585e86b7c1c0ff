"""Shared SID prefixes of items that are neighbours."""

import numpy as np
import torch

from recbole_gr.compat.faiss_library import faiss
from recbole_gr.quality.cohesion import unit

EXACT = 2**15  # items of which all are compared with all
_ROWS = 2**16  # items searched at once
_NEAR = 8  # clusters that an item's neighbours are looked for in


def content_neighbours(content: torch.Tensor, queries: torch.Tensor, k: int) -> torch.Tensor:
    """The ``k`` items of the highest cosine, by FAISS.

    Args:
        content: float tensor ``[n, d]``.
        queries: LongTensor ``[q]`` rows.
        k: neighbours of each; no item is its own.

    Returns:
        LongTensor ``[q, k]`` rows; -1 where there are fewer.
    """
    wanted = _array(content[queries])
    best = torch.full((len(queries), 0), -torch.inf)
    found = torch.full((len(queries), 0), -1)
    start = 0
    for part in content.split(_ROWS):  # no index: that would be a second copy of the content
        cosines, places = faiss.knn(wanted, _array(part), k + 1, metric=faiss.METRIC_INNER_PRODUCT)
        rows = torch.from_numpy(places)
        best = torch.cat([best, torch.from_numpy(cosines)], 1)
        found = torch.cat([found, torch.where(rows >= 0, rows + start, -1)], 1)
        best, order = best.topk(k + 1, dim=1)
        found = found.gather(1, order)  # [q, k + 1]
        start += len(part)
    return _without_own(found, queries)


def near_content(content: torch.Tensor, k: int) -> torch.Tensor:
    """As :func:`content_neighbours` for all items, in a time that grows less than their square.

    Of more than ``EXACT`` items each is compared with those of the ``_NEAR`` clusters nearest to
    its own, out of about the square root of their number (k-means); a few of the nearest may be
    missing.

    Returns:
        LongTensor ``[n, k]`` rows; -1 where there are fewer.
    """
    n, queries = len(content), torch.arange(len(content))
    if n <= EXACT:
        return content_neighbours(content, queries, k)
    vectors, n_clusters = _array(content), round(n**0.5)
    clusters = faiss.Kmeans(vectors.shape[1], n_clusters, niter=10, spherical=True, seed=0)
    clusters.train(vectors[:: max(1, n // (64 * n_clusters))])
    cluster = torch.from_numpy(clusters.index.search(vectors, 1)[1][:, 0])
    centres, rows = torch.from_numpy(clusters.centroids), torch.from_numpy(vectors)
    members = cluster.argsort(stable=True).split(cluster.bincount(minlength=n_clusters).tolist())
    found = torch.full((n, k + 1), -1)
    for own, others in zip(members, (centres @ centres.T).topk(min(_NEAR, n_clusters)).indices):
        among = torch.cat([members[int(other)] for other in others])
        for part in own.split(4096):
            best = (rows[part] @ rows[among].T).topk(min(k + 1, len(among))).indices
            found[part, : best.shape[1]] = among[best]
    return _without_own(found, queries)


def _without_own(found: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Neighbours ``[q, k + 1]`` without the queries themselves, ``[q, k]``."""
    # Of equal vectors FAISS need not return the query itself: the last place goes then.
    own = found == queries.unsqueeze(1)
    own[~own.any(1), -1] = True
    return found[~own].view(len(queries), found.shape[1] - 1)


def _array(vectors: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(unit(vectors.float()).cpu().numpy())


def cooccurrence_neighbours(
    pairs: torch.Tensor, n_items: int, queries: torch.Tensor, k: int
) -> torch.Tensor:
    """The ``k`` items that most often stand next to each query in training sequences.

    Args:
        pairs: LongTensor ``[P, 2]`` of rows, in either order, repeated as often as they occur.
        n_items: rows there are.
        queries: LongTensor ``[q]`` rows, distinct.
        k: neighbours of each; ties go to the lower row.

    Returns:
        LongTensor ``[q, k]`` rows; -1 where there are fewer.
    """
    return most_cooccurring(pairs, n_items, queries, k)[0]


def most_cooccurring(
    pairs: torch.Tensor, n_items: int, queries: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`cooccurrence_neighbours`, with how often each stands there: two LongTensors
    ``[q, k]``, 0 times where there is no neighbour."""
    place = torch.full((n_items,), -1)
    place[queries] = torch.arange(len(queries))
    both = torch.cat([pairs, pairs.flip(1)])
    both = both[place[both[:, 0]] >= 0]
    keys, counts = torch.unique(place[both[:, 0]] * n_items + both[:, 1], return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    order = order[(keys[order] // n_items).argsort(stable=True)]  # by query, then by count
    query, item, times = keys[order] // n_items, keys[order] % n_items, counts[order]
    counts = torch.bincount(query, minlength=len(queries))
    rank = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
    rows, often = torch.full((len(queries), k), -1), torch.zeros(len(queries), k, dtype=torch.long)
    keep = rank < k
    rows[query[keep], rank[keep]] = item[keep]
    often[query[keep], rank[keep]] = times[keep]
    return rows, often


def prefix_overlap(
    codes: torch.Tensor, queries: torch.Tensor, neighbours: torch.Tensor
) -> list[float | None]:
    """Share of neighbours with the query's prefix, for each prefix length.

    Args:
        codes: LongTensor ``[n, L]``.
        queries: LongTensor ``[q]``.
        neighbours: LongTensor ``[q, k]``, -1 for none.

    Returns:
        list: ``L`` shares of all neighbours given; None where there is no neighbour at all.
    """
    there = neighbours >= 0
    if not bool(there.any()):
        return [None] * codes.shape[1]
    same = codes[queries].unsqueeze(1) == codes[neighbours.clamp(min=0)]  # [q, k, L]
    return same.cumprod(2)[there].double().mean(0).tolist()


def chance_overlap(codes: torch.Tensor) -> list[float]:
    """Share of all pairs of items that share their prefix, for each prefix length."""
    n, shares, prefix = len(codes), [], codes.new_zeros(len(codes))
    for column in codes.unbind(1):
        prefix = torch.unique(prefix * (int(column.max()) + 1) + column, return_inverse=True)[1]
        counts = torch.bincount(prefix).double()
        shares.append(float((counts * (counts - 1)).sum()) / max(1, n * (n - 1)))
    return shares
