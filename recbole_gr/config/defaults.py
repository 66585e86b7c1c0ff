"""The default settings of a model on a data set, from RecBole's property files and ours."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import recbole
from recbole.utils import ModelType

from recbole_gr import registry
from recbole_gr.config.given import merged
from recbole_gr.config.known_keys import COMPUTED_KEYS, RECBOLE_KEYS, RUN_KEYS, keys_read_by
from recbole_gr.config.parsing import properties_dir, yaml_settings
from recbole_gr.config.schema import Key, check_settings, declared, inferred
from recbole_gr.errors import ConfigError
from recbole_gr.storage.text import read_text

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
    recboles, ours = Path(recbole.__file__).parent / "properties", properties_dir()
    names = ["sample"]
    # A path in the place of a name would lead to a file outside of the property folders.
    names += [dataset] * (Path(str(dataset)).name == str(dataset))
    basis = [_layer(recboles / "overall.yaml"), _layer(ours / "overall.yaml", "run")]
    models = [
        *(_layer(recboles / "model" / f"{_spelt(recboles, c.__name__)}.yaml") for c in classes),
        *class_layers(model_class, "model", classes),
    ]
    datasets = [
        layer
        for name in names
        for layer in (
            _layer(recboles / "dataset" / f"{name}.yaml"),
            _layer(ours / "dataset" / f"{name}.yaml", "data"),
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
    keys = keys_of([_layer(ours / "recbole.yaml", "trainer"), *layers])
    of_data = [check_settings(layer.values, keys, f"file '{layer.file}'") for layer in datasets]
    where = f"section of {model_class.__name__} or its tokenizer for {dataset}"
    values = merged(
        [
            *(layer.values for layer in [*basis, *tokenizers, *models]),
            *of_data,
            _of_type(model_class, dataset, recboles),
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


def shared_keys() -> dict[str, Key]:
    """The types of the keys that all models have, ours and RecBole's."""
    recboles, ours = Path(recbole.__file__).parent / "properties", properties_dir()
    files = [recboles / "overall.yaml", recboles / "dataset" / "sample.yaml"]
    own = [_layer(ours / name, "run") for name in ("recbole.yaml", "overall.yaml")]
    return keys_of([*map(_layer, files), *own])


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


def _of_type(model_class: type, dataset: str, recboles: Path) -> dict[str, Any]:
    """RecBole's defaults of a type of model, without what ours say of its evaluation."""
    values = merged(
        _layer(recboles / "quick_start_config" / name).values
        for name in _type_files(model_class, dataset)
    )
    if _kind(model_class) in _OWN_PROTOCOL:
        return {**values, "repeatable": False}  # RecBole's default, which our overall.yaml changes
    return {key: value for key, value in values.items() if key not in _PROTOCOL}


def _spelt(folder: Path, model: str) -> str:
    """The name of RecBole's file for a model, which is not that of the class for XGBoost."""
    files = {file.stem.lower(): file.stem for file in (folder / "model").glob("*.yaml")}
    return files.get(model.lower(), model)


class Layer(NamedTuple):
    """Defaults from one file or class.

    Attributes:
        name: of the class, or of the file without its ending.
        file: its path, of a class whether it is there or not.
        values: by key.
        keys: the types that a file or class of ours or of a user's declares.
        weak: types of RecBole's files, or that values suggest, for keys that nothing else declares.
    """

    name: str
    file: Path
    values: dict[str, Any]
    keys: dict[str, Key]
    weak: dict[str, Key]


def class_layers(cls: type, folder: str, with_files: Collection[type] | None = None) -> list[Layer]:
    """Defaults of a model or tokenizer and of its base classes, the most general first.

    Each class may have a file `properties/<folder>/<name>.yaml` and an attribute `default_config`:
    the text of such a file, or a dictionary, whose values have no declared types. Keys of its
    bases that a class has no use for are named in its attribute `without`.

    Args:
        cls (type): the model or tokenizer.
        folder (str): `model` or `tokenizer`.
        with_files (list | None): the classes whose files count; None: all.
    """
    layers: list[Layer] = []
    for base in reversed(cls.__mro__):
        for part in (part for layer in layers for part in layer[2:]):
            for key in vars(base).get("without", ()):
                part.pop(key, None)
        path = properties_dir() / folder / f"{base.__name__}.yaml"
        values: dict[str, Any] = {}
        keys: dict[str, Key] = {}
        weak: dict[str, Key] = {}
        if with_files is None or base in with_files:
            _, _, values, keys, weak = _layer(path, folder)
        own = vars(base).get("default_config", {})
        if isinstance(own, str):
            text, name = textwrap.dedent(own), f"{base.__qualname__}.default_config"
            own = yaml_settings(text, name)
            keys |= declared(text, folder, name)
        else:
            weak |= inferred(own, folder)
        layers.append(Layer(base.__name__, path, {**values, **own}, keys, weak))
    return layers


def class_defaults(cls: type, folder: str) -> tuple[dict[str, Any], dict[str, Key]]:
    """All defaults of a model or tokenizer, and the types of its keys; see :func:`class_layers`."""
    layers = class_layers(cls, folder)
    return merged(layer.values for layer in layers), keys_of(layers)


def class_settings(cls: type, folder: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over the defaults of a model or tokenizer alone, without a data set.

    Raises:
        ConfigError: a value that its key may not have.
    """
    defaults, keys = class_defaults(cls, folder)
    return {**defaults, **check_settings(settings, keys)}


def keys_of(layers: Sequence[Layer]) -> dict[str, Key]:
    """The types of the keys of several layers, the later winning."""
    return merged([*(layer.weak for layer in layers), *(layer.keys for layer in layers)])


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


def _layer(path: Path, owner: str | None = None) -> Layer:
    """Defaults of a property file, empty where there is none; of ours where it has an owner."""
    values: dict[str, Any] = {}
    keys: dict[str, Key] = {}
    if path.is_file():
        text = read_text(path, f"'{path}'")
        values = yaml_settings(text, path)
        keys = dict(declared(text, owner or "run", str(path) if owner else ""))
    return Layer(path.stem, path, values, *((keys, {}) if owner else ({}, keys)))


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
