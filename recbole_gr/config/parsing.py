"""Reading of settings: YAML files, `--key=value` arguments, and single values, without eval."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recbole_gr.errors import ConfigError
from recbole_gr.storage.text_files import read_text
from recbole_gr.terminal.arguments import joined

if TYPE_CHECKING:
    import os

# Intervals such as "[5,inf)" or "[5,10]" are text to RecBole, also where they look like a list.
_TEXT_KEYS = {
    "model",
    "dataset",
    "user_inter_num_interval",
    "item_inter_num_interval",
    "entity_kg_num_interval",
    "relation_kg_num_interval",
}
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")
_PLAIN_TYPES = (str, int, float, bool, list, tuple, dict, type(None))


class SettingsLoader(yaml.SafeLoader):
    """Safe YAML that also reads `1e-5` as a number, as RecBole's loader does.

    The resolver belongs to this class, so other users of PyYAML in the process see no change.
    """


SettingsLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.X,
    ),
    list("-+0123456789."),
)


def parse_value(text: Any, key: str | None = None) -> Any:
    """Turn the text of one setting into a value.

    Python literals (`0.1`, `[5, 10]`, `{'split': {'LS': 'valid_and_test'}}`), YAML lists and
    mappings (`[Recall, NDCG]`), `true`/`false` in any case, and `None`, `null`, `~` are understood;
    anything else stays text, such as `NDCG@10` or `adam`. Nothing is executed.

    Args:
        text (object): the value; returned as it is unless it is a str.
        key (str | None): its name; a few keys always hold text.
    """
    if not isinstance(text, str):
        return text
    plain = text.strip()
    if plain.lower() in ("~", "null", "none"):
        return None
    if key in _TEXT_KEYS:
        return text
    if plain.lower() in ("true", "false"):
        return plain.lower() == "true"
    try:
        value = ast.literal_eval(plain)
        if isinstance(value, _PLAIN_TYPES):
            return value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if plain[:1] in ("[", "{"):
        try:
            return yaml.load(plain, Loader=SettingsLoader)  # noqa: S506 (a SafeLoader)
        except yaml.YAMLError:
            pass
    return text


def parse_switch(value: Any) -> Any:
    """True for true, yes and on, False for false, no and off, in any case; else the value."""
    text = value.strip().lower() if isinstance(value, str) else None
    return True if text in TRUE else False if text in FALSE else value


def parse_arguments(arguments: Iterable[str] | None) -> dict[str, Any]:
    """Read `--key=value` or `--key value` arguments into a dict of parsed values.

    A dot in a key is an underscore: `--continual.tokenizer` is the key `continual_tokenizer`.

    Raises:
        ConfigError: an argument of another form, or one key given twice with different values.
    """
    settings: dict[str, Any] = {}
    for argument in joined(arguments or ()):
        match = re.fullmatch(r"--([A-Za-z_][\w.-]*)=(.*)", argument, re.DOTALL)
        if match is None:
            name = argument.lstrip("-").partition("=")[0]
            raise ConfigError(f"Cannot read the argument '{argument}': write --{name}=VALUE.")
        key = match[1].replace(".", "_")
        value = parse_value(match[2], key)
        if key in settings and settings[key] != value:
            raise ConfigError(
                f"--{key} is given twice: '{settings[key]}' and '{value}'. Leave one of them out."
            )
        settings[key] = value
    return settings


def properties_dir() -> Path:
    """The folder of our defaults: in the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package} has no properties/overall.yaml, nor has what it lies in.")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one YAML file of settings into a dict; an empty file is an empty dict.

    A path below `properties/` that is not there is looked for in the installed package, so that
    the presets have one name with and without a checkout.

    Raises:
        ConfigError: no such file, not UTF-8, not YAML, or not a mapping of keys to values.
    """
    path = Path(path)
    if not path.is_file() and path.parts[:1] == ("properties",):
        path = properties_dir().joinpath(*path.parts[1:])
    if not path.is_file():
        raise ConfigError(f"There is no configuration file '{path}'. Check --config_files.")
    return yaml_settings(read_text(path, f"'{path}'"), path)


def yaml_settings(text: str, name: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings in the text of a YAML file; `name` is for messages, as of :func:`read_yaml`."""
    try:
        settings = yaml.load(text, Loader=SettingsLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{name}' is not a readable YAML file: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ConfigError(f"'{name}' must hold lines of the form 'key: value'.")
    return {key: None if value == "None" else value for key, value in settings.items()}


def file_list(value: str | Iterable[str] | None) -> list[str]:
    """Paths of `--config_files=a.yaml,b.yaml`, or with spaces as in RecBole, or a list."""
    if not value:
        return []
    if isinstance(value, str):
        return [name for name in re.split(r"[,\s]+", value) if name]
    return list(value)
