"""Training of PIT: warm-up, bridge, co-evolution (arXiv 2602.08530; the schedule is inferred)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.errors import ConfigError
from recbole_gr.model.pit.statistics import SID_HISTOGRAM
from recbole_gr.terminal.log import brief, say
from recbole_gr.trainer.batches import generators_of, to_device
from recbole_gr.trainer.contents import PHASES, REMEDY
from recbole_gr.trainer.figures import FiguresTrainer, figures_in
from recbole_gr.trainer.warm_ups import copy_checkpoint, shared_warm_up
from recbole_gr.trainer.weights import load_checkpoint_of
from recbole_gr.untrusted.shapes import require, taking

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.data.interaction import Interaction
    from torch.optim import Optimizer

    from recbole_gr.model.pit.model import PIT

_OF_A_WARM_UP = ("phase", "epoch", "best_epoch", "best_valid_score", "epoch_figures")
I2T_RATE = 1e-5  # of a free Item-to-Token where pairs evolve
PROBED = 256  # training rows by whose loss the bridge and each round are stated
STAGES = {1: "Warm-up", 2: "Co-evolve"}


class PITTrainer(FiguresTrainer):
    """Drives a :class:`~recbole_gr.model.pit.model.PIT` through its two phases.

    Phase 1 runs up to ``warmup_epochs`` with patience ``warmup_stopping_step``. The bridge goes
    back to its best weights, draws the candidates and starts phase 2, of up to ``epochs`` more
    with patience ``stopping_step``. Early stopping, the optimiser's moments and the learning-rate
    schedule begin again there, at ``coevo_rate`` times the rate (Item-to-Token at its own), so the
    best epoch that is tested is one of phase 2. Epochs are numbered through. After every epoch the
    index is refreshed and the model's figures are noted.

    A model that goes on from an earlier period in phase 2 (:mod:`recbole_gr.trainer.growth`) stays
    there, with the index that it has. New items have their warm-up inside of it: they are trained
    on their starting SID for ``warmup_epochs``, a quarter of the epochs at most, before they get
    candidates.

    The best warm-up stays beside the checkpoint as ``<name>-warmup.pth``. Another run takes it with
    ``warmup_from`` in the place of its own phase 1, so that variants of the co-evolution start from
    the same weights. With ``warmup_dir`` runs find each other's by themselves, the first makes it,
    and all go on with the same random numbers.

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
        self._enter(model.phase)

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
        self.model.probe = self._probe(train_data)
        if self.model.phase == 1:
            shared = shared_warm_up(self.config, self.model) if saved else None
            known = self.config["warmup_from"]
            if known is None and shared is not None and shared.is_file():
                known = str(shared)
            if known and self.start_epoch == 0:
                score = self._take_warm_up(known)
            else:
                score, _ = super().fit(train_data, valid_data, verbose, saved, **kwargs)
                if saved:  # otherwise the last epoch's weights are what there is
                    self._load_model(self.saved_model_file)
                    self._keep_warm_up(shared)
            if shared is not None:
                self._take_random_states(known or str(shared), train_data)
            self._bridge(score if valid_data else None)
        return super().fit(train_data, valid_data, verbose, saved, **kwargs)

    def _probe(self, train_data: AbstractDataLoader) -> Interaction:
        """Training rows spread evenly over all, without a draw from the loader's generator."""
        n_rows = train_data.sample_size
        rows = list(range(0, n_rows, max(1, n_rows // PROBED)))[:PROBED]
        return to_device(train_data.collate_fn(rows), self.device)

    def _train_epoch(
        self, train_data: AbstractDataLoader, epoch_idx: int, *args: Any, **kwargs: Any
    ) -> float:
        if self.model.phase == 2:
            epoch, most = epoch_idx - self._phase_start, self.epochs - self._phase_start
            self.model.begin_epoch(epoch, most)
            if epoch == max(1, min(self._warmup_epochs, most // 4)):
                self.model.admit_new_items()
        return super()._train_epoch(train_data, epoch_idx, *args, **kwargs)

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
        if phase == 2:
            own = self.config["i2t_learning_rate"]
            rest, tokenizer = self.optimizer.param_groups
            rest["lr_scale"] = tokenizer["lr_scale"] = self.config["coevo_rate"]
            if own is None and not self.model.by_items:
                own = I2T_RATE
            if own is not None:
                tokenizer["lr_scale"] = own / self.learning_rate

    def _keep_warm_up(self, shared: Path | None) -> None:
        """Phase 2 overwrites the checkpoint; a copy serves as another run's ``warmup_from``."""
        saved = Path(self.saved_model_file)
        kept = shared or saved.with_name(f"{saved.stem}-warmup{saved.suffix}")
        copy_checkpoint(saved, kept)
        self.logger.info(f"Kept {kept}")

    def _take_random_states(self, file: str, train_data: AbstractDataLoader) -> None:
        """Go on with the random numbers of a warm-up, whoever has made it."""
        state = load_checkpoint_of(self.config, file, map_location="cpu")
        require(state, self.resumes_with, file, REMEDY)
        for generator, kept in zip(generators_of(train_data), state["loader_states"]):
            generator.set_state(kept)
        with taking("random_states", file, REMEDY):
            self._restore_random_states(state)

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
        before = self.model.probe_loss()
        self.model.start_co_evolution()
        after = self.model.probe_loss()
        self._enter(2)
        self.start_epoch = self._phase_start
        self.best_valid_score = -float("inf") if self.valid_metric_bigger else float("inf")
        self.cur_step, self.best_valid_result, self.n_steps = 0, None, 0
        self.optimizer.state.clear()
        n_sids = self.model.trie.n_nodes[-1]
        best = "" if score is None else f", best valid score {score:.4f} in epoch {self.best_epoch}"
        self.logger.info(
            f"Bridge: warm-up ended after epoch {self._phase_start - 1}{best}; the index holds "
            f"{len(self.model.index.edges()[1])} edges of {self.model.n_items - 1} items to "
            f"{n_sids} SIDs; loss of {PROBED} training rows {before:.4f} before and {after:.4f} "
            "after it; co-evolution begins",
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
