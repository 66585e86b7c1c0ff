"""Training of R3-VAE: initialisation, steps over minibatches, evaluation, choice of the weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import reduce
from typing import TYPE_CHECKING

import torch

from recbole_gr.errors import ConfigError
from recbole_gr.quality.cohesion import discrimination, group_cohesion, unit
from recbole_gr.quality.measures import collision_figures
from recbole_gr.terminal.bars import Bar
from recbole_gr.tokenizer.kmeans import kmeans
from recbole_gr.tokenizer.r3vae.rating import SOFT, TOP1, stable_codes

if TYPE_CHECKING:
    from recbole_gr.tokenizer.fitting import Figures
    from recbole_gr.tokenizer.r3vae.model import R3VAE

_ROWS = 2**14  # items encoded at once in an evaluation
_HARD_START_ABOVE = 0.1  # a softmax flatter than this leaves nearly the same residual to all items


class Fit:
    """One training of an R3-VAE.

    Args:
        model: :class:`~recbole_gr.tokenizer.r3vae.model.R3VAE`; its weights are changed.
        content: float tensor ``[n, d]``, on any device; only minibatches and one sample move to
            the model's.
        progress: show a progress bar.
    """

    def __init__(self, model: R3VAE, content: torch.Tensor, progress: bool) -> None:
        self.model, self.content, self.progress = model, content, progress
        self.options = model.options
        self.steps = model.options["tokenizer_steps"]
        self.batch_size = min(model.options["tokenizer_batch_size"], len(content))
        self.every = min(model.options["tokenizer_evaluate_every"], self.steps)
        self.patience = model.options["tokenizer_patience"]
        self.clip = model.options["clip_gradient"]
        self.sample = self._rows(model.options["tokenizer_evaluate_items"])

    def run(self) -> tuple[Figures, list[Figures]]:
        """Train; returns the figures of the evaluation that is kept, and all of them."""
        self.initialize()
        self._warn_of_small_batches()
        self._warn_of_early_evaluations()
        optimizer = self.optimizer()
        history: list[Figures] = []
        totals: dict[str, torch.Tensor] = {}
        best: Figures = {}
        since = seen = 0
        bar = Bar(total=self.steps, desc=type(self.model).__name__, disable=not self.progress)
        for step, rows in enumerate(self.batches(), start=1):
            for name, value in self.step(rows, optimizer).items():
                totals[name] = totals.get(name, 0) + value
            if step % self.every and step != self.steps:
                continue
            means = {f"train_{k}": float(v) / (step - seen) for k, v in totals.items()}
            figures, totals = {"step": step, **means, **evaluate(self.model, self._sampled)}, {}
            self._check_finite(figures)
            history.append(figures)
            if not best or self._score(figures) < self._score(best):
                best = figures
                state = {name: value.clone() for name, value in self.model.state_dict().items()}
            bar.update(step - seen)
            seen = step
            shown = ("train_loss", "reconstruction", "reconstruction_hard", "collision_rate")
            bar.set_postfix({name: f"{figures[name]:.4g}" for name in shown})
            since = 0 if self._improves(history) else since + 1
            if self.patience and since >= self.patience:
                break
        bar.close()
        self.model.load_state_dict(state)
        return dict(best), history

    @torch.no_grad()
    def initialize(self) -> None:
        """Reference vector from the mean of the content, codebooks from residual k-means."""
        model = self.model
        if model.reference is not None and self.options["reference_init"] == "mean":
            total = torch.zeros_like(model.reference)
            for rows in torch.arange(len(self.content)).split(_ROWS):
                total += self._batch(rows).sum(0)
            model.reference.copy_(total / len(self.content))
        if not self.options["kmeans_init"]:
            return
        points = model.options["kmeans_points_per_code"]
        residual = self._batch(self._rows(points * max(model.sizes)))
        residual = residual - model.project(residual)
        for level, codebook in enumerate(model.codebooks):
            codebook.copy_(self._centroids(residual, level, points))
            residual = torch.cat([self._rest(part, level) for part in residual.split(_ROWS)])

    def step(self, rows: torch.Tensor, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """One optimiser step on the items ``rows``; returns the detached loss terms by name."""
        with torch.enable_grad():
            loss, parts = self.model.loss(self._batch(rows))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        optimizer.step()
        return parts

    def _centroids(self, residual: torch.Tensor, level: int, points: int) -> torch.Tensor:
        """Codewords ``[M, d]`` of one level: k-means of the residuals, of their directions where
        codes are rated by cosine. A direction gets the mean length of its items along it."""
        iterations = self.model.options["kmeans_iterations"]
        seed = self.model.seed + 1000 * level
        size, spherical = self.model.sizes[level], self.model.mode != "ste"
        vectors = unit(residual) if spherical else residual
        centroids = kmeans(
            vectors, size, iterations=iterations, points_per_code=points, seed=seed,
            spherical=spherical,
        )  # fmt: skip
        if not spherical:
            return centroids
        centroids = unit(centroids)
        codes = torch.cat(
            [stable_codes(part, centroids, self.model.mode) for part in residual.split(_ROWS)]
        )
        along = (residual * centroids[codes]).sum(1)
        return centroids * _mean_by_code(along, codes, size).clamp(min=1e-3).unsqueeze(1)

    def _rest(self, residual: torch.Tensor, level: int) -> torch.Tensor:
        """What a level leaves of residuals at the start, for the next level's k-means.

        A flat softmax would leave all items alike, so the nearest codeword stands for it there.
        """
        model = self.model
        if model.mode in SOFT and model.temperature > _HARD_START_ABOVE:
            codebook = model.codebooks[level]
            return residual - codebook[stable_codes(residual, codebook, model.mode)]
        return residual - model.rate(residual, level)[0]

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over all weights; none of its decay on the reference vector."""
        # The map depends on the reference vector's direction alone: decay would only shrink it.
        reference = [p for n, p in self.model.named_parameters() if n == "reference"]
        others = [p for n, p in self.model.named_parameters() if n != "reference"]
        decay = self.model.options["tokenizer_weight_decay"]
        return torch.optim.AdamW(
            [
                {"params": others, "weight_decay": decay},
                {"params": reference, "weight_decay": 0.0},
            ],
            lr=self.model.options["tokenizer_learning_rate"],
        )

    def batches(self) -> Iterator[torch.Tensor]:
        """Rows of ``steps`` batches, every item once before any comes again."""
        done = 0
        while True:
            # Full batches only: a small last one would make a noisy estimate of the cohesion.
            for rows in torch.randperm(len(self.content)).split(self.batch_size):
                if len(rows) == self.batch_size:
                    yield rows
                    done += 1
                if done == self.steps:
                    return

    def _batch(self, rows: torch.Tensor) -> torch.Tensor:
        # Not blocking: the host would wait for the steps before.
        part = self.content[rows.to(self.content.device, non_blocking=True)]
        return self.model.normalized(part.to(self.model.device, non_blocking=True))

    def _rows(self, most: int) -> torch.Tensor:
        """All rows, or ``most`` of them drawn at random."""
        n = len(self.content)
        return torch.arange(n) if n <= most else torch.randperm(n)[:most].sort().values

    def _sampled(self) -> Iterator[torch.Tensor]:
        return (self._batch(rows) for rows in self.sample.split(_ROWS))

    def _score(self, figures: Figures) -> tuple[float, ...]:
        """Smaller is better."""
        select_by = self.options["tokenizer_select_by"]
        if select_by == "last":
            return (-figures["step"],)
        if select_by == "loss":
            return (figures["reconstruction"],)
        return figures["collision_rate"], figures["pd"] - figures["sc"]

    @staticmethod
    def _improves(history: list[Figures]) -> bool:
        """Whether the last evaluation has fewer collisions or a smaller hard error than before."""
        *before, last = history
        names = ("collision_rate", "reconstruction_hard")
        return not before or any(
            last[name] < 0.999 * min(figures[name] for figures in before) for name in names
        )

    def _check_finite(self, figures: Figures) -> None:
        if not all(math.isfinite(value) for value in figures.values()):
            raise ConfigError(
                f"{type(self.model).__name__} diverged by step {figures['step']}: lower "
                f"tokenizer_learning_rate={self.options['tokenizer_learning_rate']}"
            )

    def _warn_of_small_batches(self) -> None:
        by_group = self.options["sc_regulariser"] and self.options["sc_vectors"] != "surrogate"
        enough = min(4 * max(self.model.sizes), len(self.content))
        if by_group and self.batch_size < enough:
            logging.getLogger().warning(
                "tokenizer_batch_size: in batches of %d items most of %d codes have fewer than two "
                "items, so Semantic Cohesion has few pairs to learn from; use %d or more",
                self.batch_size,
                max(self.model.sizes),
                4 * max(self.model.sizes),
            )

    def _warn_of_early_evaluations(self) -> None:
        if not self.options["kmeans_init"] and self.options["tokenizer_select_by"] == "collision":
            logging.getLogger().warning(
                "tokenizer_select_by: from random codebooks (kmeans_init: False) the evaluation of "
                "fewest collisions is often an early one, of codes that are hardly trained; use "
                "last or loss"
            )


