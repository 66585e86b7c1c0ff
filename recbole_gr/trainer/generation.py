"""Training of generative recommenders on RecBole's trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from recbole.trainer import Trainer
from recbole.utils import set_color
from torch.nn.utils import clip_grad_norm_

from recbole_gr.distributed import processes
from recbole_gr.distributed.sharding import ShardedBatches
from recbole_gr.storage.checkpoint import plain
from recbole_gr.terminal.bars import Bar
from recbole_gr.terminal.log import say
from recbole_gr.trainer.base import SafeTrainerMixin
from recbole_gr.trainer.batches import fused, to_device
from recbole_gr.trainer.contents import GENERATIVE
from recbole_gr.trainer.epoch_lines import EpochLines
from recbole_gr.trainer.evaluation import RankedLists, from_ranked_lists, sample_users
from recbole_gr.trainer.outcome import Outcome

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.data.interaction import Interaction
    from torch import Tensor

    from recbole_gr.generation.beam_search import Beams
    from recbole_gr.model.base import GenerativeRecommender

NARROW = 128  # hidden_size up to which enable_amp makes no epoch on a CPU shorter, docs/speed.md
SHOW_EVERY = 20  # batches between two figures in the progress bar: reading one waits for the device


def learning_rate_factor(step: int, schedule: str, warmup: int, total: int) -> float:
    """Share of the full learning rate at optimiser step ``step`` (from 0).

    Linear warm-up over ``warmup`` steps, then ``constant``, half a cosine down to 0 at
    ``total`` (``cosine``), or falling with the root of the step (``inverse_sqrt``).
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "cosine":
        share = (step - warmup) / max(1, total - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if schedule == "inverse_sqrt":
        return (max(1, warmup) / (step + 1)) ** 0.5
    return 1.0


class _GenerationSteps(Outcome, Trainer):
    """The training step and the evaluation of ranked lists, in the place of RecBole's own."""

    def __init__(self, config: Config, model: GenerativeRecommender):
        super().__init__(config, model)
        self.schedule = config["lr_scheduler"]
        self.warmup = config["warmup_steps"]
        self.accumulation = config["accumulation_steps"]
        self.amp_dtype = amp_dtype(config)
        width = config["hidden_size"]
        if config["enable_amp"] and self.device.type == "cpu" and width and width <= NARROW:
            say(
                "enable_amp seldom pays on a CPU at hidden_size %d (any up to %d): an epoch may "
                "take up to twice as long. Compare one without it.", width, NARROW,
            )  # fmt: skip
        self.valid_users = config["valid_users"]
        self.n_steps = 0  # optimiser steps made
        self.generation_figures: dict[str, float] = {}
        self._valid_sample = None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.enable_scaler)
        self._loss = model.calculate_loss
        if config["torch_compile"]:
            self._loss = model.compiled_loss()

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        return fused(super()._build_optimizer(**kwargs))

    def _train_epoch(
        self,
        train_data: AbstractDataLoader,
        epoch_idx: int,
        loss_func: Callable[[Interaction], torch.Tensor] | None = None,
        show_progress: bool = False,
    ) -> float:
        """One pass over ``train_data``; returns the mean loss of its batches.

        In an epoch that goes on after a stop it is the mean of those after it.
        """
        self.model.train()
        loss_func = loss_func or self._loss
        n_batches = len(train_data)
        begun_at = getattr(train_data, "begun_at", 0)  # more than 0 in an epoch that goes on
        total = torch.zeros((), device=self.device)
        shards = ShardedBatches(train_data)  # all rows where there is one process
        bar = Bar(
            shards,
            total=n_batches,
            ncols=100,
            desc=set_color(f"{self.stage} {epoch_idx:>5}", "pink"),
            disable=not show_progress,
        )
        self.optimizer.zero_grad()
        for batch_idx, interaction in enumerate(bar, begun_at):
            # The last group of a pass may be smaller; its mean is over what it has.
            first = batch_idx - batch_idx % self.accumulation
            group = min(self.accumulation, n_batches - first)
            self.model.batch_share = shards.share
            with torch.autocast(self.device.type, self.amp_dtype, enabled=self.enable_amp):
                loss = loss_func(to_device(interaction, self.device)) * shards.share
            self.scaler.scale(loss / group).backward()
            total += loss.detach()
            if batch_idx + 1 == first + group:
                self._step(n_batches)
            if not bar.disable and batch_idx % SHOW_EVERY == 0:
                mean = float(total) / (batch_idx + 1 - begun_at)
                rate = self.optimizer.param_groups[0]["lr"]
                bar.set_postfix_str(f"loss {mean:.4f}, lr {rate:.1e}")
        average = processes.all_reduce_sum(total) / max(1, n_batches - begun_at)
        self._check_nan(average)
        return float(average)

    @property
    def scheduled_epochs(self) -> int:
        """Epochs from the first optimiser step to the end of the learning-rate schedule."""
        return self.epochs

    def _step(self, n_batches: int) -> None:
        steps_per_epoch = -(-n_batches // self.accumulation)
        factor = learning_rate_factor(
            self.n_steps, self.schedule, self.warmup, steps_per_epoch * self.scheduled_epochs
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factor * group.get("lr_scale", 1.0)
        processes.all_reduce_gradients(self.model.parameters())
        if self.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.n_steps += 1

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: AbstractDataLoader,
        load_best_model: bool = False,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """RecBole's metrics over the generated lists; metrics that need the score of every item
        take RecBole's dense path. ``generation_figures`` holds what is particular to SIDs."""
        if not from_ranked_lists(eval_data, self.eval_collector.register):
            return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        self.model.eval()
        lists = RankedLists(self.model.trie, self.config["topk"])
        bar = Bar(
            eval_data,
            total=len(eval_data),
            ncols=100,
            desc=set_color("Evaluate   ", "pink"),
            disable=not show_progress,
        )
        for interaction, _, positive_u, positive_i in bar:
            with torch.autocast(self.device.type, self.amp_dtype, enabled=self.enable_amp):
                interaction = to_device(interaction, self.device)
                beams, scores, exact = self._answers(interaction)
            n_places = lists.k if self.ranks is None else max(lists.k, beams.nodes.shape[1])
            ranked = self.model.rank(beams, n_places, interaction).items
            items = ranked[:, : lists.k]
            positive = torch.stack([positive_u, positive_i]).to(self.device, non_blocking=True)
            lists.add(beams, items, *positive)
            if self.buckets is not None:
                self.buckets.add_ranked(items, *positive)
            if self.ranks is not None and scores is not None:
                self.ranks.add_scored(scores, interaction, *positive)
            elif self.ranks is not None:
                self.ranks.add_ranked(ranked, interaction, *positive)
            if self.ranks is not None and exact is not None:
                self.ranks.add_exact(exact, interaction, *positive)
        lists.gather()
        lists.into(self.eval_collector.data_struct)
        result = self.evaluator.evaluate(self.eval_collector.get_data_struct())
        self.generation_figures = processes.broadcast_object(lists.figures)
        self.wandblogger.log_eval_metrics(result, head="eval")
        self.logger.info(f"generation: {self.generation_figures}")
        return result

    def _answers(self, interaction: Interaction) -> tuple[Beams, Tensor | None, Tensor | None]:
        """The beams of a batch; and where ranks are collected the scores ``[B, n_items]`` that the
        search was made by, if it scores every item, and the exact ones, if they are asked for."""
        if self.ranks is None:
            return self.model.search(interaction), None, None
        beams, scores = self.model.search_and_score(interaction)
        if self.ranks.exact is None:
            return beams, scores, None
        return beams, scores, self.ranks.exact(interaction) if scores is None else scores


class GenerationTrainer(EpochLines, SafeTrainerMixin, _GenerationSteps):
    """Trains a :class:`~recbole_gr.model.base.GenerativeRecommender`.

    RecBole's trainer with learning-rate warm-up and schedule, gradient accumulation, mixed
    precision in a chosen type, evaluation by generation, and checkpoints of plain data. Losses are
    summed on the device; nothing is read back during a step.

    Keys beside RecBole's: ``lr_scheduler``, ``warmup_steps``, ``accumulation_steps``,
    ``amp_dtype``, ``valid_users``, ``torch_compile`` (see ``properties/model/TIGER.yaml``).

    Attributes:
        content_encoder (dict | None): what makes the content of items that come later
            (``ItemContent.encoder``); checkpoints hold it.
        fitted_tokenizer (dict | None): likewise what codes them
            (:func:`~recbole_gr.pipeline.new_items.fitted_state`).
    """

    resumes_with = GENERATIVE
    sums_losses = False
    content_encoder: dict[str, Any] | None = None
    fitted_tokenizer: dict[str, Any] | None = None

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        **kwargs: Any,
    ) -> tuple[float, dict[str, float] | None]:
        """As RecBole's. With ``valid_users`` the epochs are compared on a sample; the result
        returned is that of the best epoch on all validation users, as long as its weights are
        ``saved``, and that on the sample otherwise."""
        sample = valid_data
        if valid_data:
            sample = sample_users(valid_data, self.valid_users, self.config["seed"])
        self._valid_sample = sample
        score, result = super().fit(train_data, sample, verbose, saved, **kwargs)
        if sample is not valid_data and saved and result is not None:
            result = self.evaluate(valid_data, load_best_model=True)
            assert result is not None
            score = result[self.valid_metric]
        return score, result

    def _checkpoint_state(self, epoch: int) -> dict[str, Any]:
        table = self.model.sid_table()  # its codes are among the weights
        sid = {"sizes": table.sizes, "digest": table.digest(), "meta": plain(table.meta)}
        own = {"n_steps": self.n_steps, "sid": sid}
        new_items = {"content": self.content_encoder, "tokenizer": self.fitted_tokenizer}
        return {**super()._checkpoint_state(epoch), **own, **new_items}

    def _resume_from(self, state: dict[str, Any]) -> None:
        self.n_steps = state["n_steps"]


def amp_dtype(config: Config) -> torch.dtype:
    """The type of mixed precision that a configuration asks for (`amp_dtype`)."""
    return getattr(torch, config["amp_dtype"])
