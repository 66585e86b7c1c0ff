"""A continual run on several processes: the main one leads, the others train along.

Tokenizers, collaborative vectors, reports and the decision what is done already are the main
process's. What takes most of the time, the training and testing of a recommender, all do together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recbole_gr.distributed import processes
from recbole_gr.pipeline.item_sids import ItemSIDs
from recbole_gr.run.model import Start, run_model

if TYPE_CHECKING:
    from recbole_gr.config import Config


def lead(config: Config, made_by: tuple, start: Start) -> dict[str, Any]:
    """`run_model` in all processes, called in the main one; returns its result.

    Args:
        config (Config): of the recommender.
        made_by (tuple): period, model and other settings by which the others make the same one.
        start (Start): what the recommender starts from.
    """
    with processes.together():
        if processes.size() > 1:
            sids = None if start.sids is None else start.sids.to_plain()
            rest = [start.weights, start.checkpoint, start.train]
            processes.from_main(lambda: [list(made_by), config["resume"], sids, rest])
        return run_model(config, start=start)


def dismiss() -> None:
    """Tell the others that there is nothing more to train; called in the main process."""
    if processes.size() > 1:
        processes.from_main(lambda: None)


def follow(configure: Callable[..., Config]) -> None:
    """Take part in whatever the main process leads, until it says that all is done.

    Args:
        configure (callable): makes a Config of period, model and other settings.
    """
    while (task := processes.from_main(_nothing)) is not None:
        (period, model, settings), resume, sids, rest = task
        config = configure(period, model, **settings)
        config["resume"] = resume
        run_model(config, start=Start(sids and ItemSIDs.of_plain(sids), *rest))


def _nothing() -> None:
    """Stands where the main process makes a task."""