@torch.no_grad()
def evaluate(model: R3VAE, batches: Callable[[], Iterator[torch.Tensor]]) -> Figures:
    """Figures of an R3-VAE over items.

    ``reconstruction`` is the squared error per item as trained; ``reconstruction_hard`` that with
    each level's vector replaced by what its code alone tells: the codeword, in the top-1 modes its
    direction times the mean rating of the code's items (inferred). A soft error far below the hard
    one means that the codes have lost their meaning. ``sc`` is over quantised vectors by code
    prefix, ``pd`` over the used codewords, both averaged over the levels.

    Args:
        model: :class:`~recbole_gr.tokenizer.r3vae.model.R3VAE`.
        batches: function that returns an iterator over batches of normalised content ``[n, d]``.

    Returns:
        dict: plain numbers by name.
    """
    soft = hard = torch.zeros((), device=model.device)
    given, lengths, totals = [], [], []
    words = [unit(codebook) for codebook in model.codebooks]
    for batch in batches():
        result = model(batch)
        soft = soft + (batch - model.decoder(result.total)).square().sum()
        columns = zip(words, result.words, result.codes.unbind(1))
        lengths.append(torch.stack([(word * book[code]).sum(1) for book, word, code in columns], 1))
        given.append(result.codes)
        totals.append(result.total)
    codes, along, total = torch.cat(given), torch.cat(lengths), torch.cat(totals)
    n_items = len(codes)
    books = list(model.codebooks)
    if model.mode in TOP1:
        means = [_mean_by_code(*column) for column in zip(along.T, codes.T, model.sizes)]
        books = [book * mean.unsqueeze(1) for book, mean in zip(words, means)]
    start = 0
    for batch in batches():
        chosen = zip(books, codes[start : start + len(batch)].unbind(1))
        start += len(batch)
        words_sum = reduce(torch.add, (book[code] for book, code in chosen))
        hard = hard + (batch - model.decoder(model.project(batch) + words_sum)).square().sum()
    sc = pd = torch.zeros((), device=model.device)
    groups, figures = torch.zeros_like(codes[:, 0]), {}
    for level, size in enumerate(model.sizes):
        groups = torch.unique(groups * size + codes[:, level], return_inverse=True)[1]
        sc = sc + group_cohesion(total, groups, int(groups.max()) + 1)
        counts = torch.bincount(codes[:, level], minlength=size)
        pd = pd + discrimination(model.codebooks[level][counts > 0])
        share = counts[counts > 0].double() / n_items
        figures[f"utilisation_{level + 1}"] = len(share) / size
        figures[f"perplexity_{level + 1}"] = float(2 ** -(share * share.log2()).sum())
    collisions = collision_figures(codes.cpu(), model.sizes)
    return {
        "reconstruction": float(soft) / n_items,
        "reconstruction_hard": float(hard) / n_items,
        "collision_rate": collisions["collision_rate"],
        "distinct_rate": collisions["distinct"] / n_items,
        "gini": collisions["gini"],
        "sc": float(sc) / len(model.sizes),
        "pd": float(pd) / len(model.sizes),
        **figures,
    }


def _mean_by_code(values: torch.Tensor, codes: torch.Tensor, size: int) -> torch.Tensor:
    sums = values.new_zeros(size).index_add(0, codes, values)
    return sums / torch.bincount(codes, minlength=size).clamp(min=1)
