"""IntRR's configuration: derived values, and contradictions between keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_gr.errors import ConfigError
from recbole_gr.model.backbone import backbone_class

if TYPE_CHECKING:
    from recbole.config import Config

# The released configuration trains without alignment; the method as drawn in the paper has it, with
# no weight given, and the released code's own default for it is 0.1.
ALIGNMENT = {"released": 0.0, "paper": 0.1}


def prepare(config: dict) -> None:
    """Fill in the keys of ``properties/model/IntRR.yaml`` that stand for others.

    Raises:
        ConfigError: keys that contradict each other, or no such backbone.
    """
    if config["position"] == "rotary" and config["head_size"] % 2:
        raise ConfigError(f"head_size: {config['head_size']} must be even for position rotary")
    if config["pointer_items"] and config["level_weights"] is not None:
        raise ConfigError(
            "level_weights: a pointer takes the likelihood of the whole SID; leave one of "
            "pointer_items and level_weights out"
        )
    backbone_class(config["backbone"], "IntRR")
    config["lambda_aln"] = float(ALIGNMENT.get(config["lambda_aln"], config["lambda_aln"]))
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
