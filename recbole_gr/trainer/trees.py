"""RecBole's decision-tree models (XGBoost, LightGBM): safe checkpoints, and figures by item.

Their trainer is no `Trainer`: a booster of another package learns all trees at once, once in each
of RecBole's epochs, and is kept in that package's own file format.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from recbole.utils import early_stopping

from recbole_gr.data.identity import identity_of
from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError, Diverged
from recbole_gr.storage.checkpoint import encode, plain_config, save_checkpoint
from recbole_gr.terminal.log import say
from recbole_gr.trainer.divergence import overflow_as
from recbole_gr.trainer.epoch_lines import epoch_line
from recbole_gr.trainer.outcome import Outcome
from recbole_gr.trainer.tensorboard import of_main_alone
from recbole_gr.trainer.weights import load_checkpoint_of

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.trainer.trainer import DecisionTreeTrainer as _Base  # what the mixin goes before
else:
    _Base = object


class SafeTreeMixin(Outcome, _Base):
    """Goes before RecBole's trainer of a tree model and replaces what it saves and loads.

    RecBole pickles its Config and leaves the trees in a second file. Here a checkpoint is one file
    of plain data, the trees among it as the bytes that the booster's package wrote.
    """

    model: Any

    def __init__(self, config: Config, model: Any):
        if processes.world_size() > 1:
            raise ConfigError(
                f"nproc: the trees of {config['model']} are trained by a package of their own, in "
                "threads; use --nproc=1"
            )
        Path(config["checkpoint_dir"]).mkdir(parents=True, exist_ok=True)
        with of_main_alone():
            super().__init__(config, model)
        # RecBole names its two working files after the second, which two runs may share.
        self._folder = tempfile.TemporaryDirectory()
        self.temp_file, self.temp_best_file = (
            str(Path(self._folder.name, name)) for name in ("last.ubj", "best.ubj")
        )
        self.epoch_seconds, self.valid_seconds, self.valid_curve = [], [], []
        self._identity: dict[str, Any] | None = None

    def fit(self, train_data: AbstractDataLoader, *args: Any, **kwargs: Any) -> Any:
        """As RecBole's."""
        self._identity = identity_of(train_data._dataset)
        return super().fit(train_data, *args, **kwargs)

    def _train_at_once(
        self, train_data: AbstractDataLoader, valid_data: AbstractDataLoader
    ) -> None:
        start = perf_counter()
        with overflow_as(self._diverged):
            super()._train_at_once(train_data, valid_data)
        self.epoch_seconds.append(perf_counter() - start)

    def _valid_epoch(self, valid_data: AbstractDataLoader) -> tuple[float, dict[str, float]]:
        start = perf_counter()
        with overflow_as(self._diverged):
            score, result = super()._valid_epoch(valid_data)
        self.valid_seconds.append(perf_counter() - start)
        self.valid_curve.append([len(self.epoch_seconds) - 1, float(score)])
        # Only whether this is the best so far is wanted here; RecBole counts the patience.
        if early_stopping(score, self.best_valid_score, 0, 0, bigger=self.valid_metric_bigger)[3]:
            self.best_epoch = len(self.epoch_seconds) - 1
            # RecBole does the same, but only after it has saved the checkpoint.
            self.best_valid_result = result
        epoch = len(self.epoch_seconds) - 1
        seconds = self.epoch_seconds[-1] + self.valid_seconds[-1]
        best = self.best_epoch == epoch
        say("%s", epoch_line(epoch, None, self.config["valid_metric"], score, seconds, best))
        return score, result

    def _diverged(self, why: str) -> Diverged:
        return Diverged(
            f"{self.config['model']} diverged in epoch {len(self.epoch_seconds)} ({why}): lower "
            "the learning rate among the parameters of its trees."
        )

    def _save_checkpoint(self, epoch: int) -> None:
        trees = bytearray(Path(self.temp_best_file).read_bytes())
        state = {
            "config": plain_config(self.config),
            "data": self._identity,
            "epoch": epoch,
            "best_epoch": self.best_epoch,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": encode(self.best_valid_result),
            "trees": torch.frombuffer(trees, dtype=torch.uint8),
        }
        save_checkpoint(self.saved_model_file, state)
        self.logger.info(f"Saved {self.saved_model_file}")

    def resume_checkpoint(self, resume_file: str | os.PathLike[str]) -> None:
        """Refused.

        Raises:
            ConfigError: always; not every booster can go on where it stopped.
        """
        raise ConfigError(
            f"resume: '{resume_file}' is of {self.config['model']}, whose trees are trained again "
            "in each run; leave --resume out"
        )

    def evaluate(
        self,
        eval_data: AbstractDataLoader | None,
        load_best_model: bool = True,
        model_file: str | None = None,
        **progress: Any,
    ) -> dict[str, float] | None:
        """As RecBole's, with the trees of the best epoch, or of `model_file`."""
        if not eval_data:
            return None
        if load_best_model:
            file = model_file or self.saved_model_file
            self.model = with_trees(self.model, load_checkpoint_of(self.config, file), file)
            self.logger.info(f"Loaded {file}")
        result = super().evaluate(eval_data, load_best_model=False, **progress)
        if self.buckets is not None:  # its rows were predicted in the order of the data set
            none = torch.empty(0, dtype=torch.long)
            self.buckets.add(self.eval_pred, eval_data._dataset.inter_feat, none, none)
        return result


def with_trees(model: Any, state: dict[str, Any], file: str | os.PathLike[str]) -> Any:
    """The booster that has the trees of a checkpoint.

    Args:
        model: a booster of XGBoost, which takes them up, or of LightGBM, which makes another.
        state (dict): the checkpoint, read from `file`.

    Raises:
        ConfigError: they are not in it, or its package cannot read them.
    """
    try:
        trees = state["trees"].numpy().tobytes()
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder, "trees.ubj")
            kept.write_bytes(trees)
            if hasattr(model, "load_model"):
                model.load_model(str(kept))
                return model
            booster = next(parent for parent in type(model).__mro__ if parent.__name__ == "Booster")
            return booster(model_file=str(kept))
    except Exception as error:  # the packages raise errors of their own
        raise ConfigError(
            f"'{file}' has no trees that {type(model).__name__} can read: {error}. Train it again."
        ) from error


@cache
def safe_tree_trainer(trainer_class: type) -> type:
    """The subclass of RecBole's trainer of a tree model that saves and loads safely."""
    return type(f"Safe{trainer_class.__name__}", (SafeTreeMixin, trainer_class), {})
