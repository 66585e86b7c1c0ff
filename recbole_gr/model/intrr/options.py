"""IntRR's configuration: what is checked before anything is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from recbole_gr.errors import ConfigError
from recbole_gr.model.backbone import backbone_class
from recbole_gr.model.intrr.ran import CONTEXTS

if TYPE_CHECKING:
    from recbole.config import Config

# The released configuration trains without alignment; the method as drawn in the paper has it, with
# no weight given, and the released code's own default for it is 0.1.
ALIGNMENT = {"released": 0.0, "paper": 0.1}
DECODINGS = ("beam", "exact")
_CHOICES = {
    "context": CONTEXTS,
    "decoding": DECODINGS,
    "train_sample": ("auto", "sequence", "prefix"),
    "position": ("relative_bias", "rotary"),
}
_COUNTS = ("hidden_size", "n_layers", "n_heads", "head_size", "inner_size", "feed_forward_depth",
           "uid_size", "ran_hidden_size")  # fmt: skip
_POSITIVE = ("temperature", "codebook_std", "uid_std")
_RATES = ("dropout", "attention_dropout")


def prepare(config: dict) -> None:
    """Check the keys of ``properties/model/IntRR.yaml`` and fill in what follows from others.

    Raises:
        ConfigError: names the key, its value and what would do.
    """
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise ConfigError(f"{key}: {config[key]!r} is not one of {', '.join(choices)}")
    for key in _COUNTS:
        _integer(key, config[key])
    for key in _POSITIVE:
        if not _number(config[key]) or config[key] <= 0:
            raise ConfigError(f"{key}: {config[key]!r} must be a number above 0")
    for key in _RATES:
        if not _number(config[key]) or not 0 <= config[key] < 1:
            raise ConfigError(f"{key}: {config[key]!r} must be a number in [0, 1)")
    if config["position"] == "rotary" and config["head_size"] % 2:
        raise ConfigError(f"head_size: {config['head_size']} must be even for position rotary")
    backbone_class(config["backbone"], "IntRR")
    config["lambda_aln"] = _alignment(config["lambda_aln"])
    weights = config["level_weights"]
    if weights is not None and not (
        isinstance(weights, (list, tuple)) and all(_number(w) and w >= 0 for w in weights)
    ):
        raise ConfigError(f"level_weights: {weights!r} must be a list of numbers of at least 0")
    if config["alignment_levels"] is not None:
        _integer("alignment_levels", config["alignment_levels"])
    shown = config["redistribution_items"]
    if shown is not None and not (isinstance(shown, (list, tuple)) and shown):
        raise ConfigError(f"redistribution_items: {shown!r} must be a list of item tokens")
    if config["train_sample"] == "auto":
        config["train_sample"] = "sequence"


def check_levels(config: Config, n_levels: int) -> None:
    """What depends on the SIDs: a weight for each level, no more aligned levels than there are."""
    weights, aligned = config["level_weights"], config["alignment_levels"]
    if weights is not None and len(weights) != n_levels:
        raise ConfigError(
            f"level_weights: {len(weights)} weights for SIDs of {n_levels} levels (the collision "
            "level included); give one for each"
        )
    if aligned is not None and aligned > n_levels:
        raise ConfigError(f"alignment_levels: {aligned}, but the SIDs have {n_levels} levels")


def _alignment(value: Any) -> float:
    if isinstance(value, str) and value in ALIGNMENT:
        return ALIGNMENT[value]
    if not _number(value) or value < 0:
        names = ", ".join(ALIGNMENT)
        raise ConfigError(f"lambda_aln: {value!r} must be one of {names}, or a number from 0 on")
    return float(value)


def _number(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _integer(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key}: {value!r} must be an integer of at least 1")
