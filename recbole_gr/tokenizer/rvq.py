"""Residual vector quantization without an encoder: centroids learned by gradient."""


import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_gr.tokenizer.kmeans import nearest_code, squared_distances
from recbole_gr.tokenizer.rkmeans import RKMeans


class RVQ(RKMeans):
    """Residual k-means whose centroids are learned by Adagrad on random batches.

    Each level starts from k-means++ seeds and minimises the squared distance of the residuals to
    their nearest centroids for ``tokenizer_steps`` steps, one level after the other. Without an
    encoder a commitment term has nothing to train and is left out.

    Source: the ``rvq`` of GRID, which IntRR (arXiv 2602.20704) calls VQ-VAE.
    """

    without = ("kmeans_iterations", "kmeans_redo", "kmeans_points_per_code")

    def learn_codebook(self, residual: Tensor, level: int) -> Tensor:
        size, batch = self.sizes[level], self.options["tokenizer_batch_size"]
        rows = torch.randperm(len(residual), device=residual.device)
        sample = residual[rows[: self.options["rvq_init_items"]]]
        centroids = spread_seeds(sample, size).requires_grad_()
        rate = self.options["tokenizer_learning_rate"]
        optimizer = torch.optim.Adagrad([centroids], lr=rate)
        for _ in range(self.options["tokenizer_steps"]):
            picked = torch.randint(len(residual), (min(batch, len(residual)),))
            part = residual[picked.to(residual.device, non_blocking=True)]
            code = nearest_code(part, centroids.detach())
            loss = (part - F.embedding(code, centroids)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return centroids.detach()


def spread_seeds(vectors: Tensor, k: int) -> Tensor:
    """``[k, d]`` of the ``vectors [n, d]``, each drawn by its squared distance to those before it
    (k-means++, Arthur and Vassilvitskii 2007); repeats only where too few differ."""
    chosen = torch.randint(len(vectors), (1,), device=vectors.device)
    nearest = squared_distances(vectors, vectors[chosen])[:, 0]
    for _ in range(k - 1):
        # Rounding leaves specks at the seeds themselves; they are not to be drawn again.
        weight = torch.where(nearest > 1e-12, nearest, 0.0)
        weight = torch.where(weight.any(), weight, 1.0)
        new = torch.multinomial(weight, 1)
        nearest = nearest.minimum(squared_distances(vectors, vectors[new])[:, 0])
        chosen = torch.cat([chosen, new])
    return vectors[chosen].clone()
