"""What numbers many models and RecBole itself read from a configuration may be.

RecBole hands them on unchecked: a batch size of 0 or a dropout of 1.5 shows as an error of torch
somewhere in training, or not at all. What only one model or tokenizer reads is checked there.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from recbole_gr.errors import ConfigError, did_you_mean

_INTEGERS = {  # key: least value
    "seed": 0,
    "epochs": 0,
    "eval_step": 0,
    "stopping_step": 0,
    "train_batch_size": 1,
    "eval_batch_size": 1,
    "MAX_ITEM_LIST_LENGTH": 1,
    "hidden_size": 1,
    "embedding_size": 1,
    "inner_size": 1,
    "head_size": 1,
    "n_layers": 1,
    "n_encoder_layers": 1,
    "n_heads": 1,
    "beam_size": 1,
    "user_tokens": 0,
    "content_dim": 1,
}
_NUMBERS = {"learning_rate": 0.0, "weight_decay": 0.0}  # key: least value
_SHARES = ("label_smoothing",)  # in [0, 1), as is every dropout
LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")  # of RecBole's trainer


_INTERVAL = re.compile(r"([\[(])\s*([^,;\s]+)\s*,\s*([^,;\s]+)\s*([\])])")
_INTERVAL_KEYS = (
    *("user_inter_num_interval", "item_inter_num_interval"),
    *("entity_kg_num_interval", "relation_kg_num_interval"),
)


def intervals(text: Any, key: str = "an interval") -> list[tuple[str, float, float, str]] | None:
    """RecBole's intervals, `[5,inf)` or several as `[1,2];[8,inf)`.

    Args:
        text (Any): the setting; None is no interval.
        key (str): its name, for the message.

    Returns:
        list | None: tuples of opening bracket, least value, largest value, closing bracket.

    Raises:
        ConfigError: it has another form, or would hold no number.
    """
    if text is None:
        return None
    found = []
    for part in str(text).split(";"):
        match = _INTERVAL.fullmatch(part.strip())
        try:
            low, high = (float(match[2]), float(match[3])) if match else (math.nan, math.nan)
        except ValueError:
            low = high = math.nan
        if match is None or not low <= high:
            raise ConfigError(
                f"{key}: {text!r} is no interval; the form is '[5,inf)', with [ or ] where the "
                "bound itself belongs to it and ( or ) where not, the lower bound first, several "
                "separated by ';'"
            )
        found.append((match[1], low, high, match[4]))
    return found


def check_ranges(config: Mapping[str, Any]) -> None:
    """Raise a ConfigError that names key, value and what it may be.

    Args:
        config (dict): final settings; keys that are absent or None are not looked at.
    """
    given = {key: value for key, value in config.items() if value is not None}
    for key, least in _INTEGERS.items():
        if key in given and (type(given[key]) is not int or given[key] < least):
            raise ConfigError(f"{key}: {given[key]!r} must be an integer of at least {least}")
    for key, low in _NUMBERS.items():
        if key in given and not (_is_number(given[key]) and given[key] >= low):
            raise ConfigError(f"{key}: {given[key]!r} must be a number of at least {low:g}")
    dropouts = [key for key in given if key.endswith(("dropout", "dropout_prob"))]
    for key in (*dropouts, *_SHARES):
        value = given.get(key, 0.0)
        if not (_is_number(value) and 0 <= value < 1):
            raise ConfigError(f"{key}: {value!r} must be a number from 0 to below 1")
    topk = given.get("topk")
    whole = topk if isinstance(topk, list) else [topk]
    if "topk" in given and not (whole and all(type(k) is int and k > 0 for k in whole)):
        raise ConfigError(f"topk: {topk!r} must be a list of positive integers such as [5, 10]")
    _check_optimiser(given)
    check_filters(given)
    if not isinstance(given.get("load_col", {}), dict):
        raise ConfigError(
            f"load_col: {given['load_col']!r} must map files to their columns, such as "
            "{inter: [user_id, item_id, timestamp]}"
        )


def check_filters(given: Mapping[str, Any]) -> None:
    """Raise a ConfigError for a filter of the data that cannot be read.

    Args:
        given (dict): settings, None where a key is not set.
    """
    for key in _INTERVAL_KEYS:
        intervals(given.get(key), key)
    values = given.get("val_interval") or {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"val_interval: {values!r} must map columns to intervals or lists of tokens, such as "
            "{rating: '[3,inf)'}"
        )
    for column, wanted in values.items():
        if not wanted:
            raise ConfigError(
                f"val_interval: {{{column!r}: {wanted!r}}} says nothing; give an interval such as "
                "'[3,inf)' or a list of tokens"
            )
        if not isinstance(wanted, (list, tuple, set)):  # of tokens
            intervals(wanted, f"val_interval of {column!r} (of tokens it is a list)")
    share = given.get("max_missing")
    share = 0.0 if share is None else share
    if not (_is_number(share) and 0 <= share <= 1):
        raise ConfigError(f"max_missing: {share!r} must be a share of the rows, from 0 to 1")


def _check_optimiser(given: Mapping[str, Any]) -> None:
    learner = str(given.get("learner", LEARNERS[0])).lower()
    if learner not in LEARNERS:
        raise ConfigError(
            f"learner: {given['learner']!r} is not one of {', '.join(LEARNERS)}"
            f"{did_you_mean(learner, LEARNERS)}"
        )
    clip = given.get("clip_grad_norm")
    if clip is not None and not (isinstance(clip, dict) and "max_norm" in clip):
        raise ConfigError(f"clip_grad_norm: {clip!r} must be of the form {{max_norm: 1.0}}, or ~")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
