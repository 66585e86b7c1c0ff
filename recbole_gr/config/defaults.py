"""The default settings of a model on a data set, from RecBole's property files and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole.utils import ModelType

from recbole_gr import registry
from recbole_gr.config.known_keys import RECBOLE_KEYS, RUN_KEYS, keys_read_by
from recbole_gr.config.layers import (
    COMPUTED_KEYS,
    Layer,
    class_layers,
    file_layer,
    keys_of,
    recbole_layer,
    recbole_properties,
    types_of_recbole,
)
from recbole_gr.config.parsing import properties_dir
from recbole_gr.config.schema import Key, check_settings
from recbole_gr.config.train_sample import is_causal
from recbole_gr.config.user_settings import merged
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

# How results are measured. Every sequential, general and knowledge-aware model gets the values of
# our overall.yaml, so that they are compared on the same targets; RecBole's files by model type may
# not change them there.
_PROTOCOL = ("eval_args", "metrics", "topk", "valid_metric", "repeatable")
_OWN_PROTOCOL = (ModelType.CONTEXT, ModelType.DECISIONTREE)
SECTIONS = ("per_model", "per_tokenizer")  # in the file of a data set, and in a user's


class Defaults(NamedTuple):
    """What a run starts from.

    Attributes:
        values: default values.
        known: all keys that may be set.
        keys: the types of those that have one.
        tokenizers: the classes of the chosen tokenizer, the most general first; none for RecBole's
            models.
    """

    values: dict[str, Any]
    known: set[str]
    keys: dict[str, Key]
    tokenizers: tuple[type, ...]


def default_settings(model_class: type, dataset: str, tokenizer: str | None = None) -> Defaults:
    """The defaults of a model on a data set, and all keys that may be set for it.

    Args:
        model_class (type): the model.
        dataset (str): name of the data set.
        tokenizer (str | None): the tokenizer the user chose; None takes the default one.

    Raises:
        ConfigError: a file of defaults that cannot be used, or no such tokenizer.
    """
    generative = registry.is_generative(model_class)
    classes = lineage(model_class)
    ours = properties_dir()
    whole = ours / "model" / "WholeSequences.yaml"  # that train_sample decides for comes later
    names = ["sample"]
    # A path in the place of a name would lead to a file outside of the property folders.
    names += [dataset] * (Path(str(dataset)).name == str(dataset))
    basis = [recbole_layer("overall.yaml", "run"), file_layer(ours / "overall.yaml", "run")]
    models = [
        *(recbole_layer(f"model/{_spelt(c.__name__)}.yaml", "model") for c in classes),
        *([file_layer(whole, "model")] if is_causal(model_class) else []),
        *class_layers(model_class, "model", classes),
    ]
    datasets = [
        layer
        for name in names
        for layer in (
            recbole_layer(f"dataset/{name}.yaml", "data"),
            file_layer(ours / "dataset" / f"{name}.yaml", "data"),
        )
    ]
    sections = {kind: _sections(kind, datasets) for kind in SECTIONS}
    per_model = section_of(classes, sections["per_model"])
    tokenizers: list[Layer] = []
    tokenizer_classes: tuple[type, ...] = ()
    if generative:
        before = merged([*(layer.values for layer in [*basis, *models, *datasets]), per_model])
        tokenizer_class = registry.get_tokenizer(tokenizer or str(before["tokenizer"]))
        tokenizer_classes = tuple(reversed(tokenizer_class.__mro__))
        tokenizers = class_layers(tokenizer_class, "tokenizer")
    per_tokenizer = _per_tokenizer(tokenizers, sections["per_tokenizer"])
    # Tokenizers before models: a model may need another collision policy.
    layers = [*basis, *tokenizers, *models, *datasets]
    keys = keys_of([types_of_recbole(), *layers])
    of_data = [check_settings(layer.values, keys, f"file '{layer.file}'") for layer in datasets]
    where = f"section of {model_class.__name__} or its tokenizer for {dataset}"
    values = merged(
        [
            *(layer.values for layer in [*basis, *tokenizers, *models]),
            *of_data,
            _of_type(model_class, dataset),
            check_settings({**per_model, **per_tokenizer}, keys, where),
        ]
    )
    known = set(values) | RECBOLE_KEYS | RUN_KEYS
    if not generative:  # which declares its keys; RecBole's models leave a few out
        known |= keys_read_by(model_class)
    return Defaults(values, known - COMPUTED_KEYS, keys, tokenizer_classes)


def lineage(model_class: type) -> list[type]:
    """The classes whose files hold a model's defaults, the most general first: its bases too, of
    RecBole's the nearest."""
    classes = list(model_class.__mro__)
    if not registry.is_generative(model_class):
        names = [cls.__name__ for cls in classes]
        classes = classes[: names.index(registry.recbole_name(model_class)) + 1]
    return classes[::-1]


def _sections(kind: str, datasets: Iterable[Layer]) -> dict[str, Any]:
    """Take the `per_model` or `per_tokenizer` sections out of the files of a data set."""
    return merged(
        checked_section(kind, layer.values.pop(kind, None), f"file '{layer.file}'")
        for layer in datasets
    )


def _per_tokenizer(layers: Iterable[Layer], sections: Mapping[str, Any]) -> dict[str, Any]:
    """The sections for a tokenizer and its base classes; what a class sets itself wins over the
    section of its base."""
    result: dict[str, Any] = {}
    for layer in layers:
        own = sections.get(layer.name) or {}
        result = {key: v for key, v in result.items() if key not in layer.values} | own
    return result


def _of_type(model_class: type, dataset: str) -> dict[str, Any]:
    """RecBole's defaults of a type of model, without what ours say of its evaluation."""
    values = merged(
        recbole_layer(f"quick_start_config/{name}", "run").values
        for name in _type_files(model_class, dataset)
    )
    if _kind(model_class) in _OWN_PROTOCOL:
        return {**values, "repeatable": False}  # RecBole's default, which our overall.yaml changes
    return {key: value for key, value in values.items() if key not in _PROTOCOL}


def _spelt(model: str) -> str:
    """The name of RecBole's file for a model, which is not that of the class for XGBoost."""
    folder = recbole_properties() / "model"
    files = {file.stem.lower(): file.stem for file in folder.glob("*.yaml")}
    return files.get(model.lower(), model)


def section_of(classes: Iterable[type], sections: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a class in `per_model` or `per_tokenizer` sections, and of its bases."""
    return merged(sections.get(cls.__name__) or {} for cls in classes)


def checked_section(kind: str, sections: Any, source: object) -> dict[str, Any]:
    """A `per_model` or `per_tokenizer` section; ConfigError unless it maps names to settings."""
    if sections is None:
        return {}
    if not isinstance(sections, dict) or not all(
        isinstance(section, (dict, type(None))) for section in sections.values()
    ):
        names = kind.removeprefix("per_")
        raise ConfigError(f"{kind} ({source}) must map {names} names to settings.")
    return sections


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
