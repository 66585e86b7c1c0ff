"""Residual-quantised variational autoencoder (RQ-VAE)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from recbole_gr.errors import ConfigError
from recbole_gr.quality.measures import collision_figures
from recbole_gr.terminal.bars import Bar
from recbole_gr.tokenizer.base import Tokenizer
from recbole_gr.tokenizer.fitting import random_codebooks
from recbole_gr.tokenizer.kmeans import kmeans, nearest_code, squared_distances

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures, Signals


class MLP(nn.Sequential):
    """Linear layers with ReLU between them (none after the last), Xavier-normal weights."""

    def __init__(self, sizes: Sequence[int]) -> None:
        layers = []
        for inner, outer in zip(sizes, sizes[1:]):
            linear = nn.Linear(inner, outer)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        super().__init__(*layers[:-1])


def quantize(
    latent: torch.Tensor, codebooks: Iterable[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Residual quantisation of latents ``[n, d]``.

    Level by level the nearest codeword of the residual is subtracted from it. The subtraction
    is cut from the gradient, so a codebook learns from its own level alone, while the commitment
    of every level reaches the encoder.

    Returns:
        tuple: codes ``[n, L]``; the sum of the chosen codewords ``[n, d]``; the residual that
        each level quantised, ``L`` tensors ``[n, d]``; and the chosen codewords, likewise.
    """
    residual, codes, residuals, words = latent, [], [], []
    for codebook in codebooks:
        with torch.no_grad():
            distances = codebook.square().sum(1) - 2 * residual @ codebook.T  # [n, V]
            code = distances.argmin(1)
        word = F.embedding(code, codebook)
        codes.append(code)
        residuals.append(residual)
        words.append(word)
        residual = residual - word.detach()
    return torch.stack(codes, 1), reduce(torch.add, words), residuals, words


