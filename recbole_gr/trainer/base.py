"""RecBole's own trainers, with safe checkpoints and the figures that the results table needs."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from recbole.utils import early_stopping

from recbole_gr.data.identity import identity_of
from recbole_gr.data.sources import Sources, check_sources, sources_of
from recbole_gr.distributed import processes
from recbole_gr.distributed.sharding import (
    DistributedEvaluator,
    DistributedTrainerMixin,
    evaluation_shard,
)
from recbole_gr.model.whole_sequences import WholeSequences
from recbole_gr.storage.checkpoint import (
    decode,
    encode,
    plain_config,
    random_states,
    restore_random_states,
    save_checkpoint,
    stopped_beside,
)
from recbole_gr.terminal.log import say
from recbole_gr.trainer.batches import fused, generators_of
from recbole_gr.trainer.buckets import collecting
from recbole_gr.trainer.contents import REMEDY, TRAINING, load_optimizer, require_generators
from recbole_gr.trainer.divergence import NamesDivergence
from recbole_gr.trainer.epoch_lines import EpochLines
from recbole_gr.trainer.interrupt import Interrupt, Progress, Steps, best_beside, restore_random_of
from recbole_gr.trainer.outcome import Outcome
from recbole_gr.trainer.tensorboard import of_main_alone
from recbole_gr.trainer.weights import load_checkpoint_of, load_weights, require_resumable
from recbole_gr.untrusted.shapes import Shape, require, taking

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.model.abstract_recommender import AbstractRecommender


class SafeTrainerMixin(NamesDivergence, Outcome):
    """Goes before a RecBole `Trainer` class and replaces what it saves and loads.

    RecBole pickles its Config into each checkpoint, which torch >= 2.6 refuses to load by default,
    and which would run code from the file elsewhere.

    Attributes:
        accumulation (int): batches of an optimiser step.
        resumes_with (dict): the shape of what a training goes on from.
    """

    accumulation = 1
    resumes_with: Shape = TRAINING

    def __init__(self, config: Config, model: AbstractRecommender):
        # RecBole looks for it and then makes it, and another process may have made it in between.
        Path(config["checkpoint_dir"]).mkdir(parents=True, exist_ok=True)
        with of_main_alone():
            super().__init__(config, model)
        self.evaluator = DistributedEvaluator(config)
        self._epoch = -1
        self.epoch_seconds, self.valid_seconds, self.valid_curve = [], [], []
        self._train_data = None
        self._identity: dict[str, Any] | None = None
        self._sources: Sources = {}
        self._loader_states: list[torch.Tensor] = []
        self._resumed = False
        self._validates = self._saved = False
        self._interrupt = Interrupt()
        self._place: Progress | None = None
        self._go_on_at: dict[str, Any] | None = None

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super()._build_optimizer(**kwargs)
        return fused(optimizer) if isinstance(self.model, WholeSequences) else optimizer

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[float, dict[str, float] | None]:
        """As RecBole's; after `resume_checkpoint` the batches go on where they stopped.

        Raises:
            KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; the step at hand was finished and, where
                `saved`, `stopped_file` of rank 0 holds the place.
        """
        self._train_data, self._saved = train_data, saved
        self._identity = identity_of(train_data._dataset)
        self._sources = sources_of(self.config) if processes.is_rank_zero() else {}
        self._validates = bool(valid_data) and self.eval_step > 0
        for generator, state in zip(generators_of(train_data), self._loader_states):
            generator.set_state(state.cpu())
        self._loader_states = []
        self._place = None
        if self._go_on_at is not None and self._go_on_at["batches"] is None:
            self.__dict__["_train_epoch"] = self._trained_already  # before the method
        processes.broadcast_weights(self.model)
        with self._interrupt.watch(self._save_place if saved else None):
            return super().fit(train_data, valid_data, verbose, saved, *args, **kwargs)

    def _train_epoch(
        self, train_data: AbstractDataLoader, epoch_idx: int, *args: Any, **kwargs: Any
    ) -> Any:
        start = perf_counter()
        place, self._go_on_at = self._go_on_at, None
        steps = Steps(train_data, self._interrupt, self.accumulation, place)
        self._begun_at = steps.begun_at
        self._place = Progress(epoch_idx, steps, self._before_validation())
        loss = super()._train_epoch(steps, epoch_idx, *args, **kwargs)
        self._place.leave_steps()
        self.epoch_seconds.append(perf_counter() - start)
        self._epoch = epoch_idx
        if not self._validates:
            self.best_epoch = epoch_idx
        return loss

    def _trained_already(self, train_data: Any, epoch_idx: int, *_: Any, **__: Any) -> Any:
        """In the place of `_train_epoch`, once: it was trained before Ctrl-C, not yet validated."""
        del self._train_epoch
        place, self._go_on_at = self._go_on_at or {}, None
        restore_random_of(place)
        self._epoch = epoch_idx
        self._place = Progress(epoch_idx)
        return place["loss"]

    def _generate_train_loss_output(
        self, epoch_idx: int, s_time: float, e_time: float, losses: Any
    ) -> str:
        # The first that RecBole's fit does once an epoch is trained.
        if self._place is not None:
            self._place.end(losses, self._before_validation())
        self._interrupt.training = False
        self._interrupt.obey()
        return super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)

    def _valid_epoch(
        self, valid_data: AbstractDataLoader, *args: Any, **kwargs: Any
    ) -> tuple[float, dict[str, float]]:
        start = perf_counter()
        score, result = super()._valid_epoch(valid_data, *args, **kwargs)
        self.valid_seconds.append(perf_counter() - start)
        self.valid_curve.append([self._epoch, float(score)])
        # Only whether this is the best so far is wanted here; RecBole counts the patience.
        if early_stopping(score, self.best_valid_score, 0, 0, bigger=self.valid_metric_bigger)[3]:
            self.best_epoch = self._epoch
            # RecBole does the same, but only after it has saved the checkpoint.
            self.best_valid_result = result
        return score, result

    def _checkpoint_state(self, epoch: int) -> dict[str, Any]:
        """What rank 0 saves."""
        return {
            "config": plain_config(self.config),
            "data": self._identity,
            "files": self._sources,
            "epoch": epoch,
            "state_dict": dict(self.model.state_dict()),
            "other_parameter": {
                name: encode(value) for name, value in self.model.other_parameter().items()
            },
            "optimizer": self.optimizer.state_dict(),
            "random_states": random_states(),
            "valid_curve": self.valid_curve,
            **self._before_validation(),
        }

    def _before_validation(self) -> dict[str, Any]:
        """What a validation changes, and what decides the batches to come."""
        return {
            "best_epoch": self.best_epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": encode(self.best_valid_result),
            "loader_states": [g.get_state() for g in generators_of(self._train_data)],
        }

    def _save_place(self) -> None:
        """Save where training stands beside the best checkpoint, which stays as it is."""
        state = self._place.state(self._interrupt.agreed) if self._place else None
        if self._place is None or state is None or not processes.is_rank_zero():
            return
        best, file = Path(self.saved_model_file), stopped_beside(self.saved_model_file)
        state["place"].update(best=best.name, has_best=best.is_file())
        save_checkpoint(file, {**self._checkpoint_state(self._place.epoch - 1), **state})
        self.stopped_file = str(file)

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if epoch == -1 and self._resumed:
            # Nothing is left to train. RecBole would put a checkpoint without its epoch in place
            # of the one resumed from.
            return
        file = kwargs.pop("saved_model_file", self.saved_model_file)
        of_all = processes.gather_object(random_states())
        if of_all is None:  # not rank 0
            return
        others = {"random_states_of_others": of_all[1:]} if of_all[1:] else {}
        save_checkpoint(file, {**self._checkpoint_state(epoch), **others})
        if verbose:
            self.logger.info(f"Saved {file}")

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """For trainers that pre-train (S3Rec, RaCT): the same, also at a file of their choice.

        That is named by model and epoch alone, so another run may write it too: what is tested is
        this run's own.
        """
        state = self._checkpoint_state(epoch)
        save_checkpoint(saved_model_file, state)
        if self._saved:
            save_checkpoint(self.saved_model_file, state)

    def resume_checkpoint(self, resume_file: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: weights, optimizer, counters, random states, order of batches.

        Later checkpoints overwrite `resume_file`, as in RecBole, or after Ctrl-C the best one that
        is beside it.

        Raises:
            ConfigError: the file cannot be used, or is of another model or data set, or of files
                that have changed since.
        """
        self.saved_model_file = str(resume_file)
        state = self._load_model(resume_file)
        require(state, self.resumes_with, resume_file, REMEDY)
        require_resumable(self.model, state, resume_file)
        check_sources(state, self.config, resume_file)
        self.start_epoch = state["epoch"] + 1
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.best_epoch = state["best_epoch"]
        self._loader_states = state["loader_states"]
        self.valid_curve = [list(point) for point in state.get("valid_curve", ())]
        with taking("best_valid_result", resume_file, REMEDY):
            self.best_valid_result = decode(state["best_valid_result"])
        load_optimizer(self.optimizer, state, resume_file)
        require_generators(state, resume_file)
        with taking("random_states", resume_file, REMEDY):
            self._restore_random_states(state)
        self._resumed = True
        if "place" in state:
            self._go_on_at = state["place"]
            self.saved_model_file = str(best_beside(resume_file, state["place"]))
        with taking("state of training", resume_file, REMEDY):
            self._resume_from(state)
        say("Resuming from %s, epoch %d", resume_file, self.start_epoch)

    def _restore_random_states(self, state: dict[str, Any]) -> None:
        of_all = [state["random_states"], *state.get("random_states_of_others", ())]
        if processes.rank() < len(of_all):
            restore_random_states(of_all[processes.rank()])
        else:  # saved by fewer processes
            restore_random_states(of_all[0])
            processes.seed_per_rank(self.config["seed"] + self.start_epoch)

    def _resume_from(self, state: dict[str, Any]) -> None:
        """What a trainer's `_checkpoint_state` adds is taken back here."""

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: AbstractDataLoader | None,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """As RecBole's, loading the best model, or `model_file`, without unpickling.

        Several processes share the users; the result is the same in all, `buckets`, `ranks` and a
        trainer's figures are whole on rank 0.
        """
        if not eval_data:
            return None
        if load_best_model:
            self._load_model(model_file or self.saved_model_file)
        others = [other for other in (self.buckets, self.ranks) if other is not None]
        with collecting(self.eval_collector, others):
            result = super().evaluate(
                evaluation_shard(eval_data), load_best_model=False, show_progress=show_progress
            )
        for other in others:
            other.gather()
        return result

    def _load_model(self, file: str | os.PathLike[str]) -> dict[str, Any]:
        state = load_checkpoint_of(self.config, file, map_location=self.device)
        load_weights(self.model, state, file)
        self.logger.info(f"Loaded {file}")
        return state


@cache
def safe_trainer(trainer_class: type) -> type:
    """The subclass of a RecBole trainer that saves and loads safely.

    Args:
        trainer_class (type): RecBole's `Trainer` for a model.
    """
    if issubclass(trainer_class, SafeTrainerMixin):
        return trainer_class
    parts = (EpochLines, SafeTrainerMixin, DistributedTrainerMixin, trainer_class)
    return type(f"Safe{trainer_class.__name__}", parts, {})
