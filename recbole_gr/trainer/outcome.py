"""Attributes of a trainer that a run reads after the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_gr.trainer.buckets import ItemBuckets
    from recbole_gr.trainer.ranks import TargetRanks


class Outcome:
    """What every trainer here states about its training; what one does not note keeps its default.

    Attributes:
        stage (str): what an epoch is called.
        best_epoch (int): epoch of the best validation score, counted from 0 as in RecBole's log;
            the last epoch where there is no validation; -1 before training.
        epoch_seconds (list[float]): training time of each epoch.
        valid_seconds (list[float]): time of each validation.
        valid_curve (list[list]): epoch and score of each validation.
        buckets (ItemBuckets | None): collects what `evaluate` evaluates by item frequency.
        ranks (TargetRanks | None): collects the ranks of the targets that `evaluate` evaluates.
        generation_figures (dict | None): what the last evaluation tells of generated SIDs.
        epoch_figures (list[dict] | None): what the model states about itself after each epoch.
        stopped_file (str | None): the checkpoint to go on from after Ctrl-C; on rank 0.
    """

    stage = "Train"
    best_epoch = -1
    epoch_seconds: list[float]
    valid_seconds: list[float]
    valid_curve: list[list[float]]
    buckets: ItemBuckets | None = None
    ranks: TargetRanks | None = None
    generation_figures: dict[str, float] | None = None
    epoch_figures: list[dict[str, Any]] | None = None
    stopped_file: str | None = None
