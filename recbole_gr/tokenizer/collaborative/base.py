"""The base class of LETTER and DACT: RQ-VAEs that know the items' collaborative vectors."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F

from recbole_gr.errors import ConfigError
from recbole_gr.terminal.bars import Bar
from recbole_gr.tokenizer.collaborative.imitation import fit_to_codes
from recbole_gr.tokenizer.collaborative.losses import (
    collaborative_loss,
    quantization_loss,
    quantize_straight,
    reconstruction_share,
)
from recbole_gr.tokenizer.collaborative.schedule import share_of_rate, training_amount
from recbole_gr.tokenizer.fitting import checked
from recbole_gr.tokenizer.rqvae import RQVAE

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures, Signals

#: From rows ``[n]`` of a batch to its loss and detached parts by name.
LossOf: TypeAlias = Callable[[torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]]


class CollaborativeRQVAE(RQVAE):
    """RQ-VAE whose quantised vectors are drawn to collaborative vectors; base class.

    The loss is reconstruction + quantisation + ``cf_weight`` * :func:`collaborative_loss`, and what
    a subclass adds to it (:meth:`code_loss`). With ``reconstruction_variance`` the reconstruction
    weighs :func:`reconstruction_share`. The last weights are kept.

    Content and signals: content vectors, scaled to length 1, and ``cf_vectors`` ``[n, e]``,
    ``e = rqvae_dim``, from a collaborative model. An item unknown to that model (a zero row) takes
    part like all others; ``cf_mask_untrained`` leaves such items out of the collaborative loss.
    """

    signals: tuple[str, ...] = ("cf_vectors",)
    fine_tunes = imitates = True
    without = ("tokenizer_select_by", "restart_dead_codes")  # of RQVAE's options
    cosine = True  # whether the collaborative loss compares directions alone
    #: Epochs x rate of the published trainings, of the first period and a later one, if known.
    published_amounts: tuple[float | None, float | None] = (None, None)
    reconstruction_weight = 1.0  # as the content of the last training has it

    def code_loss(self, codes: torch.Tensor, words: list[torch.Tensor]) -> torch.Tensor | float:
        """What a subclass adds to the loss of a batch with codes ``[n, L]`` and their codewords,
        ``L`` tensors ``[n, e]``."""
        return 0.0

    def start_epoch(self) -> None:
        """Called before each pass over the items."""

    def branch_loss(
        self,
        content: torch.Tensor,
        latent: torch.Tensor,
        collaborative: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss of a batch ``[n, d]`` whose latents ``[n, e]`` are given."""
        codes, quantized, residuals, words = quantize_straight(latent, self.codebooks)
        loss = self.reconstruction_weight * F.mse_loss(self.decoder(quantized), content)
        loss = loss + quantization_loss(residuals, words, self.options["commitment_weight"])
        shared = collaborative_loss(quantized, collaborative, known, self.cosine)
        return loss + self.options["cf_weight"] * shared + self.code_loss(codes, words)

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        content, collaborative, known = self.inputs(content, (signals or {}).get("cf_vectors"))
        if self.options["kmeans_init"]:
            self._initialize_codebooks(content)
        epochs = self.options["tokenizer_epochs"]
        rate = self.options["tokenizer_learning_rate"]
        loss_of = self._loss_of(content, collaborative, known)
        return self.train_with(loss_of, content, epochs, rate, progress, self.published_amounts[0])

    def fit_codes(
        self,
        content: torch.Tensor,
        codes: torch.Tensor,
        collaborative: torch.Tensor,
        progress: bool = True,
    ) -> Figures:
        """Learn to give the items codes that exist already
        (:func:`~recbole_gr.tokenizer.collaborative.imitation.fit_to_codes`)."""
        return fit_to_codes(self, content, codes, collaborative, progress)

    def fine_tune(
        self,
        previous: CollaborativeRQVAE,
        content: torch.Tensor,
        collaborative: torch.Tensor,
        progress: bool = True,
    ) -> tuple[Figures, list[Figures]]:
        """Go on from the tokenizer of an earlier period with the same loss (DACT, section 7.5).

        Args:
            previous (CollaborativeRQVAE): that tokenizer; not changed.
            content: float tensor ``[n, d]`` of all items known now, no padding row.
            collaborative: float tensor ``[n, e]``, their vectors of this period.
            progress: show a progress bar.

        Returns:
            tuple: closing figures, and the figures of the evaluated epochs.

        Raises:
            ConfigError: tokenizers of other sizes, or content that cannot be used.
        """
        content = self._take_over(previous, content)
        with self.seeded():
            content, collaborative, known = self.inputs(content, collaborative)
            return self._train_on(self._loss_of(content, collaborative, known), content, progress)

    def _take_over(self, previous: CollaborativeRQVAE, content: torch.Tensor) -> torch.Tensor:
        """Load the weights of an earlier tokenizer; returns the checked content on the device."""
        if self.options["codebook_size"] == previous.options["codebook_size"]:
            self._resize(previous.sizes)  # which the first catalogue may have reduced
        self._check_previous(previous)
        self.load_state_dict(previous.state_dict())
        return checked(content, self.dim).to(self.device)

    def _check_previous(self, previous: CollaborativeRQVAE) -> None:
        if (previous.sizes, previous.dim) != (self.sizes, self.dim):
            raise ConfigError(
                f"the tokenizer of the last period has codebooks {previous.sizes} over content of "
                f"{previous.dim} dimensions, this one {self.sizes} over {self.dim}"
            )

    def _loss_of(
        self, content: torch.Tensor, collaborative: torch.Tensor, known: torch.Tensor | None
    ) -> LossOf:
        """The loss of a first period as :meth:`train_with` takes it."""

        def loss_of(rows: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss = self.branch_loss(
                content[rows], self.encoder(content[rows]), collaborative[rows],
                None if known is None else known[rows],
            )  # fmt: skip
            return loss, {"loss": loss.detach()}

        return loss_of

    def _train_on(
        self, loss_of: LossOf, content: torch.Tensor, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        """Train for a later period."""
        epochs = self.options["continual_epochs"]
        rate = self.options["continual_learning_rate"]
        return self.train_with(loss_of, content, epochs, rate, progress, self.published_amounts[1])

    def inputs(
        self, content: torch.Tensor, collaborative: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Normalised content, collaborative vectors, and which items these know (None: no mask)."""
        width = self.options["rqvae_dim"]
        if collaborative is None:
            raise ConfigError(f"{type(self).__name__} needs the signal cf_vectors")
        if list(collaborative.shape) != [len(content), width]:
            raise ConfigError(
                f"cf_vectors must have shape [{len(content)}, {width}] (items, rqvae_dim), got "
                f"{list(collaborative.shape)}"
            )
        collaborative = collaborative.to(content)
        if not bool(torch.isfinite(collaborative).all()):
            raise ConfigError("cf_vectors has NaN or infinite values; mend or remove them")
        known = collaborative.any(1) if self.options["cf_mask_untrained"] else None
        return self._normalized(content), collaborative, known

    def train_with(
        self,
        loss_of: LossOf,
        content: torch.Tensor,
        epochs: int,
        learning_rate: float,
        progress: bool,
        published: float | None = None,
    ) -> tuple[Figures, list[Figures]]:
        """Train on shuffled batches with linear warm-up and decay; returns figures and history.
        `published` is the amount of the training that was published (:func:`training_amount`)."""
        n_items = len(content)
        batch_size = min(self.options["tokenizer_batch_size"], n_items)
        steps = -(-n_items // batch_size)
        warm, schedule = self.options["tokenizer_warmup_epochs"], self.options["tokenizer_schedule"]
        warm = min(epochs, warm)
        amount = training_amount(learning_rate, epochs, warm, steps, schedule)
        self._log_amount(amount, epochs, learning_rate, published)
        self._weigh_reconstruction(content)
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=learning_rate,
            weight_decay=float(self.options["tokenizer_weight_decay"]),
        )
        decay = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: share_of_rate(step, warm * steps, epochs * steps, schedule),
        )
        every = self.options["tokenizer_evaluate_every"]
        history: list[Figures] = []
        bar = Bar(range(1, epochs + 1), desc=type(self).__name__, disable=not progress)
        for epoch in bar:
            self.start_epoch()
            totals: dict[str, torch.Tensor] = {}
            for rows in torch.randperm(n_items).to(content.device).split(batch_size):
                with torch.enable_grad():
                    loss, parts = loss_of(rows)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
                optimizer.step()
                decay.step()
                for name, value in parts.items():
                    totals[name] = totals.get(name, 0) + value * len(rows)
            if epoch % every and epoch != epochs:
                continue
            means = (torch.stack(list(totals.values())) / n_items).tolist()
            figures = {"epoch": epoch, **dict(zip(totals, means)), **self._evaluate(content)}
            history.append(figures)
            if not math.isfinite(figures["loss"]):
                raise ConfigError(
                    f"{type(self).__name__} diverged in epoch {epoch}: lower the learning rate "
                    f"({learning_rate})"
                )
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
        return dict(history[-1]), history

    def _weigh_reconstruction(self, content: torch.Tensor) -> None:
        share = reconstruction_share(content, self.options["reconstruction_variance"])
        self.reconstruction_weight = share
        if share < 1:
            logging.getLogger().info(
                "%s: content varies more than the loss weights are set for "
                "(reconstruction_variance: %g an entry), its reconstruction weighs %.3g",
                type(self).__name__, self.options["reconstruction_variance"], share,
            )  # fmt: skip

    def _log_amount(
        self, amount: float, epochs: int, rate: float, published: float | None
    ) -> None:
        beside = ""
        if published is not None:
            beside = f"; the authors' {published:g} is {published / amount:.3g} x as much"
        logging.getLogger().info(
            "%s trains %d epochs with a peak rate of %g, epochs x rate %.3g%s",
            type(self).__name__, epochs, rate, amount, beside,
        )  # fmt: skip
