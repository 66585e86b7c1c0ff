"""Forms of the settings that RecBole reads data by; it takes any, and ignores or misreads most."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from recbole_gr.data.ties import ORDERS
from recbole_gr.errors import ConfigError

FILES = ("inter", "user", "item")
_MODE = re.compile(r"labeled|full|(uni|pop)\d+")
_LEAVE = ("valid_and_test", "valid_only", "test_only")
_EVERYONE = (None, "[0,inf)")  # intervals that leave nothing out


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _by_file(value: Any) -> bool:
    return isinstance(value, dict) and all(_names(names) for names in value.values())


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _bins(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(how, dict)
        and (how.get("method") == "LD" or (how.get("method") == "ED" and _count(how.get("bucket"))))
        for how in value.values()
    )


# By key: whether a value that is given has the form, and the form in words.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "load_col": (
        lambda value: isinstance(value, dict)
        and all(names == "*" or _names(names) for names in value.values()),
        "columns by file, {inter: [user_id, item_id, timestamp], item: '*'}",
    ),
    "unload_col": (_by_file, "columns by file, {inter: [rating]}"),
    "unused_col": (
        lambda value: _by_file(value) and set(value) <= set(FILES),
        "columns of inter, user or item, {inter: [rating]}",
    ),
    "seq_len": (
        lambda value: isinstance(value, dict) and all(map(_count, value.values())),
        "a positive integer by column, {title: 20}",
    ),
    "threshold": (
        lambda value: isinstance(value, dict)
        and len(value) == 1
        and all(map(_number, value.values())),
        "one column and the least value that is liked, {rating: 4}",
    ),
    "preload_weight": (
        lambda value: isinstance(value, dict) and _names([*value, *value.values()]),
        "the vector column by the id column, {iid: item_emb}",
    ),
    "discretization": (_bins, "{price: {method: ED, bucket: 10}} or {price: {method: LD}}"),
    **dict.fromkeys(
        ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id",
         "additional_feat_suffix", "numerical_features", "normalize_field"),
        (_names, "a list of names"),
    ),
    "selected_features": (
        lambda value: _names(value) and bool(value), "a list of columns of the .item file, [class]"
    ),
    **dict.fromkeys(
        ("field_separator", "seq_separator", "encoding", "LIST_SUFFIX"), (_text, "text, not empty")
    ),
}  # fmt: skip


def check_forms(config: Mapping[str, Any]) -> None:
    """See that the settings by which data are read have their forms.

    Args:
        config (dict): final settings; keys that are absent or None are not looked at.

    Raises:
        ConfigError: names the key, the value and the form.
    """
    for key, (holds, form) in _FORMS.items():
        value = config.get(key)
        if value is not None and not holds(value):
            raise ConfigError(f"{key}: {value!r} must be {form}")
    if "LIST_SUFFIX" in config and config["LIST_SUFFIX"] is None:
        raise ConfigError("LIST_SUFFIX: it must be text, not empty, such as _list")
    if config.get("benchmark_filename") is not None:
        _check_no_filter(config)
    elif isinstance(config.get("eval_args"), dict):
        _check_split(config["eval_args"].get("split"))
    _check_mode((config.get("eval_args") or {}).get("mode"))


def _check_no_filter(config: Mapping[str, Any]) -> None:
    """RecBole filters a log, not the samples of benchmark files."""
    given = {key: config.get(key) for key in ("val_interval", "rm_dup_inter") if config.get(key)}
    for key in ("user_inter_num_interval", "item_inter_num_interval"):
        if config.get(key) not in _EVERYONE:
            given[key] = config[key]
    if config.get("tie_order") not in (None, ORDERS[0]):
        given["tie_order"] = config["tie_order"]
    if given:
        raise ConfigError(
            f"benchmark_filename: samples that are made already are not filtered or put in "
            f"order, so {given} would be ignored; leave it out, or change the files"
        )


def _check_split(split: Any) -> None:
    kind, value = next(iter(split.items())) if isinstance(split, dict) and split else (None, None)
    right = kind == "LS" and value in _LEAVE
    if kind in ("RS", "TS") and isinstance(value, list):
        right = len(value) == 3 and all(map(_number, value)) and min(value) >= 0 < value[0]
    if not right or len(split) > 1:
        raise ConfigError(
            f"eval_args: split {split!r} must be one of {{LS: {' | '.join(_LEAVE)}}}, "
            "{RS: [0.8, 0.1, 0.1]} and {TS: [0.8, 0.1, 0.1]}, shares of training, validation and "
            "test"
        )


def _check_mode(mode: Any) -> None:
    modes = mode.values() if isinstance(mode, dict) else [mode]
    for value in modes:
        if value is not None and not (isinstance(value, str) and _MODE.fullmatch(value)):
            raise ConfigError(
                f"eval_args: mode {mode!r} must be full, labeled, uniN or popN (N sampled items, "
                "such as uni100), or one of them for valid and for test"
            )
