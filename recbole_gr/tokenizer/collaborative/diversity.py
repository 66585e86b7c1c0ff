"""Codebooks whose codewords spread out: LETTER's diversity loss and the balanced clusters it needs.

Source: LETTER (arXiv 2405.07314), diversity regularisation, and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment


def balanced_kmeans(
    vectors: torch.Tensor,
    k: int,
    *,
    labels: torch.Tensor | None = None,
    iterations: int = 10,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """k-means in which the sizes of the clusters differ by one at most.

    Each step gives all vectors to the centroids at once, so that the sum of squared distances is
    the least possible with ``n // k`` vectors a cluster, one more in the first ``n % k`` (an
    assignment problem, cubic in ``n``). It ends when no vector changes its cluster.

    Args:
        vectors: float tensor ``[n, d]``.
        k: clusters, at most ``n``.
        labels: LongTensor ``[n]`` to start from, every cluster in use; by default the centroids
            start at ``k`` vectors drawn at random.
        iterations: most steps.
        generator: torch.Generator on the CPU, for the draw.

    Returns:
        LongTensor ``[n]``, cluster of each vector, on the CPU.
    """
    points = vectors.detach().double().cpu().numpy()
    n = len(points)
    place = np.arange(n) % k  # the cluster that each place belongs to
    known: np.ndarray | None = None  # cluster of each vector so far
    if labels is None:
        centroids = points[torch.randperm(n, generator=generator)[:k].numpy()]
    else:
        known = labels.cpu().numpy()
        centroids = _means(points, known, k)
    for _ in range(iterations):
        distances = ((points[:, None] - centroids) ** 2).sum(2)  # [n, k]
        rows, columns = linear_sum_assignment(distances[:, place])
        found = place[columns[np.argsort(rows)]]
        if known is not None and (found == known).all():
            break
        known = found
        centroids = _means(points, known, k)
    return torch.from_numpy(np.asarray(known, dtype=np.int64))


def _means(points: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    sums = np.zeros((k, points.shape[1]))
    np.add.at(sums, labels, points)
    return sums / np.bincount(labels, minlength=k)[:, None]


@dataclass
class CodeClusters:
    """The clusters of one codebook's ``V`` codewords, as drawing from them needs them.

    Attributes:
        labels: LongTensor ``[V]``, cluster of each code.
        order: LongTensor ``[V]``, codes by cluster.
        place: ``[V]`` position of each code within its cluster.
        start: ``[V]`` where its cluster begins in ``order``.
        size: ``[V]`` codes in its cluster, at least 2.
    """

    labels: torch.Tensor
    order: torch.Tensor
    place: torch.Tensor
    start: torch.Tensor
    size: torch.Tensor

    @classmethod
    def of(cls, labels: torch.Tensor, device: torch.device) -> CodeClusters:
        """From the cluster ``[V]`` of each code."""
        sizes = torch.bincount(labels)
        order = torch.argsort(labels, stable=True)
        start = (sizes.cumsum(0) - sizes)[labels]
        place = torch.argsort(order) - start
        parts = (labels, order, place, start, sizes[labels])
        return cls(*(part.to(device) for part in parts))

    def draw(self, codes: torch.Tensor) -> torch.Tensor:
        """For each of the codes ``[n]`` another code of its cluster, each equally likely."""
        others = self.size[codes] - 1
        drawn = torch.rand(len(codes)).to(codes.device, non_blocking=True)
        step = (drawn * others).long().clamp(max=others - 1)
        place = (self.place[codes] + 1 + step) % self.size[codes]
        return self.order[self.start[codes] + place]


def diversity_loss(
    codes: torch.Tensor, words: torch.Tensor, codebook: torch.Tensor, positives: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of drawing each codeword to one of its cluster and away from all others.

    ``-mean_i log(exp<e_i, e+_i> / sum_{j != c_i} exp<e_i, e_j>)`` over the codebook ``e [V, d]``:
    codewords ``e_i [n, d]`` of codes ``c_i [n]``, positives ``e+_i`` with codes ``[n]``. Gradients
    reach the codebook on both sides of the inner product, and nothing else.
    """
    own = torch.arange(len(codebook), device=codes.device) == codes.unsqueeze(1)  # [n, V]
    scores = (words @ codebook.T).masked_fill(own, -torch.inf)
    return F.cross_entropy(scores, positives)
