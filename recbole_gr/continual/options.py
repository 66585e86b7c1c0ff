"""The keys of a continual run and what they may hold (`properties/model/DACT.yaml`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.sid.reassign import SUFFIX_MODES

if TYPE_CHECKING:
    from recbole.config import Config

FROZEN, FINETUNE, RETRAIN = "frozen", "finetune", "retrain"
DRIFT_AWARE, FILES = "dact", "files"
TOKENIZERS = (FROZEN, FINETUNE, DRIFT_AWARE, FILES)
RECOMMENDERS = (FROZEN, FINETUNE, RETRAIN)


class Method(NamedTuple):
    """One row of a continual table: how SIDs and recommender follow the periods.

    Attributes:
        model: name of the recommender.
        tokenizer: one of `TOKENIZERS`; None for RecBole's models, which have no SIDs.
        recommender: one of `RECOMMENDERS`.
    """

    model: str
    tokenizer: str | None
    recommender: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.tokenizer, self.recommender) if part)


def prepare(config: dict) -> None:
    """Bring the keys of a continual run into the form of lists, and check them.

    Raises:
        ConfigError: naming key and remedy.
    """
    config["continual_tokenizer"] = _choices(config, "continual_tokenizer", TOKENIZERS)
    config["continual_recommender"] = _choices(config, "continual_recommender", RECOMMENDERS)
    if config["continual_field"] is not None:
        config["continual_cuts"] = None  # the default of this model, which the column replaces
    for key, least in (("continual_suffix_size", 1), ("finetune_epochs", 1), ("continual_last", 1)):
        value = config[key]
        if value is not None and (type(value) is not int or value < least):
            raise ConfigError(f"{key}: {value!r} must be an integer of at least {least}")
    depth, levels = config["keep_depth"], config.get("sid_levels") or 3
    if isinstance(depth, bool) or not isinstance(depth, int) or not 0 <= depth <= levels:
        raise ConfigError(f"keep_depth: {depth!r} must be an integer from 0 to {levels}")
    if config["suffix_mode"] not in SUFFIX_MODES:
        raise ConfigError(
            f"suffix_mode: {config['suffix_mode']!r} is not one of {', '.join(SUFFIX_MODES)}"
        )
    for key in ("continual_cf_files", "continual_sid_files"):
        if config[key] is not None:
            config[key] = _texts(config[key])
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
    rows = [
        Method(config["continual_model"], tokenizer, recommender)
        for tokenizer in config["continual_tokenizer"]
        for recommender in config["continual_recommender"]
    ]
    ways = config["continual_recommender"]
    return rows + [Method(name, None, recommender) for name in baselines for recommender in ways]


def _choices(config: Mapping[str, Any], key: str, known: Collection[str]) -> list[str]:
    values = _texts(config[key])
    for value in values:
        if value not in known:
            raise ConfigError(
                f"{key}: {value!r} is not one of {', '.join(known)}{did_you_mean(value, known)}"
            )
    if not values:
        raise ConfigError(f"{key}: give at least one of {', '.join(known)}")
    return list(dict.fromkeys(values))


def _texts(value: str | Iterable[object] | None) -> list[str]:
    if isinstance(value, str):
        value = value.strip("[]").split(",")
    return [str(part).strip() for part in value or [] if str(part).strip()]
