"""Optimised product quantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from recbole_gr.compat.faiss_library import faiss
from recbole_gr.errors import ConfigError
from recbole_gr.terminal.bars import Bar
from recbole_gr.tokenizer.base import Tokenizer
from recbole_gr.tokenizer.kmeans import kmeans, nearest_code, squared_distances

if TYPE_CHECKING:
    from recbole_gr.config import Settings
    from recbole_gr.tokenizer.fitting import Figures, Signals


class OPQ(Tokenizer):
    """Optimised product quantisation: a rotation, then k-means in each part of the vector.

    FAISS learns a rotation after which the content splits into ``sid_levels`` parts that lose
    little when each is replaced by its nearest of ``codebook_size`` centroids. The levels are
    parts of one vector, not residuals: no level refines another and their order means nothing.
    Where the content's length is no multiple of the levels, the rotation reduces it to the next
    multiple below.

    Sources: "Optimized Product Quantization" (Ge et al., CVPR 2013); as item tokens in VQ-Rec
    (WWW 2023) and RPG (KDD 2025).
    """

    rotation: torch.Tensor
    centroids: torch.Tensor

    def __init__(self, config: Settings, dim: int) -> None:
        super().__init__(config, dim)
        if len(set(self.sizes)) > 1 or self.sizes[0] & (self.sizes[0] - 1) or self.sizes[0] < 2:
            raise ConfigError(
                f"codebook_size: OPQ needs one power of two (2, 4, ..., 256, ...) for all levels, "
                f"got {self.options['codebook_size']!r}"
            )

    def build(self) -> None:
        levels = len(self.sizes)
        self.part = self.dim // levels
        if not self.part:
            raise ConfigError(
                f"sid_levels: OPQ splits the content into {levels} parts, but it has only "
                f"{self.dim} dimensions"
            )
        self.register_buffer("rotation", torch.zeros(self.part * levels, self.dim))
        self.register_buffer("centroids", torch.zeros(levels, self.sizes[0], self.part))

    def sizes_for(self, n_items: int) -> tuple[int, ...]:
        """The largest power of two that is no larger than the catalogue or the wanted size."""
        size = min(super().sizes_for(n_items)[0], 2 ** (max(n_items, 2).bit_length() - 1))
        return (size,) * len(self.sizes)

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        if len(content) < 2:
            raise ConfigError("OPQ needs at least two items")
        levels, size = len(self.sizes), self.sizes[0]
        content = self._normalized(content)
        # FAISS seeds this training itself; the order of the rows is what our seed can change.
        array = content.cpu().numpy()[np.random.default_rng(self.seed).permutation(len(content))]
        points = self.options["kmeans_points_per_code"]
        quantizer = faiss.ProductQuantizer(self.part * levels, levels, size.bit_length() - 1)
        quantizer.cp.min_points_per_centroid = 1
        quantizer.cp.max_points_per_centroid = points
        matrix = faiss.OPQMatrix(self.dim, levels, self.part * levels)
        matrix.pq = quantizer
        matrix.niter = self.options["opq_iterations"]
        matrix.max_train_points = points * size
        matrix.train(np.ascontiguousarray(array, dtype=np.float32))
        rotation = faiss.vector_to_array(matrix.A).reshape(self.part * levels, self.dim)
        self.rotation.copy_(torch.from_numpy(rotation))

        parts = self._parts(content)
        bar = Bar(range(levels), desc="OPQ", unit="level", disable=not progress)
        error, history = 0.0, []
        for level in bar:
            self.centroids[level] = kmeans(
                parts[:, level],
                size,
                iterations=self.options["kmeans_iterations"],
                redo=self.options["kmeans_redo"],
                points_per_code=points,
                seed=self.seed + 1000 * level,
            )
            used = torch.zeros(size, dtype=torch.bool, device=content.device)
            for part in parts[:, level].split(self._rows_per_chunk()):
                codes = nearest_code(part, self.centroids[level])
                used[codes] = True
                error += float((part - self.centroids[level][codes]).square().sum())
            history.append({"level": level + 1, "utilisation": float(used.float().mean())})
            bar.set_postfix(history[-1])
        residual = error / float(content.square().sum().clamp(min=1e-12))
        return {"residual": residual}, history

    def encode_batch(self, content: torch.Tensor) -> torch.Tensor:
        parts = self._parts(self._normalized(content.double()))
        codes = [nearest_code(parts[:, level], book) for level, book in enumerate(self.centroids)]
        return torch.stack(codes, 1)

    def last_level_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        parts = self._parts(self._normalized(content.double()))
        return squared_distances(parts[:, -1], self.centroids[-1])

    def codewords(self) -> list[torch.Tensor]:
        return list(self.centroids)

    def quantized_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The parts' centroids side by side, in the rotated space."""
        return torch.cat([book[code] for book, code in zip(self.centroids, codes.unbind(1))], 1)

    def _parts(self, content: torch.Tensor) -> torch.Tensor:
        """Rotated content as ``[n, levels, d // levels]``."""
        return (content @ self.rotation.to(content.dtype).T).unflatten(1, (-1, self.part))

    def _normalized(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.normalize(vectors, dim=1) if self.options["normalize_content"] else vectors
