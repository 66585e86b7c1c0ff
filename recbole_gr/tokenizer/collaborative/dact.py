"""DACT's tokenizer: an RQ-VAE that knows collaborative vectors and follows their drift."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from recbole_gr.tokenizer.collaborative.base import CollaborativeRQVAE
from recbole_gr.tokenizer.collaborative.drift import (
    DriftIdentification,
    assignment_drift,
    code_log_probs,
    drift_mask,
    mix,
)
from recbole_gr.tokenizer.fitting import checked

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures

_ROWS = 2**14  # items encoded at once


class DACT(CollaborativeRQVAE):
    """RQ-VAE with a collaborative loss; from the second period on with drift-aware fine-tuning.

    :meth:`fit` learns the first period: reconstruction + quantisation + ``cf_weight`` *
    :func:`collaborative_loss`. :meth:`fit_continual` goes on from the tokenizer of the period
    before, over old and new items. In every batch CDIM (module `drift`) picks
    the drifting ones; the loss is

        L_drift + ``stationary_weight`` * (L_stationary + ``anchor_weight`` * |z_S - z_before|^2)
        + ``kl_weight`` * KL(first-level codes before | now) + ``confidence_weight`` * mean d^2

    where each branch has the loss of the first period, on latents of which the other branch's are
    held as they were. The last weights are kept. Which items change their SIDs is decided
    afterwards, by :func:`recbole_gr.sid.reassign.reassign`.

    Content and signals: content vectors, scaled to length 1, and ``cf_vectors`` ``[n, e]``,
    ``e = rqvae_dim``, from a collaborative model of the same period. An item unknown to that model
    (a zero row) takes part like all others, as in the published code; ``cf_mask_untrained`` leaves
    such items out of the collaborative loss.

    Source: DACT (arXiv 2603.29705); all weights are those of its published code, and the schedule
    of the learning rate. Its content has a variance of 1.9e-4 an entry; of content with more the
    reconstruction weighs less in proportion (``reconstruction_variance``). Inferred: k-means over
    the whole catalogue in place of the first batch, and what the published code lacks, the training
    of the first period (epochs, learning rate).
    """

    follows_drift = True
    published_amounts = (10.0, 0.25)  # 20,000 epochs at 1e-3 (inferred), 5,000 at 1e-4

    def build(self) -> None:
        super().build()
        self.drift = DriftIdentification(
            self.options["rqvae_dim"], temperature=self.options["drift_temperature"]
        )

    def continual_loss(
        self,
        content: torch.Tensor,
        before: torch.Tensor,
        teacher: torch.Tensor,
        collaborative: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch from the second period on, and its detached parts by name.

        Args:
            content: ``[n, d]`` normalised.
            before: ``[n, e]`` latents of the last period's encoder.
            teacher: ``[n, V]`` its log-probabilities of first-level codes.
            collaborative: ``[n, e]``.
            known: BoolTensor ``[n]``, items of the collaborative loss; all by default.
        """
        options = self.options
        latent = self.encoder(content)
        confidence = self.drift(before, latent, collaborative)
        drifting, stationary = mix(drift_mask(confidence, options["drift_share"]), latent, before)
        drift_loss = self.branch_loss(content, drifting, collaborative, known)
        stationary_loss = self.branch_loss(content, stationary, collaborative, known)
        anchor = F.mse_loss(stationary, before)
        student = code_log_probs(latent, self.codebooks[0], options["kl_temperature"])
        parts = {
            "drift": drift_loss,
            "stationary": stationary_loss,
            "anchor": anchor,
            "kl": assignment_drift(teacher, student),
            "confidence": confidence.square().mean(),
        }
        stationary_loss = stationary_loss + options["anchor_weight"] * anchor
        loss = drift_loss + options["stationary_weight"] * stationary_loss
        loss = loss + options["kl_weight"] * parts["kl"]
        loss = loss + options["confidence_weight"] * parts["confidence"]
        parts["loss"] = loss
        return loss, {name: value.detach() for name, value in parts.items()}

    def fit_continual(
        self,
        previous: DACT,
        content: torch.Tensor,
        collaborative: torch.Tensor,
        progress: bool = True,
    ) -> tuple[Figures, list[Figures]]:
        """Go on from the tokenizer of the period before, drift-aware: :meth:`continual_loss`.

        Arguments, results and errors are those of :meth:`fine_tune`.
        """
        content = self._take_over(previous, content)
        with self.seeded():
            content, collaborative, known = self.inputs(content, collaborative)
            temperature = self.options["kl_temperature"]
            with torch.no_grad():
                before = torch.cat([self.encoder(part) for part in content.split(_ROWS)])
                parts = [
                    code_log_probs(part, self.codebooks[0], temperature)
                    for part in before.split(_ROWS)
                ]
            teacher = torch.cat(parts)

            def loss_of(rows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
                return self.continual_loss(
                    content[rows], before[rows], teacher[rows], collaborative[rows],
                    None if known is None else known[rows],
                )  # fmt: skip

            return self._train_on(loss_of, content, progress)

    @torch.no_grad()
    def drift_confidence(
        self, previous: DACT, content: torch.Tensor, collaborative: torch.Tensor
    ) -> torch.Tensor:
        """How sure CDIM is, after :meth:`fit_continual`, that each item has drifted.

        Args:
            previous (DACT): the tokenizer of the period before, whose latents are the old ones.
            content: float tensor ``[n, d]`` without the padding row.
            collaborative: float tensor ``[n, e]``, vectors of this period.

        Returns:
            float tensor ``[n]`` in (0, 1), on the device of ``content``.

        Raises:
            ConfigError: as :meth:`fit_continual`.
        """
        self._check_previous(previous)
        inputs = self.inputs(checked(content, self.dim), collaborative)
        encoder, parts = deepcopy(previous.encoder).to(self.device), []
        for part, vectors in zip(inputs[0].split(_ROWS), inputs[1].split(_ROWS)):
            part, vectors = part.to(self.device), vectors.to(self.device)
            parts.append(self.drift(encoder(part), self.encoder(part), vectors))
        return torch.cat(parts).to(content.device)
