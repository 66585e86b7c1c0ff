"""PIT's configuration: derived values, and contradictions between keys."""

import os
from typing import Any

from recbole_gr.config.train_sample import resolve_train_sample
from recbole_gr.errors import ConfigError


def prepare(config: dict) -> None:
    """Fill in the keys of ``properties/model/PIT.yaml`` that follow from others.

    Raises:
        ConfigError: keys that contradict each other; names them and what would do.
    """
    config["ablate"] = _ablations(config["ablate"])
    by_items = config["evolve"] == "items"
    if "coevo" in config["ablate"]:
        config["n_candidates"] = 1
    if not by_items or "coevo" in config["ablate"]:
        config["evolve_accept"] = None  # no item moves
    elif config["evolve_accept"] is None:
        config["evolve_accept"] = "halves"
    for key, default in (
        ("index_size", 2 if by_items else config["n_candidates"]),
        ("lambda_item", 1.0 if by_items else 0.0),
        ("freeze_i2t", not by_items),
        ("warmup_epochs", -(-config["epochs"] // 3)),
        ("warmup_stopping_step", config["stopping_step"]),
    ):
        config[key] = default if config[key] is None else config[key]
    if config["warmup_epochs"] < 1:
        raise ConfigError("warmup_epochs: 0, a third of epochs, must be an integer of at least 1")
    file = config["warmup_from"]
    if file is not None and not os.path.isfile(file):
        raise ConfigError(f"warmup_from: there is no checkpoint {file!r}")
    if config["index_size"] > config["n_candidates"] and config["freeze_i2t"] and not by_items:
        raise ConfigError(
            f"index_size: {config['index_size']} SIDs per item can never be reached with "
            f"n_candidates {config['n_candidates']} and freeze_i2t; raise n_candidates"
        )
    if config["head_size"] % 2:
        raise ConfigError(f"head_size: {config['head_size']} must be even (rotary positions)")
    resolve_train_sample(config, "lazy_decoder")


def _ablations(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else list(value or ())
    if "coevo" in names and "i2t" in names:
        raise ConfigError("ablate: coevo leaves no candidates for i2t to change; drop one of them")
    return sorted(names)
