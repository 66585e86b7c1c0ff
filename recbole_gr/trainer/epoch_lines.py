"""One line for each epoch in the terminal, in the place of the four to six that RecBole logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_gr.report.metrics import metric_title
from recbole_gr.terminal.log import say
from recbole_gr.trainer.outcome import Outcome

if TYPE_CHECKING:
    from recbole.trainer import Trainer as _Base  # what the mixin goes before
else:
    _Base = object


def epoch_line(
    epoch: int,
    loss: float | None = None,
    metric: str = "",
    score: float | None = None,
    seconds: float | None = None,
    best: bool = False,
    stage: str = "",
) -> str:
    """`Epoch 3: loss 4.2311, NDCG@10 0.0632, 12.3 s, best so far`.

    Args:
        epoch (int): from 0.
        loss (float | None): of the epoch.
        metric (str): that of the validation.
        score (float | None): its value; None where this epoch is not validated.
        seconds (float | None): of training and validation.
        best (bool): whether no epoch before had a better score.
        stage (str): of a training of several.
    """
    parts = []
    if loss is not None:
        parts.append(f"loss {float(loss):.4f}")
    if score is not None:
        parts.append(f"{metric} {float(score):.4f}")
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    name = f"{stage} epoch" if stage else "Epoch"
    return f"{name} {epoch}: {', '.join(parts + ['best so far'] * best)}"


class EpochLines(Outcome, _Base):
    """Goes before a :class:`~recbole_gr.trainer.base.SafeTrainerMixin`: says each epoch's line.

    RecBole's own lines stay in the log file. Its trainers sum the losses of an epoch's batches; the
    line has their mean, so that models with other batches, and ours, can be read beside each other.

    Attributes:
        sums_losses (bool): whether the loss of an epoch is the sum over its batches.
    """

    sums_losses = True
    _n_batches = 1
    _begun_at = 0  # batches of the epoch that were trained before a stop
    _epoch: int
    _validates: bool
    _verbose = True
    _untold: dict[str, Any] | None = None  # an epoch that is trained and waits for its validation

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As RecBole's; with `verbose` it says one line an epoch."""
        self._verbose, self._n_batches = verbose, len(train_data)
        try:
            return super().fit(train_data, valid_data, verbose, *args, **kwargs)
        finally:
            self._tell()

    def _generate_train_loss_output(
        self, epoch_idx: int, s_time: float, e_time: float, losses: Any
    ) -> str:
        text = super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)
        self._tell()
        loss = sum(losses) if isinstance(losses, tuple) else losses
        if self.sums_losses:
            loss /= self._n_batches - self._begun_at
        self._untold = {
            "epoch": epoch_idx, "loss": loss,
            "stage": "" if self.stage == Outcome.stage else self.stage,
            "seconds": e_time - s_time,
        }  # fmt: skip
        if not self._validates or (epoch_idx + 1) % self.eval_step:
            self._tell()
        return text

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(*args, **kwargs)
        if self._untold is not None:
            self._untold["seconds"] += self.valid_seconds[-1]
            best = self.best_epoch == self._epoch
            metric = metric_title(self.config["valid_metric"])
            self._untold |= {"metric": metric, "score": score, "best": best}
            self._tell()
        return score, result

    def _tell(self) -> None:
        told, self._untold = self._untold, None
        if told is not None and self._verbose:
            say("%s", epoch_line(**told))
