"""Ctrl-C in training: the step at hand is finished, and training goes on from there later.

SIGTERM (schedulers) and SIGHUP (a closed terminal) do the same. Several processes stop after the
same step, whichever of them was told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import random_states, restore_random_states
from recbole_gr.terminal.command_line import STOPS, on_stop, stop_asked_by


def best_beside(stopped: str | os.PathLike[str], place: Mapping[str, Any]) -> Path:
    """The best checkpoint beside one that was saved at a stop, of which `place` tells.

    Raises:
        ConfigError: there was one, and it is missing.
    """
    best = Path(stopped).with_name(place["best"])
    if place["has_best"] and processes.is_rank_zero() and not best.is_file():
        raise ConfigError(
            f"'{stopped}' was saved at Ctrl-C, and the best epoch before it in '{best}', which is "
            "missing. Put it there, or train the model again."
        )
    return best


class Interrupt:
    """Ctrl-C as a wish while an epoch is trained, and an exception at once anywhere else.

    Attributes:
        heard (type | None): the exception of the last signal that came.
        wanted (type | None): that of one that came while an epoch was trained.
        training (bool): there is a step to finish, so the wish waits for its end.
        agreed (bool): all processes have stopped at this place.
    """

    def __init__(self) -> None:
        self.heard: type[KeyboardInterrupt] | None = None
        self.wanted: type[KeyboardInterrupt] | None = None
        self.training = self.agreed = False

    @contextlib.contextmanager
    def watch(self, stopped: Callable[[], None] | None = None) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP inside the block (see `on_stop`); `stopped` is called
        where they end it."""
        self.heard = self.wanted = None
        self.training = self.agreed = False
        with on_stop(self._pressed):
            try:
                yield
            except (KeyboardInterrupt, RuntimeError) as error:
                told = processes.world_size() > 1 and self.heard  # as was one that has gone already
                if isinstance(error, RuntimeError) and not told:
                    raise
                if stopped is not None:
                    stopped()
                if isinstance(error, RuntimeError) and told:
                    raise told from error
                raise

    def _pressed(self, number: int, _: object) -> None:
        stop = stop_asked_by(number)
        if stop is None:
            return
        self.heard = stop
        if not self.training or self.wanted:  # a second time does not wait
            raise stop
        self.wanted = stop

    def obey(self) -> None:
        """Raise the KeyboardInterrupt that is wanted, if it is, here or in another process; all of
        them come here together."""
        own = next((number for number, stop in STOPS.items() if stop is self.wanted), 0)
        number = processes.all_reduce_max(own)
        if number:
            self.agreed = True
            raise STOPS[number]


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
        begun_at (int): batches trained before a stop.
        done (int): batches trained, those before a stop included.
        passes (int): how often the batches were begun.
    """

    def __init__(self, loader: Any, interrupt: Interrupt, every: int, after: dict | None) -> None:
        self._loader, self._interrupt, self._every, self._after = loader, interrupt, every, after
        self.begun_at = 0 if after is None else after["batches"]
        self.done = self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        batches = iter(self._loader)
        if self._after is not None and self.passes == 1:
            self.done = self._after["batches"]
            if self.done > len(self):
                raise ConfigError(
                    f"resume: the checkpoint was saved after {self.done} batches of an epoch, "
                    f"which has {len(self)} with these settings. Give those of the run that was "
                    "stopped."
                )
            for _ in range(self.done):  # drawn again: the order of batches comes from the seed
                next(batches)
            restore_random_of(self._after)
            self._after = None
        self._interrupt.training = True
        for batch in batches:
            yield batch
            self.done += 1
            # After the last batch the epoch is ended first.
            if self.done % self._every == 0 and self.done < len(self):
                self._interrupt.obey()

    def place(self) -> dict[str, Any]:
        """Where the epoch stands, to go on from: `batches` trained, and the generators after them.

        Before the batches of a resumed epoch are reached again it is where that was resumed.
        """
        if self._after is not None:
            kept = ("batches", "loss", "random", "random_of_others")
            return {key: self._after[key] for key in kept if key in self._after}
        return {"batches": self.done, "loss": None, **_random_of_all()}

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _random_of_all() -> dict[str, Any]:
    """The generators of all processes, on rank 0; every process must call it."""
    of_all = processes.gather_object(random_states()) or [random_states()]
    return {"random": of_all[0], **({"random_of_others": of_all[1:]} if of_all[1:] else {})}


def restore_random_of(place: Mapping[str, Any]) -> None:
    """Put the generators into the states of a place that training is to go on from."""
    of_all = [place["random"], *place.get("random_of_others", ())]
    if processes.rank() < len(of_all):
        restore_random_states(of_all[processes.rank()])
    else:  # saved by fewer processes
        restore_random_states(of_all[0])
        processes.seed_per_rank(torch.initial_seed())


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
        """The epoch is trained; its validation comes next, `before` which counters are these. All
        processes come here together."""
        ended = {"batches": None, "loss": loss, **_random_of_all()}
        self._ended = {**before, "place": ended}

    def state(self, agreed: bool) -> dict | None:
        """The place for a checkpoint, None where it cannot be come back to.

        Args:
            agreed (bool): all processes are at it and ask for it.

        Returns:
            dict: what `before` held, and as `place` the number of `batches` trained (None: all,
            with their `loss`) and the generators after them (`random`, `random_of_others`).
        """
        if self._ended is not None:
            return self._ended
        # A trainer that goes through the batches more than once has its own ideas of an epoch.
        if self._steps is None or self._before is None or self._steps.passes > 1:
            return None
        if processes.world_size() > 1 and not agreed:
            return None  # the others are in the middle of a step
        return {**self._before, "place": self._steps.place()}
