"""Projection residual k-means."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch

from recbole_gr.quality.cohesion import EPS, unit
from recbole_gr.terminal.bars import Bar
from recbole_gr.tokenizer.base import Tokenizer
from recbole_gr.tokenizer.kmeans import nearest_code, squared_distances

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures, Signals

_ROWS = 2**14  # items looked at once
_FILLS = 10  # rounds in which codes without items are given one


class PRQKMeans(Tokenizer):
    """PRQ-KMeans: k-means of directions on what projections on the codewords before left.

    Content is scaled to length 1 and loses its part along the mean of all content (equations 8, 9).
    A level clusters the directions of the residuals: in each iteration a residual moves its
    ``update_topk`` nearest centroids by the softmax of ``update_concentration`` times their cosines
    (equations 10 to 12). The code is that of the highest cosine (13); what a residual has along
    that centroid is taken out, and the rest is scaled to length 1 for the next level (14). There is
    nothing to train; what the fit holds beside the content does not grow with the catalogue.

    Cosines and projections know no lengths, so all that the scaling decides is whether residuals
    weigh alike in equation 12 or by their length (``normalize_residuals: False``).

    ``update_topk: 1`` is spherical k-means, level by level: what the mode ``top1_projection`` of
    :class:`~recbole_gr.tokenizer.r3vae.model.R3VAE` starts from, and hardly moves from. Ablations
    of the paper: ``remove_mean: False``, ``update_topk: 1``.

    Source: "PRQ-KMeans: Projection Residual Quantization for Semantic ID Tokenization"
    (arXiv 2608.24207), section 4 and algorithm 1; k = 2, a concentration of 15 and 25 iterations
    are those of its public benchmarks. Inferred: a code that no residual is nearest to moves to the
    residual farthest from its own centroid; centroids start at residuals of different directions.
    """

    streams = True
    mean: torch.Tensor

    def build(self) -> None:
        self.register_buffer("mean", torch.zeros(self.dim))
        for level, size in enumerate(self.sizes):
            self.register_buffer(f"centroids_{level}", torch.zeros(size, self.dim))

    @property
    def codebooks(self) -> list[torch.Tensor]:
        """Centroids of each level, float32 ``[sizes[l], d]``; only their direction is used."""
        return [self.get_buffer(f"centroids_{level}") for level in range(len(self.sizes))]

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        if self.options["remove_mean"]:
            parts = (self._normalized(part.to(self.device)) for part in content.split(_ROWS))
            self.mean.copy_(reduce(torch.add, (part.sum(0) for part in parts)) / len(content))
        most = self.options["kmeans_points_per_code"] * max(self.sizes)
        if len(content) > most:
            drawn = torch.randperm(len(content))[:most].sort().values
            content = content[drawn.to(content.device)]
        residual = self._without_mean(self._normalized(content.to(self.device)))
        history: list[Figures] = []
        bar = Bar(self.codebooks, desc=type(self).__name__, unit="level", disable=not progress)
        for level, codebook in enumerate(bar):
            codebook.copy_(self._refined(residual, self._start(residual, len(codebook))))
            words = unit(codebook)
            codes = torch.cat([nearest_code(unit(part), words) for part in residual.split(_ROWS)])
            total, residual = float(residual.square().sum()), _without(residual, words[codes])
            used = int((torch.bincount(codes, minlength=len(words)) > 0).sum())
            figures = {
                "utilisation": used / len(words),
                # Share of the level's input that its centroids leave unexplained.
                "residual": float(residual.square().sum()) / max(total, 1e-12),
            }
            history.append({"level": level + 1, **figures})
            bar.set_postfix(figures)
        return {"residual": history[-1]["residual"]}, history

    def _start(self, residual: torch.Tensor, size: int) -> torch.Tensor:
        """``size`` of the residuals, of different directions as far as there are that many."""
        order = torch.randperm(len(residual)).to(residual.device)
        # Equal directions have equal projections: the first of each, in random order.
        onto = torch.randn(self.dim).to(residual.device).double()
        projections, place = (unit(residual[order].double()) @ onto).sort(stable=True)
        rows = order[place[torch.diff(projections, prepend=projections[:1] - 1) > 0].sort().values]
        return residual[rows.repeat(-(-size // len(rows)))[:size]]

    def _refined(self, residual: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
        """Centroids ``[M, d]`` after the iterations of equations 10 to 12."""
        k = min(self.options["update_topk"], len(centroids))
        alike = self.options["normalize_residuals"]
        for _ in range(self.options["kmeans_iterations"]):
            sums, mass = torch.zeros_like(centroids), centroids.new_zeros(len(centroids))
            words = unit(centroids)
            for part in residual.split(max(1, _ROWS // k)):
                directions = unit(part)
                best, codes = (directions @ words.T).topk(k, dim=1)
                weights = torch.softmax(self.options["update_concentration"] * best, 1)  # [n, k]
                moved = weights.unsqueeze(2) * (directions if alike else part).unsqueeze(1)
                sums.index_add_(0, codes.flatten(), moved.flatten(0, 1))
                mass.index_add_(0, codes.flatten(), weights.flatten())
            means = sums / mass.clamp(min=EPS).unsqueeze(1)
            centroids = torch.where((mass > 0).unsqueeze(1), means, centroids)
        return _filled(residual, centroids)

    def encode_batch(self, content: torch.Tensor) -> torch.Tensor:
        return self._walk(content)[0]

    def last_level_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return squared_distances(self._walk(content, codes)[1], unit(self.codebooks[-1].double()))

    def quantized_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """What the projections took out of the content, the mean's part included, ``[n, d]``."""
        return self._walk(content, codes)[2]

    def _walk(
        self, content: torch.Tensor, given: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes ``[n, L]``, the direction that the last level saw, and what was taken out."""
        # In float64, so that rounding does not make a code depend on the batch.
        content = self._normalized(content.double())
        residual, codes = self._without_mean(content), []
        for level, codebook in enumerate(self.codebooks):
            words, direction = unit(codebook.double()), unit(residual)
            code = nearest_code(direction, words) if given is None else given[:, level]
            chosen = words[code]
            codes.append(code)
            residual = _without(residual, chosen)
        return torch.stack(codes, 1), direction, content - residual

    def _normalized(self, content: torch.Tensor) -> torch.Tensor:
        return unit(content) if self.options["normalize_content"] else content

    def _without_mean(self, content: torch.Tensor) -> torch.Tensor:
        mean = self.mean.to(content.dtype)
        along = content @ mean / mean.square().sum().clamp(min=EPS)
        return content - along.unsqueeze(1) * mean


def _without(residual: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Residuals ``[n, d]`` without what they have along words of length 1 (equation 7)."""
    return residual - (residual * words).sum(1, keepdim=True) * words


def _filled(residual: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Centroids that no residual is nearest to moved to the residuals farthest from their own."""
    for _ in range(_FILLS):
        words = unit(centroids)
        found = [(unit(part) @ words.T).max(1) for part in residual.split(_ROWS)]
        cosines, codes = (torch.cat(parts) for parts in zip(*found))
        empty = (torch.bincount(codes, minlength=len(words)) == 0).nonzero().squeeze(1)
        if not len(empty):
            break
        farthest = cosines.argsort(stable=True)[: len(empty)]
        centroids = centroids.index_copy(0, empty[: len(farthest)], residual[farthest])
    return centroids
