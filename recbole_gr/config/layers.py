"""Files and classes that give defaults, and the types of their keys.

Nothing here imports RecBole's code or torch: help and messages name keys without it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import recbole

from recbole_gr.config.parsing import properties_dir, yaml_settings
from recbole_gr.config.schema import Key, check_settings, declared, inferred
from recbole_gr.config.user_settings import merged
from recbole_gr.storage.text_files import read_text

# Set by RecBole itself; a value from outside would be overwritten.
COMPUTED_KEYS = frozenset(
    "MODEL_TYPE MODEL_INPUT_TYPE device eval_type single_spec valid_metric_bigger "
    "valid_neg_sample_args test_neg_sample_args".split()
)


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
            _, _, values, keys, weak = file_layer(path, folder)
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


def shared_settings(
    of_models: bool = False, of_tokenizers: bool = False
) -> tuple[dict[str, Any], dict[str, Key]]:
    """Defaults and types of the keys that all models have, ours and RecBole's.

    Args:
        of_models (bool): with those of every generative model.
        of_tokenizers (bool): with those of every tokenizer.
    """
    ours = properties_dir()
    layers = [
        recbole_layer("overall.yaml", "run"),
        recbole_layer("dataset/sample.yaml", "data"),
        file_layer(ours / "overall.yaml", "run"),
    ]
    if of_tokenizers:
        layers.append(file_layer(ours / "tokenizer" / "Tokenizer.yaml", "tokenizer"))
    if of_models:
        layers.append(file_layer(ours / "model" / "GenerativeRecommender.yaml", "model"))
    layers.append(file_layer(ours / "dataset" / "sample.yaml", "data"))
    return merged(layer.values for layer in layers), keys_of([types_of_recbole(), *layers])


def types_of_recbole() -> Layer:
    """Our types of RecBole's keys, which have no defaults here."""
    return file_layer(properties_dir() / "recbole.yaml", "trainer")


def recbole_layer(name: str, owner: str) -> Layer:
    """Defaults of one of RecBole's property files; a type that cannot be read is left out."""
    _, path, values, keys, _ = file_layer(recbole_properties() / name, owner, strict=False)
    return Layer(path.stem, path, values, {}, keys)


def recbole_properties() -> Path:
    """The folder of RecBole's defaults."""
    return Path(recbole.__file__).parent / "properties"


def file_layer(path: Path, owner: str, strict: bool = True) -> Layer:
    """Defaults of a property file, empty where there is none."""
    values: dict[str, Any] = {}
    keys: dict[str, Key] = {}
    if path.is_file():
        text = read_text(path, f"'{path}'")
        values = yaml_settings(text, path)
        keys = dict(declared(text, owner, str(path) if strict else ""))
    return Layer(path.stem, path, values, keys, {})