def rqvae_losses(
    content: torch.Tensor,
    decoded: torch.Tensor,
    residuals: Sequence[torch.Tensor],
    words: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three terms of the RQ-VAE loss (TIGER, section 3.1), each a scalar.

    All are squared Euclidean norms, summed over dimensions and levels as the paper writes them,
    then averaged over the batch: reconstruction ``|x - x'|^2``, codebook
    ``sum_l |sg(r_l) - e_l|^2`` and commitment ``sum_l |r_l - sg(e_l)|^2``.
    """
    reconstruction = (content - decoded).square().sum(1).mean()
    pairs = list(zip(residuals, words))
    codebook = [(r.detach() - e).square().sum(1).mean() for r, e in pairs]
    commitment = [(r - e.detach()).square().sum(1).mean() for r, e in pairs]
    return reconstruction, reduce(torch.add, codebook), reduce(torch.add, commitment)


class RQVAE(Tokenizer):
    """RQ-VAE: an encoder, residual quantisation of its latent, a decoder, trained together.

    The loss is reconstruction + codebook + ``commitment_weight`` * commitment (see
    :func:`rqvae_losses`); the decoder's gradient passes straight through the quantisation. Each
    codebook starts from k-means over the whole catalogue. Codes that no item used for an epoch
    restart at random residuals (``restart_dead_codes``). Every ``tokenizer_evaluate_every``
    epochs all items are encoded; the weights of the best evaluated epoch by
    ``tokenizer_select_by`` are kept: ``loss`` (reconstruction of all items), ``collision``, or
    ``last``. Collisions are fewest while the latent is still unordered, so they choose early
    epochs. The learning rate falls to zero along a cosine.

    Sources: "Autoregressive Image Generation using Residual Quantization" (CVPR 2022);
    "Recommender Systems with Generative Retrieval" (TIGER, NeurIPS 2023), section 3.1; training
    set-up after "Adapting LLMs by Integrating Collaborative Semantics" (LC-Rec, ICDE 2024) and
    "Learnable Item Tokenization" (LETTER, CIKM 2024).
    """

    advice = (
        ("kmeans_init", (False,), "set kmeans_init=True"),
        ("restart_dead_codes", (False,), "set restart_dead_codes=True"),
    )

    def build(self) -> None:
        layers = [self.dim, *self.options["rqvae_hidden"], self.options["rqvae_dim"]]
        self.encoder = MLP(layers)
        self.decoder = MLP(layers[::-1])
        self.codebooks = random_codebooks(self.sizes, layers[-1], self.options["random_init"])

    def forward(
        self, content: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Codes ``[n, L]``, decoded content ``[n, d]``, and the residuals and codewords."""
        latent = self.encoder(content)
        codes, quantized, residuals, words = quantize(latent, self.codebooks)
        straight = latent + (quantized - latent).detach()
        return codes, self.decoder(straight), residuals, words

    def loss(
        self, content: torch.Tensor, signals: Signals | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], dict[str, torch.Tensor]]:
        """Loss of a batch, its codes ``[n, L]``, the residuals, and its detached parts by name."""
        codes, decoded, residuals, words = self(content)
        reconstruction, codebook, commitment = rqvae_losses(content, decoded, residuals, words)
        loss = reconstruction + codebook + self.options["commitment_weight"] * commitment
        parts = {"loss": loss.detach(), "reconstruction": reconstruction.detach()}
        return loss, codes, residuals, parts

    def fit_content(
        self, content: torch.Tensor, signals: Signals | None, progress: bool
    ) -> tuple[Figures, list[Figures]]:
        select_by = self.options["tokenizer_select_by"]
        content = self._normalized(content)
        epochs = self.options["tokenizer_epochs"]
        batch_size = min(self.options["tokenizer_batch_size"], len(content))
        steps = -(-len(content) // batch_size)
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self.options["tokenizer_learning_rate"],
            weight_decay=float(self.options["tokenizer_weight_decay"]),
        )
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
        if self.options["kmeans_init"]:
            self._initialize_codebooks(content)
        history: list[Figures] = []
        best = float("inf")
        kept: Figures = {}
        best_state: dict[str, torch.Tensor] = {}
        every = self.options["tokenizer_evaluate_every"]
        bar = Bar(range(1, epochs + 1), desc=type(self).__name__, disable=not progress)
        for epoch in bar:
            figures = self._train_epoch(content, signals or {}, batch_size, optimizer, decay)
            if epoch % every == 0 or epoch == epochs:
                figures = {"epoch": epoch, **figures, **self._evaluate(content)}
                history.append(figures)
                scores = {"collision": figures["collision_rate"], "loss": figures["reconstruction"]}
                # "last" has no score: each evaluated epoch replaces the one before.
                score = scores.get(select_by, -epoch)
                if score < best:
                    best, kept = score, figures
                    best_state = {key: value.clone() for key, value in self.state_dict().items()}
            if not math.isfinite(figures["loss"]):
                raise ConfigError(
                    f"{type(self).__name__} diverged in epoch {epoch}: lower "
                    f"tokenizer_learning_rate={self.options['tokenizer_learning_rate']}"
                )
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()})
        self.load_state_dict(best_state)
        return dict(kept), history

    def encode_batch(self, content: torch.Tensor) -> torch.Tensor:
        codes, _ = self._walk(content)
        return codes

    def last_level_batch(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        _, residual = self._walk(content, codes)
        return squared_distances(residual, self.codebooks[-1])

    def _train_epoch(
        self,
        content: torch.Tensor,
        signals: Signals,
        batch_size: int,
        optimizer: torch.optim.Optimizer,
        decay: torch.optim.lr_scheduler.LRScheduler,
    ) -> Figures:
        """One pass over the items; returns mean losses. One read from the device per epoch."""
        totals: dict[str, torch.Tensor] = {}
        use = [content.new_zeros(size) for size in self.sizes]
        order = torch.randperm(len(content)).to(content.device)
        for rows in order.split(batch_size):
            batch = {name: signal[rows] for name, signal in signals.items()}
            loss, codes, residuals, parts = self.loss(content[rows], batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            decay.step()
            for name, value in parts.items():
                totals[name] = totals.get(name, 0) + value * len(rows)
            for level, count in enumerate(use):
                count.index_add_(0, codes[:, level], count.new_ones(len(rows)))
        if self.options["restart_dead_codes"]:
            self._restart(use, residuals)
        means = (torch.stack(list(totals.values())) / len(content)).tolist()
        return dict(zip(totals, means))

    @torch.no_grad()
    def _restart(self, use: Sequence[torch.Tensor], residuals: Sequence[torch.Tensor]) -> None:
        """Move codes that no item used to random residuals of the last batch."""
        for codebook, count, residual in zip(self.codebooks, use, residuals):
            rows = torch.randint(len(residual), (len(codebook),)).to(residual.device)
            codebook.copy_(torch.where((count == 0)[:, None], residual[rows], codebook))

    @torch.no_grad()
    def _initialize_codebooks(self, content: torch.Tensor) -> None:
        """Residual k-means of the initial latents, over at least ten items per code or all."""
        residual = torch.cat([self.encoder(part) for part in content.split(2**14)])
        for level, codebook in enumerate(self.codebooks):
            codebook.copy_(kmeans(residual, len(codebook), seed=self.seed + 1000 * level))
            codes = [nearest_code(part, codebook) for part in residual.split(2**14)]
            residual = residual - codebook[torch.cat(codes)]

    @torch.no_grad()
    def _evaluate(self, content: torch.Tensor) -> Figures:
        """Collisions, utilisation of each level and reconstruction error over all items."""
        parts, error = [], content.new_zeros(())
        for part in content.split(2**14):
            code, decoded, _, _ = self(part)
            parts.append(code)
            error += (part - decoded).square().sum()
        codes = torch.cat(parts).cpu()
        used = [len(codes[:, level].unique()) / size for level, size in enumerate(self.sizes)]
        return {
            "reconstruction": float(error) / len(content),
            "collision_rate": collision_figures(codes, self.sizes)["collision_rate"],
            **{f"utilisation_{level + 1}": value for level, value in enumerate(used)},
        }

    def _walk(
        self, content: torch.Tensor, given: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes ``[n, L]`` and the residual before the last level; ``given`` codes are followed."""
        # In float64, so that rounding does not make a code depend on the batch.
        residual = self._normalized(content.double())
        for layer in self.encoder:
            if isinstance(layer, nn.Linear):
                residual = F.linear(residual, layer.weight.double(), layer.bias.double())
            else:
                residual = layer(residual)
        codes = []
        for level, codebook in enumerate(self.codebooks):
            codes.append(nearest_code(residual, codebook) if given is None else given[:, level])
            if level < len(self.sizes) - 1:
                residual = residual - codebook.double()[codes[-1]]
        return torch.stack(codes, 1), residual

    def _normalized(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.normalize(vectors, dim=1) if self.options["normalize_content"] else vectors
