"""Training of PIT: warm-up, bridge, co-evolution (arXiv 2602.08530; the schedule is inferred)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError
from recbole_gr.model.pit.statistics import SID_HISTOGRAM
from recbole_gr.storage.files import atomic_write
from recbole_gr.terminal.log import brief, say
from recbole_gr.trainer.contents import PHASES, REMEDY
from recbole_gr.trainer.figures import FiguresTrainer, figures_in
from recbole_gr.trainer.weights import load_checkpoint_of
from recbole_gr.untrusted.shapes import require, taking

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader
    from torch.optim import Optimizer

    from recbole_gr.model.pit.model import PIT

_OF_A_WARM_UP = ("phase", "epoch", "best_epoch", "best_valid_score", "epoch_figures")
STAGES = {1: "Warm-up", 2: "Co-evolve"}


class PITTrainer(FiguresTrainer):
    """Drives a :class:`~recbole_gr.model.pit.model.PIT` through its two phases.

    Phase 1 runs up to ``warmup_epochs`` with patience ``warmup_stopping_step``. The bridge goes
    back to its best weights, draws the candidates and starts phase 2, of up to ``epochs`` more
    with patience ``stopping_step``. Early stopping, the optimiser's moments and the learning-rate
    schedule begin again there, at ``coevo_rate`` times the rate (Item-to-Token at its own), so the
    best epoch that is tested is one of phase 2. Epochs are numbered through. After every epoch the
    index is refreshed and the model's figures are noted.

    The best warm-up stays beside the checkpoint as ``<name>-warmup.pth``. Another run takes it with
    ``warmup_from`` in the place of its own phase 1, so that variants of the co-evolution start from
    the same weights.

    A checkpoint knows its phase: training resumes inside either one as if never interrupted.
    """

    unlogged = (SID_HISTOGRAM,)
    resumes_with = {**FiguresTrainer.resumes_with, **PHASES}

    def __init__(self, config: Config, model: PIT):
        super().__init__(config, model)
        self._co_evolution_epochs = config["epochs"]
        self._warmup_epochs = config["warmup_epochs"]
        self._patience = {1: config["warmup_stopping_step"], 2: config["stopping_step"]}
        self._phase_start = 0  # the epoch at which the present phase began
        self._enter(1)

    def _build_optimizer(self, **kwargs: Any) -> Optimizer:
        # Item-to-Token has a group of its own: its learning rate changes with the phase.
        module = self.model.item_to_token
        tokenizer = [] if module is None else list(module.parameters())
        known = set(map(id, tokenizer))
        rest = [p for p in self.model.parameters() if id(p) not in known]
        groups = [{"params": rest, "lr_scale": 1.0}, {"params": tokenizer, "lr_scale": 1.0}]
        return super()._build_optimizer(params=groups, **kwargs)

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        **kwargs: Any,
    ) -> tuple[float, dict[str, float] | None]:
        """Both phases, or what is left of them.

        Returns:
            tuple: best validation score and result of phase 2.
        """
        if self.model.phase == 1:
            if self.config["warmup_from"] and self.start_epoch == 0:
                score = self._take_warm_up(self.config["warmup_from"])
            else:
                score, _ = super().fit(train_data, valid_data, verbose, saved, **kwargs)
                if saved:  # otherwise the last epoch's weights are what there is
                    self._load_model(self.saved_model_file)
                    self._keep_warm_up()
            self._bridge(score if valid_data else None)
        return super().fit(train_data, valid_data, verbose, saved, **kwargs)

    @property
    def scheduled_epochs(self) -> int:
        """Epochs of the present phase, as optimiser steps are counted again in each."""
        return self.epochs - self._phase_start

    def _enter(self, phase: int) -> None:
        """Set what follows from the phase; changes no weights and no counters."""
        self.model.set_phase(phase)
        self.stage = STAGES[phase]
        self.stopping_step = self._patience[phase]
        most = self._warmup_epochs if phase == 1 else self._co_evolution_epochs
        self.epochs = self._phase_start + most
        self.eval_step = min(self.config["eval_step"], most)

    def _keep_warm_up(self) -> None:
        """Phase 2 overwrites the checkpoint; a copy serves as another run's ``warmup_from``."""
        if not processes.is_rank_zero():
            return
        saved = Path(self.saved_model_file)
        kept = saved.with_name(f"{saved.stem}-warmup{saved.suffix}")
        with atomic_write(kept) as unfinished:
            shutil.copyfile(saved, unfinished)
        self.logger.info(f"Kept {kept}")

    def _take_warm_up(self, file: str) -> float:
        """Weights and figures of another run's phase 1; returns its best score.

        Raises:
            ConfigError: the file is no such checkpoint, or its modules are not this model's.
        """
        state = load_checkpoint_of(self.config, file, map_location=self.device)
        require(state, {key: self.resumes_with[key] for key in _OF_A_WARM_UP}, file, REMEDY)
        if state["phase"] != 1:
            raise ConfigError(
                f"warmup_from: '{file}' was saved in the co-evolution. Give the copy that a run "
                "keeps of its warm-up, which ends in '-warmup.pth', or go on with --resume."
            )
        # What the candidates decide is as at the start, and they may be more or fewer here.
        of_sids = self.model.of_sids
        own = {n: t for n, t in self.model.state_dict().items() if n.startswith(of_sids)}
        weights = {n: t for n, t in state["state_dict"].items() if not n.startswith(of_sids)}
        try:
            self.model.load_state_dict({**weights, **own})
        except RuntimeError as error:
            raise ConfigError(
                f"warmup_from: the weights in '{file}' do not fit this model: it was warmed up "
                f"with other settings. {error}"
            ) from error
        self._epoch = state["epoch"]
        self.best_epoch = state["best_epoch"]
        with taking("epoch_figures", file, REMEDY):
            self.epoch_figures = figures_in(state)
        say("Warm-up taken from %s", file)
        return state["best_valid_score"]

    def _bridge(self, score: float | None) -> None:
        """From the best weights of phase 1 to the start of phase 2."""
        self._phase_start = max(self.start_epoch, self._epoch + 1)
        self.model.start_co_evolution()
        self._enter(2)
        self.start_epoch = self._phase_start
        self.best_valid_score = -float("inf") if self.valid_metric_bigger else float("inf")
        self.cur_step, self.best_valid_result, self.n_steps = 0, None, 0
        self.optimizer.state.clear()
        rest, tokenizer = self.optimizer.param_groups
        rest["lr_scale"] = self.config["coevo_rate"]
        tokenizer["lr_scale"] = self.config["i2t_learning_rate"] / self.learning_rate
        n_sids = self.model.trie.n_nodes[-1]
        best = "" if score is None else f", best valid score {score:.4f} in epoch {self.best_epoch}"
        self.logger.info(
            f"Bridge: warm-up ended after epoch {self._phase_start - 1}{best}; the index holds "
            f"{len(self.model.index.edges()[1])} edges of {self.model.n_items - 1} items to "
            f"{n_sids} SIDs; co-evolution begins",
            extra=brief(f"Warm-up ended after epoch {self._phase_start - 1}{best}"),
        )

    def _rates(self) -> str:
        own = "" if self.model.phase == 1 else ", coevo_rate or i2t_learning_rate"
        return super()._rates() + own

    def _generate_train_loss_output(self, *args: Any) -> str:
        return f"{self.stage}: " + super()._generate_train_loss_output(*args)

    def _checkpoint_state(self, epoch: int) -> dict[str, Any]:
        own = {"phase": self.model.phase, "phase_start": self._phase_start}
        return {**super()._checkpoint_state(epoch), **own}

    def _resume_from(self, state: dict[str, Any]) -> None:
        super()._resume_from(state)
        self._phase_start = state["phase_start"]
        self._enter(state["phase"])
