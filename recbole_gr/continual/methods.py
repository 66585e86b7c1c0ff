"""The keys of a continual run and what they may hold (`properties/model/DACT.yaml`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from recbole_gr.continual.given import FILES, beside_data, check_names, sid_files
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.config import Config

FROZEN, FINETUNE, RETRAIN = "frozen", "finetune", "retrain"
DRIFT_AWARE = "dact"


class Method(NamedTuple):
    """One row of a continual table: how SIDs and recommender follow the periods.

    Attributes:
        model: name of the recommender.
        tokenizer: a value of the key `continual_tokenizer`, or the name that SIDs from files have
            there; None for RecBole's models, which have no SIDs.
        recommender: a value of the key `continual_recommender`.
    """

    model: str
    tokenizer: str | None
    recommender: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.tokenizer, self.recommender) if part)


def prepare(config: dict) -> None:
    """See that the keys of a continual run agree with each other.

    Raises:
        ConfigError: naming key and remedy.
    """
    for key in ("continual_tokenizer", "continual_recommender"):
        config[key] = list(dict.fromkeys(config[key]))
    if config["continual_field"] is not None:
        config["continual_cuts"] = None  # the default of this model, which the column replaces
    check_names(config["continual_sid_files"])
    beside_data(config)
    depth, levels = config["keep_depth"], config.get("sid_levels") or 3
    if depth > levels:
        raise ConfigError(f"keep_depth: {depth!r} must be an integer from 0 to {levels}")
    has_files, wants_files = (
        bool(config["continual_sid_files"]),
        FILES in config["continual_tokenizer"],
    )
    if has_files != wants_files:
        raise ConfigError(
            "continual_sid_files, a file of SIDs for each period, belongs to "
            "continual_tokenizer=files: give both or none"
        )
    if wants_files and len(config["continual_tokenizer"]) > 1:
        raise ConfigError(
            "continual_tokenizer: files has its own first period and cannot stand beside others"
        )


def methods(config: Config, baselines: Sequence[str]) -> list[Method]:
    """All rows of the run: the recommender with every tokenizer, then RecBole's models."""
    given = sid_files(config)
    rows = [
        Method(config["continual_model"], tokenizer, recommender)
        for tokenizer in given or config["continual_tokenizer"]
        for recommender in config["continual_recommender"]
    ]
    ways = config["continual_recommender"]
    return rows + [Method(name, None, recommender) for name in baselines for recommender in ways]
