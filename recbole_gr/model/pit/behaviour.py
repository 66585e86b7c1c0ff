"""What users' behaviour says of items, for figures: clusters of items taken by the same users."""

import math

import torch
from torch import Tensor

from recbole_gr.tokenizer.kmeans import kmeans, squared_distances

DIMENSIONS = 32
MOST_PAIRS = 1 << 22  # of user and item; of more, evenly spaced ones


@torch.no_grad()
def behaviour_clusters(users: Tensor, items: Tensor, n_items: int, n_clusters: int) -> Tensor:
    """``[n_items]`` the cluster of each item, -1 for those that nobody took.

    Items are points in the leading singular subspace of the matrix of users and items, each row
    and column scaled by the root of its sum; the constant direction is left out.

    Args:
        users, items: ``[N]`` the pairs, every one once.
        n_clusters: of k-means.
    """
    step = -(-len(users) // MOST_PAIRS) or 1
    users, items = users[::step], items[::step]
    if not len(users):
        return torch.full((n_items,), -1, device=users.device)
    per_user = torch.bincount(users).clamp_min(1).float()
    per_item = torch.bincount(items, minlength=n_items).float()
    scale = (per_user[users] * per_item[items]).rsqrt().unsqueeze(1)
    generator = torch.Generator().manual_seed(0)
    width = min(DIMENSIONS, n_items)
    basis = torch.randn(n_items, width, generator=generator).to(users.device)
    constant = per_item.sqrt().unsqueeze(1)
    constant = constant / constant.norm()
    for _ in range(4):
        basis = torch.linalg.qr(basis - constant @ (constant.T @ basis)).Q
        of_users = basis.new_zeros(len(per_user), width).index_add(0, users, scale * basis[items])
        basis = basis.new_zeros(n_items, width).index_add(0, items, scale * of_users[users])
    taken = per_item > 0
    points = basis[taken] / per_item[taken].sqrt().unsqueeze(1)
    points = torch.nn.functional.normalize(points, dim=1)
    centroids = kmeans(points, min(n_clusters, len(points)), iterations=10, redo=5)
    clusters = torch.full((n_items,), -1, device=users.device)
    clusters[taken] = squared_distances(points, centroids).argmin(1)
    return clusters


def usual_number(n_items: int, codebook_size: int) -> int:
    """Of clusters: as many as the first codebook has codes, in a small catalogue fewer."""
    return max(1, min(codebook_size, math.isqrt(n_items)))


def mutual_information(a: Tensor, b: Tensor) -> float:
    """Normalised mutual information of two labellings ``[n]``, ``2 I / (H_a + H_b)``; rows where
    either is negative are left out. 0 where neither says anything."""
    kept = (a >= 0) & (b >= 0)
    a, b = a[kept], b[kept]
    if not len(a):
        return 0.0
    joint = torch.unique(a * (int(b.max()) + 1) + b, return_counts=True)[1]
    h_a, h_b, h_both = (
        _entropy(counts) for counts in (torch.bincount(a), torch.bincount(b), joint)
    )
    return max(0.0, 2 * (h_a + h_b - h_both) / (h_a + h_b)) if h_a + h_b > 0 else 0.0


def _entropy(counts: Tensor) -> float:
    share = counts[counts > 0].double() / counts.sum()
    return float(-(share * share.log()).sum())
