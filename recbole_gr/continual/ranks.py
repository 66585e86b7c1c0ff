"""Distributed training inside a continual run: rank 0 runs it, the others train with it.

Tokenizers, collaborative vectors, reports and the decision what is done already are rank 0's. What
takes most of the time, the training and testing of a recommender, is done by all ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recbole_gr.distributed import processes
from recbole_gr.pipeline.item_sids import ItemSIDs
from recbole_gr.run.model import WarmStart, run_model

if TYPE_CHECKING:
    from recbole_gr.config import Config


def run_on_all_ranks(config: Config, made_by: tuple, start: WarmStart) -> dict[str, Any]:
    """`run_model` on all ranks, called on rank 0; returns its result.

    Args:
        config (Config): of the recommender.
        made_by (tuple): period, model and other settings by which the others make the same one.
        start (Start): what the recommender starts from.
    """
    with processes.all_processes():
        if processes.world_size() > 1:
            sids = None if start.sids is None else start.sids.to_plain()
            rest = [start.weights, start.checkpoint, start.train, start.tested, start.content]
            processes.broadcast_object(lambda: [list(made_by), config["resume"], sids, rest])
        return run_model(config, start=start)


def release_ranks() -> None:
    """End :func:`serve_rank_zero` on the other ranks; called on rank 0."""
    if processes.world_size() > 1:
        processes.broadcast_object(lambda: None)


def serve_rank_zero(configure: Callable[..., Config]) -> None:
    """Take part in every :func:`run_on_all_ranks` of rank 0, until :func:`release_ranks`.

    Args:
        configure (callable): makes a Config of period, model and other settings.
    """
    while (task := processes.broadcast_object(_never_called)) is not None:
        (period, model, settings), resume, sids, rest = task
        config = configure(period, model, **settings)
        config["resume"] = resume
        run_model(config, start=WarmStart(sids and ItemSIDs.of_plain(sids), *rest))


def _never_called() -> None:
    """The place of what rank 0 makes."""
