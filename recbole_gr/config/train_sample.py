"""The models of RecBole's that `train_sample: sequence` trains, and the keys that come with it.

The keys are in `properties/model/WholeSequences.yaml`. A causal model knows them whatever its
`train_sample`, which is known once the defaults are read.
"""

from __future__ import annotations

from typing import Any

from recbole_gr import registry
from recbole_gr.errors import ConfigError

#: Models whose state at a position depends on what is before it alone, and which score an item by
#: the product of the last state with its embedding.
CAUSAL = ("SASRec", "SASRecF", "GRU4Rec", "GRU4RecF")
# Keys that switch something on.
_SWITCHES = ("softmax_negatives", "label_smoothing", "crop_shuffle", "item_text")


def is_causal(model_class: type) -> bool:
    """Whether a class is one of `CAUSAL`, or derived from one."""
    return any(parent.__name__ in CAUSAL for parent in model_class.__mro__)


def as_trained(model_class: Any, settings: dict[str, Any]) -> Any:
    """The class of a model, as `train_sample` and the keys that come with it have it trained; one
    that can (`prepare_config`) prepares the settings in place, and stays.

    Raises:
        ConfigError: `train_sample: sequence` and the model is not one of `CAUSAL`, or keys that
            need it, or exclude each other.
    """
    if hasattr(model_class, "prepare_config"):
        model_class.prepare_config(settings)
        return model_class
    on = [key for key in _SWITCHES if settings.get(key)] if is_causal(model_class) else []
    if settings.get("train_sample") != "sequence":
        if on:
            raise ConfigError(
                f"{on[0]} of {model_class.__name__} is for training on whole sequences: give "
                f"train_sample=sequence too, or {on[0]} to other models alone (per_model)"
            )
        return model_class
    if not is_causal(model_class):
        raise ConfigError(
            f"train_sample: sequence trains {', '.join(CAUSAL)} among RecBole's models, whose "
            f"state at a position knows nothing of what follows; {model_class.__name__} takes "
            "train_sample=prefix"
        )
    of_softmax = [key for key in ("softmax_negatives", "label_smoothing") if key in on]
    if of_softmax and settings.get("loss_type") != "CE":
        raise ConfigError(f"{of_softmax[0]} is of the softmax: give loss_type=CE, or leave it out")
    if len(of_softmax) > 1:
        raise ConfigError(
            "label_smoothing spreads over all items, of which softmax_negatives takes a sample: "
            "leave one of both out"
        )
    return registry.on_whole_sequences(model_class, "item_text" in on)


def resolve_train_sample(config: dict, causal: str) -> None:
    """``train_sample: auto`` becomes ``sequence`` for the causal architecture, else ``prefix``.

    Args:
        config: with ``architecture`` and ``train_sample``; changed in place.
        causal: the architecture of the model that predicts every position in one pass.

    Raises:
        ConfigError: whole sequences for an architecture that is not causal.
    """
    whole = config["architecture"] == causal
    if config["train_sample"] == "auto":
        config["train_sample"] = "sequence" if whole else "prefix"
    if config["train_sample"] == "sequence" and not whole:
        raise ConfigError(
            f"train_sample: sequence needs architecture {causal}; {config['architecture']} reads "
            "the history in both directions, use train_sample=prefix"
        )
