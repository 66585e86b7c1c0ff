"""The error of a training that diverges: where, what to lower, and what is left of it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from recbole_gr.errors import ConfigError, Diverged

if TYPE_CHECKING:
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.trainer import Trainer as _Base  # what the mixin goes before
else:
    _Base = object


class NamesDivergence(_Base):
    """Goes before a RecBole `Trainer` class and ends a training whose numbers are none any more.

    RecBole looks at the loss alone, and says no more than that it is NaN. Weights can be lost in
    the last step of an epoch, and scores overflow while weights do not.

    Attributes:
        rate_key (str): the setting that the learning rate comes from.
    """

    rate_key = "learning_rate"
    best_valid_result: dict[str, float] | None
    _epoch_at_hand = 0

    def _train_epoch(
        self, train_data: AbstractDataLoader, epoch_idx: int, *args: Any, **kwargs: Any
    ) -> Any:
        self._epoch_at_hand = epoch_idx
        try:
            loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if isinstance(error, ConfigError) or self._weights_are_finite():
                raise
            raise self._diverged(str(error)) from error
        if not self._weights_are_finite():
            raise self._diverged("weights are NaN or infinite")
        return loss

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> tuple[float, dict[str, float]]:
        with overflow_as(self._diverged):
            score, result = super()._valid_epoch(*args, **kwargs)
        if math.isnan(score):
            raise self._diverged("the validation score is nan")
        return score, result

    def _check_nan(self, loss: torch.Tensor) -> None:
        if loss.isfinite():  # the one look at the device in a step, as RecBole's own
            return
        # A scaler of half-precision gradients leaves steps with infinite ones out.
        if torch.isnan(loss) or not self.enable_scaler:
            raise self._diverged(f"the training loss is {float(loss.detach())}")

    def _weights_are_finite(self) -> bool:
        parts = [parameter.isfinite().all() for parameter in self.model.parameters()]
        return not parts or bool(torch.stack(parts).all())

    def _rates(self) -> str:
        """The keys to lower with their values."""
        config, key = self.config, self.rate_key
        if config["continual_period"] and config["continual_train"] != "all":
            key = "finetune_learning_rate" if config["finetune_learning_rate"] else key
        return f"{key}={self.learning_rate:g}"

    def _diverged(self, why: str) -> Diverged:
        return Diverged(
            f"{self.config['model']} diverged in epoch {self._epoch_at_hand} ({why}): lower "
            f"{self._rates()}."
        )


@contextlib.contextmanager
def overflow_as(diverged: Any) -> Iterator[None]:
    """Raise `diverged(message)` for errors inside the block that are of NaN or infinite numbers."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ConfigError) or not re.search(r"\bnan\b|\binf", str(error).lower()):
            raise
        raise diverged(str(error).splitlines()[0]) from error
