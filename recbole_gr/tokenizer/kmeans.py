"""k-means on FAISS, and nearest centroids with a defined answer to ties."""

from typing import Any

import numpy as np
import torch

from recbole_gr.compat.faiss_library import faiss

_TIE = 1e-9  # relative; float64 rounding is 1e-16, so only true ties fall below it


def kmeans(
    vectors: torch.Tensor,
    k: int,
    *,
    iterations: int = 25,
    redo: int = 1,
    points_per_code: int = 1024,
    seed: int = 0,
    spherical: bool = False,
) -> torch.Tensor:
    """k-means centroids (Lloyd's algorithm by FAISS, on GPUs where the vectors lie on one and FAISS
    sees any).

    With ``k`` distinct vectors or fewer, the centroids are these vectors, the rest copies of the
    first. Otherwise every centroid has at least one nearest vector, except in degenerate cases:
    centroids that FAISS leaves empty move to the vectors farthest from their own centroid.

    Args:
        vectors: float tensor ``[n, d]`` without NaN.
        k: number of centroids.
        iterations: Lloyd iterations.
        redo: runs from different starts; the one with the lowest inertia is kept.
        points_per_code: at most ``k * points_per_code`` vectors are used, drawn at random.
        seed: of the start and the sample; equal seeds give equal centroids.
        spherical: centroids have length 1; for vectors of length 1, which then go to the centroid
            of the highest cosine.

    Returns:
        float32 tensor ``[k, d]`` on the device of ``vectors``.
    """
    array = np.ascontiguousarray(vectors.detach().cpu().numpy(), dtype=np.float32)
    distinct = _few_distinct(array, k)
    if distinct is not None:
        filler = np.repeat(distinct[:1], k - len(distinct), axis=0)
        centroids = np.concatenate([distinct, filler])
    else:
        # Not on the GPUs of a run that was told to use the CPU: its figures would be others.
        gpu = vectors.device.type == "cuda" and faiss.get_num_gpus() > 0
        options = (iterations, redo, points_per_code, seed, spherical, gpu)
        centroids = _faiss_kmeans(array, k, *options)
    return torch.from_numpy(centroids).to(vectors.device)


def squared_distances(vectors: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances ``[n, k]`` in float64; slightly negative ones become 0."""
    vectors, centroids = vectors.double(), centroids.double()
    inner = vectors @ centroids.T
    distances = vectors.square().sum(1, keepdim=True) - 2 * inner + centroids.square().sum(1)
    return distances.clamp(min=0)


def nearest_code(vectors: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centroid ``[n]``; of equally near ones the lowest.

    A matrix product rounds differently at different batch sizes. Distances are float64 and ties
    are settled within a tolerance, so that an item's code does not depend on its batch.
    """
    distances = squared_distances(vectors, centroids)
    scale = vectors.double().square().sum(1, keepdim=True) + 1
    near = distances <= distances.amin(1, keepdim=True) + _TIE * scale
    codes = torch.arange(len(centroids), device=vectors.device)
    return torch.where(near, codes, len(centroids)).amin(1)


def _few_distinct(array: np.ndarray, k: int) -> np.ndarray | None:
    """The distinct rows, sorted, if there are ``k`` or fewer; else None."""
    # Equal rows have equal projections, so many distinct projections prove many distinct rows.
    direction = np.random.default_rng(0).standard_normal(array.shape[1])
    projections = np.concatenate(
        [(part * direction).sum(1) for part in np.array_split(array, 1 + array.size // 2**24)]
    )
    _, first = np.unique(projections, return_index=True)
    if len(first) > k:
        return None
    distinct = np.unique(array, axis=0)
    return distinct if len(distinct) <= k else None


def _faiss_kmeans(
    array: np.ndarray,
    k: int,
    iterations: int,
    redo: int,
    points_per_code: int,
    seed: int,
    spherical: bool,
    gpu: bool,
) -> np.ndarray:
    clustering: Any = faiss.Kmeans(
        array.shape[1],
        k,
        niter=iterations,
        nredo=redo,
        seed=seed,
        min_points_per_centroid=1,
        spherical=spherical,
        max_points_per_centroid=points_per_code,
        gpu=gpu,
    )
    clustering.train(array)
    centroids = clustering.centroids.copy()
    for _ in range(10):
        distances, codes = clustering.index.search(array, 1)
        empty = np.flatnonzero(np.bincount(codes[:, 0], minlength=k) == 0)
        if not len(empty):
            break
        farthest = np.argsort(-distances[:, 0], kind="stable")[: len(empty)]
        centroids[empty] = array[farthest]
        clustering.index.reset()
        clustering.index.add(centroids)
    return centroids
