"""The default settings of a model on a data set, from RecBole's property files and ours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recbole
from recbole.utils import ModelType

from recbole_gr import registry
from recbole_gr.errors import ConfigError
from recbole_gr.known_keys import COMPUTED_KEYS, RECBOLE_KEYS, RUN_KEYS, keys_read_by
from recbole_gr.settings import properties_dir, read_yaml

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

# How results are measured. Every sequential, general and knowledge-aware model gets the values of
# our overall.yaml, so that they are compared on the same targets; RecBole's files by model type may
# not change them there.
_PROTOCOL = ("eval_args", "metrics", "topk", "valid_metric", "repeatable")
_OWN_PROTOCOL = (ModelType.CONTEXT, ModelType.DECISIONTREE)


def default_settings(
    model_class: type, dataset: str, tokenizer: str | None = None
) -> tuple[dict[str, Any], set[str]]:
    """The defaults of a model on a data set, and all keys that may be set for it.

    Args:
        model_class (type): the model.
        dataset (str): name of the data set.
        tokenizer (str | None): the tokenizer the user chose; None takes the default one.

    Returns:
        tuple[dict, set[str]]: default values, and the known keys.
    """
    recbole_dir = Path(recbole.__file__).parent / "properties"
    own_dir = properties_dir()
    names = _lineage(model_class)
    layers = [_optional(folder / "overall.yaml") for folder in (recbole_dir, own_dir)]
    layers += [
        _optional(folder / "model" / f"{file}.yaml")
        for name in names
        for folder, file in ((recbole_dir, _spelt(recbole_dir, name)), (own_dir, name))
    ]
    layers += [dict(getattr(model_class, "default_config", {}))]
    # A path in the place of a name would lead to a file outside of the property folders.
    inside = Path(str(dataset)).name == str(dataset)
    dataset_layers = [
        _optional(folder / "dataset" / f"{name}.yaml")
        for name in ("sample", *[dataset] * inside)
        for folder in (recbole_dir, own_dir)
    ]
    per_model = merged(layer.pop("per_model", None) or {} for layer in dataset_layers)
    check_per_model(per_model, f"properties/dataset/{dataset}.yaml")
    per_model = merged(per_model.get(name) or {} for name in names)
    if registry.is_generative(model_class):
        before = merged([*layers, *dataset_layers, per_model])
        # Before the model's own files: a model may need another collision policy.
        layers.insert(2, _tokenizer_settings(tokenizer or before.get("tokenizer")))
    type_layer = merged(
        _optional(recbole_dir / "quick_start_config" / name)
        for name in _type_files(model_class, dataset)
    )
    if _kind(model_class) in _OWN_PROTOCOL:
        type_layer["repeatable"] = False  # RecBole's default, which our overall.yaml changes
    else:
        type_layer = {key: value for key, value in type_layer.items() if key not in _PROTOCOL}
    defaults = merged([*layers, *dataset_layers, type_layer, per_model])
    known = set(defaults) | RECBOLE_KEYS | RUN_KEYS | keys_read_by(model_class)
    return defaults, known - COMPUTED_KEYS


def _spelt(folder: Path, model: str) -> str:
    """The name of RecBole's file for a model, which is not that of the class for XGBoost."""
    files = {file.stem.lower(): file.stem for file in (folder / "model").glob("*.yaml")}
    return files.get(model.lower(), model)


def _lineage(model_class: type) -> list[str]:
    """Names whose files hold a model's defaults: its bases' too, of RecBole's the nearest."""
    names = [parent.__name__ for parent in model_class.__mro__]
    if not registry.is_generative(model_class):
        names = names[: names.index(registry.recbole_name(model_class)) + 1]
    return names[::-1]


def _tokenizer_settings(name: Any) -> dict[str, Any]:
    return registry.get_tokenizer(name).default_options()


def _kind(model_class: type[AbstractRecommender]) -> ModelType:
    return model_class.type


def _type_files(model_class: type, dataset: str) -> list[str]:
    """RecBole's files for this type of model (its `Config._load_internal_config_dict`)."""
    model, kind = registry.recbole_name(model_class), _kind(model_class)
    on_ml_100k = dataset == "ml-100k"
    if kind in _OWN_PROTOCOL:
        return ["context-aware.yaml"] + ["context-aware_ml-100k.yaml"] * on_ml_100k
    if kind == ModelType.KNOWLEDGE:
        return ["knowledge_base.yaml"]
    if kind == ModelType.SEQUENTIAL:
        if model in ("DIN", "DIEN"):
            return ["sequential_DIN.yaml"] + ["sequential_DIN_on_ml-100k.yaml"] * on_ml_100k
        if model in ("GRU4RecKG", "KSR"):
            return ["sequential_embedding_model.yaml"]
        special = model in ("GRU4RecF", "SASRecF", "FDSA", "S3Rec") and on_ml_100k
        return ["sequential.yaml"] + ["special_sequential_on_ml-100k.yaml"] * special
    return []


def check_per_model(sections: Any, source: str) -> None:
    """Raise ConfigError unless a `per_model` section maps model names to settings."""
    if sections is None:
        return
    if not isinstance(sections, dict) or not all(
        isinstance(section, (dict, type(None))) for section in sections.values()
    ):
        raise ConfigError(f"per_model ({source}) must map model names to settings.")


def _optional(path: Path) -> dict[str, Any]:
    return read_yaml(path) if path.is_file() else {}


def merged(layers: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One dictionary of several, the later winning."""
    result = {}
    for layer in layers:
        result.update(layer)
    return result
