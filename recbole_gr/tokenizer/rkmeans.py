"""Residual k-means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from recbole_gr.terminal.bars import Bar
from recbole_gr.tokenizer.base import Tokenizer
from recbole_gr.tokenizer.kmeans import kmeans, nearest_code, squared_distances

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures, Signals


class RKMeans(Tokenizer):
    """Residual k-means: every level clusters what the levels before it left over.

    Level 1 is k-means on the content; each further level is k-means on the residuals, content
    minus the centroids chosen so far. An item's code is the nearest centroid (squared Euclidean)
    of each level in turn. With ``normalize_residuals`` the residual is scaled to length 1 before
    each level, as GRID and IntRR do. There is nothing to train, so the fit takes seconds and
    every code of every level is in use wherever the items are distinct enough.

    Source: "Recommender Systems with Generative Retrieval" (TIGER, NeurIPS 2023), section 3.1,
    names hierarchical k-means as an alternative to RQ-VAE; residual k-means is the ``rkmeans`` of
    "Generative Recommendation with Semantic IDs" (GRID, 2025) and of QARM (2024).
    """

    def build(self) -> None:
        for level, size in enumerate(self.sizes):
            self.register_buffer(f"centroids_{level}", torch.zeros(size, self.dim))

    @property
    def codebooks(self) -> list[torch.Tensor]:
        """Centroids of each level, float32 ``[sizes[l], d]``."""
        return [self.get_buffer(f"centroids_{level}") for level in range(len(self.sizes))]

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        residual = self._normalized(content, self.options["normalize_content"])
        history = []
        bar = Bar(self.codebooks, desc=type(self).__name__, unit="level", disable=not progress)
        for level, codebook in enumerate(bar):
            residual = self._normalized(residual, self.options["normalize_residuals"])
            total = float(residual.square().sum())
            codebook.copy_(self.learn_codebook(residual, level))
            used = torch.zeros(self.sizes[level], dtype=torch.bool, device=content.device)
            rest = torch.empty_like(residual)
            start = 0
            for part in residual.split(self._rows_per_chunk()):
                codes = nearest_code(part, codebook)
                used[codes] = True
                rest[start : start + len(part)] = part - codebook[codes]
                start += len(part)
            residual = rest
            figures = {
                "utilisation": float(used.float().mean()),
                # Share of the level's input that its centroids leave unexplained.
                "residual": float(residual.square().sum()) / max(total, 1e-12),
            }
            history.append({"level": level + 1, **figures})
            bar.set_postfix(figures)
        return {"residual": history[-1]["residual"]}, history

    def learn_codebook(self, residual: torch.Tensor, level: int) -> torch.Tensor:
        """Centroids ``[sizes[level], d]`` of a level, from its input ``[n, d]``."""
        return kmeans(
            residual,
            self.sizes[level],
            iterations=self.options["kmeans_iterations"],
            redo=self.options["kmeans_redo"],
            points_per_code=self.options["kmeans_points_per_code"],
            seed=self.seed + 1000 * level,
        )

    def encode_batch(self, content: torch.Tensor) -> torch.Tensor:
        codes, _ = self._walk(content)
        return codes

    def last_level_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        _, residual = self._walk(content, codes[:, :-1])
        return squared_distances(residual, self.codebooks[-1])

    def _walk(
        self, content: torch.Tensor, given: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes ``[n, L]`` and the residual before the last level; ``given`` codes are followed."""
        residual = self._normalized(content.double(), self.options["normalize_content"])
        codes = []
        for level, codebook in enumerate(self.codebooks):
            residual = self._normalized(residual, self.options["normalize_residuals"])
            last = level == len(self.sizes) - 1
            if last and given is not None:
                return given, residual
            code = nearest_code(residual, codebook) if given is None else given[:, level]
            codes.append(code)
            if not last:
                residual = residual - codebook.double()[code]
        return torch.stack(codes, 1), residual

    @staticmethod
    def _normalized(vectors: torch.Tensor, wanted: bool) -> torch.Tensor:
        return F.normalize(vectors, dim=1) if wanted else vectors
