"""Ctrl-C in training: the step at hand is finished, and training goes on from there later."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from recbole_gr import processes
from recbole_gr.trainer.checkpoint import random_states, restore_random_states

STOPPED = "-stopped"  # what the name of such a checkpoint ends in, before its suffix


def stopped_beside(checkpoint: str | os.PathLike[str]) -> Path:
    """Where the place of a stopped training is kept: beside its best `checkpoint`."""
    best = Path(checkpoint)
    return best.with_stem(f"{best.stem}{STOPPED}")


def best_of(checkpoint: str | os.PathLike[str]) -> Path:
    """The way back from `stopped_beside`; any other checkpoint is its own."""
    path = Path(checkpoint)
    return path.with_stem(path.stem.removesuffix(STOPPED))


class Interrupt:
    """Ctrl-C as a wish while an epoch is trained, and an exception at once anywhere else.

    Attributes:
        wanted (bool): Ctrl-C was pressed while an epoch was trained.
        training (bool): there is a step to finish, so the wish waits for its end.
    """

    def __init__(self) -> None:
        self.wanted = self.training = False

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Handle SIGINT inside the block; in a thread, where Python allows no handlers, nothing
        changes."""
        self.wanted = self.training = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._pressed)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _pressed(self, *_: object) -> None:
        if not self.training or self.wanted:  # a second time does not wait
            raise KeyboardInterrupt
        self.wanted = True

    def obey(self) -> None:
        """Raise the KeyboardInterrupt that is wanted, if it is."""
        if self.wanted:
            raise KeyboardInterrupt


class Steps:
    """The batches of one epoch, from any batch on, with a stop between two steps.

    Stands in the place of the loader, whose other attributes it shows.

    Args:
        loader (DataLoader): the batches.
        interrupt (Interrupt): obeyed between two optimiser steps.
        every (int): batches of an optimiser step.
        after (dict | None): where to go on: `batches`, the number of them trained already, and
            `random`, the random generators after those; None begins the epoch.

    Attributes:
        done (int): batches trained, those before a stop included.
        passes (int): how often the batches were begun.
    """

    def __init__(self, loader: Any, interrupt: Interrupt, every: int, after: dict | None) -> None:
        self._loader, self._interrupt, self._every, self._after = loader, interrupt, every, after
        self.done = self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        batches = iter(self._loader)
        if self._after is not None and self.passes == 1:
            self.done = self._after["batches"]
            for _ in range(self.done):  # drawn again: the order of batches comes from the seed
                next(batches)
            restore_random_states(self._after["random"])
            processes.draw_apart(torch.initial_seed())
        self._interrupt.training = True
        for batch in batches:
            yield batch
            self.done += 1
            # After the last batch the epoch is ended first.
            if self.done % self._every == 0 and self.done < len(self):
                self._interrupt.obey()

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class Progress:
    """Where training stands: an epoch, and the batches of it that are trained.

    Args:
        epoch (int): number of the epoch, from 0.
        steps (Steps | None): its batches, where it is being trained.
        before (dict | None): the trainer's counters and the states of its loaders as it begins.
    """

    def __init__(self, epoch: int, steps: Steps | None = None, before: dict | None = None) -> None:
        self.epoch = epoch
        self._steps, self._before = steps, before
        self._ended: dict | None = None

    def leave_steps(self) -> None:
        """The steps are made. What follows them cannot be gone into the middle of."""
        self._steps = None

    def end(self, loss: Any, before: dict) -> None:
        """The epoch is trained; its validation comes next, `before` which counters are these."""
        ended = {"batches": None, "loss": loss, "random": random_states()}
        self._ended = {**before, "place": ended}

    def state(self) -> dict | None:
        """The place for a checkpoint, None where it cannot be come back to.

        Returns:
            dict: what `before` held, and as `place` the number of `batches` trained (None: all,
            with their `loss`) and the generators after them (`random`).
        """
        if self._ended is not None:
            return self._ended
        # A trainer that goes through the batches more than once has its own ideas of an epoch.
        if self._steps is None or self._before is None or self._steps.passes != 1:
            return None
        here = {"batches": self._steps.done, "loss": None, "random": random_states()}
        return {**self._before, "place": here}
