"""PIT's configuration: what is checked before anything is read."""

import os
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.model.base import resolve_train_sample
from recbole_gr.model.pit.selection import RULES

ABLATIONS = ("csa", "i2t", "coevo", "index")
_CHOICES = {
    "architecture": ("lazy_decoder", "encoder_decoder"),
    "history_input": ("item", "sid"),
    "select": RULES,
    "merge": ("logsumexp", "max"),
    "index_item_prior": ("uniform", "popularity"),
}
_SWITCHES = ("freeze_i2t", "detach_history")
_COUNTS = {  # least value
    "hidden_size": 1,
    "n_layers": 1,
    "n_encoder_layers": 1,
    "n_context_layers": 0,
    "n_i2t_layers": 1,
    "n_heads": 1,
    "head_size": 2,
    "inner_size": 1,
    "n_candidates": 1,
    "csa_negatives": 1,
}
_RANGES = {  # from, to; the upper bound included or not
    "lambda_i2t": (0.0, float("inf"), False),
    "lambda_csa": (0.0, float("inf"), False),
    "index_decay": (0.0, 1.0, True),
    "index_threshold": (0.0, 1.0, False),
    "dropout": (0.0, 1.0, False),
}


def prepare(config: dict) -> None:
    """Check the keys of ``properties/model/PIT.yaml`` and fill in what follows from others.

    Raises:
        ConfigError: names the key, its value and what would do.
    """
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise ConfigError(f"{key}: {config[key]!r} is not one of {', '.join(choices)}")
    for key in _SWITCHES:
        if not isinstance(config[key], bool):
            raise ConfigError(f"{key}: {config[key]!r} must be True or False")
    for key, least in _COUNTS.items():
        _integer(config, key, least)
    for key, (low, high, closed) in _RANGES.items():
        value = config[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (low <= value < high or (closed and value == high)):
            end = "]" if closed else ")"
            raise ConfigError(f"{key}: {value!r} must be a number in [{low:g}, {high:g}{end}")
    for key in ("index_prior_weight", "index_temperature", "i2t_learning_rate", "coevo_rate"):
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ConfigError(f"{key}: {value!r} must be a number above 0")
    config["ablate"] = _ablations(config["ablate"])
    if "coevo" in config["ablate"]:
        config["n_candidates"] = 1
    for key, default in (
        ("index_size", config["n_candidates"]),
        ("warmup_epochs", config["epochs"]),
        ("warmup_stopping_step", config["stopping_step"]),
    ):
        config[key] = default if config[key] is None else config[key]
    _integer(config, "index_size", 1)
    _integer(config, "warmup_epochs", 1)
    _integer(config, "warmup_stopping_step", 0)
    file = config["warmup_from"]
    if file is not None and not (isinstance(file, str) and os.path.isfile(file)):
        raise ConfigError(f"warmup_from: there is no checkpoint {file!r}")
    if config["index_size"] > config["n_candidates"] and config["freeze_i2t"]:
        raise ConfigError(
            f"index_size: {config['index_size']} SIDs per item can never be reached with "
            f"n_candidates {config['n_candidates']} and freeze_i2t; raise n_candidates"
        )
    if config["head_size"] % 2:
        raise ConfigError(f"head_size: {config['head_size']} must be even (rotary positions)")
    resolve_train_sample(config, "lazy_decoder")


def _ablations(value: Any) -> list[str]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not set(names) <= set(ABLATIONS):
        raise ConfigError(
            f"ablate: {value!r} must be empty, one of {', '.join(ABLATIONS)}, or a list of these"
        )
    if "coevo" in names and "i2t" in names:
        raise ConfigError("ablate: coevo leaves no candidates for i2t to change; drop one of them")
    return sorted(names)


def _integer(config: dict, key: str, least: int) -> None:
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key}: {value!r} must be an integer of at least {least}")
