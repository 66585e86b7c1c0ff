"""Trainers whose figures go to no event file."""

import contextlib
from collections.abc import Iterator
from typing import Any

from recbole.trainer import trainer as recbole_trainer

from recbole_gr.distributed import processes
from recbole_gr.terminal.log import logs_are_kept


class NoTensorboard:
    """Takes what a trainer tells tensorboard and forgets it."""

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    add_hparams = close = add_scalar


@contextlib.contextmanager
def of_main_alone() -> Iterator[None]:
    """Trainers that are made inside the block write event files on rank 0 alone, and
    nowhere where no logs are kept."""
    make = recbole_trainer.get_tensorboard
    if not processes.is_rank_zero() or not logs_are_kept():
        recbole_trainer.get_tensorboard = lambda logger: NoTensorboard()
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = make
