"""LETTER's tokenizer: an RQ-VAE with collaborative and diversity regularisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_gr.errors import ConfigError
from recbole_gr.tokenizer.collaborative.base import CollaborativeRQVAE
from recbole_gr.tokenizer.collaborative.diversity import (
    CodeClusters,
    balanced_kmeans,
    diversity_loss,
)

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures, Signals


class LETTER(CollaborativeRQVAE):
    """RQ-VAE + ``cf_weight`` * collaborative loss + ``diversity_weight`` * diversity loss.

    The collaborative loss is InfoNCE over the batch on inner products of quantised vectors and
    collaborative vectors. For the diversity loss the codewords of each level are clustered by
    balanced k-means into ``diversity_clusters`` clusters, again every ``diversity_every`` epochs,
    and each item's codeword is drawn to a random other one of its cluster, against all others
    (module `diversity`); the mean over levels counts.

    Content and signals: as for :class:`CollaborativeRQVAE`.

    Source: "Learnable Item Tokenization for Generative Recommendation" (LETTER, CIKM 2024, arXiv
    2405.07314) and its published code. Inferred: clusters as equal in size as can be, where that
    code bounds their sizes; clusters that go on from those before; at least two codes in each, so
    fewer clusters in small codebooks; codebooks that start from plain k-means; warm-up and decay of
    the learning rate; the weights of the last epoch, where that code keeps the evaluated ones with
    the fewest collisions.
    """

    cosine = False

    def build(self) -> None:
        super().build()
        self.clusters: list[CodeClusters | None] = [None] * len(self.sizes)
        self._epoch = 0

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        self.clusters, self._epoch = [None] * len(self.sizes), 0
        return super().fit_content(content, signals, progress)

    def fine_tune(
        self,
        previous: CollaborativeRQVAE,
        content: torch.Tensor,
        collaborative: torch.Tensor,
        progress: bool = True,
    ) -> tuple[Figures, list[Figures]]:
        self.clusters, self._epoch = [None] * len(self.sizes), 0
        return super().fine_tune(previous, content, collaborative, progress)

    def start_epoch(self) -> None:
        if self.options["diversity_weight"] and self._epoch % self.options["diversity_every"] == 0:
            self.cluster_codewords()
        self._epoch += 1

    @torch.no_grad()
    def cluster_codewords(self) -> None:
        """Cluster the codewords of each level that has two or more."""
        for level, (codebook, before) in enumerate(zip(self.codebooks, self.clusters)):
            if len(codebook) < 2:
                continue
            k = min(self.options["diversity_clusters"], len(codebook) // 2)
            labels = None if before is None else before.labels
            labels = balanced_kmeans(codebook, k, labels=labels)
            self.clusters[level] = CodeClusters.of(labels, codebook.device)

    def code_loss(self, codes: torch.Tensor, words: list[torch.Tensor]) -> torch.Tensor | float:
        """``diversity_weight`` * the mean over levels of the diversity loss.

        Raises:
            ConfigError: the codewords have not been clustered.
        """
        weight = self.options["diversity_weight"]
        if not weight:
            return 0.0
        levels = [level for level, codebook in enumerate(self.codebooks) if len(codebook) > 1]
        losses = []
        for level in levels:
            clusters, own = self.clusters[level], codes[:, level]
            if clusters is None:
                raise ConfigError("diversity_weight: call cluster_codewords() before the loss")
            losses.append(
                diversity_loss(own, words[level], self.codebooks[level], clusters.draw(own))
            )
        return weight * sum(losses) / len(words)
