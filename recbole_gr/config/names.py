"""(noun phrase; keep)"""

from __future__ import annotations

import builtins
import os
from collections.abc import Collection, Mapping
from typing import Any

from recbole_gr import registry
from recbole_gr.config.parsing import parse_value, properties_dir, read_yaml
from recbole_gr.errors import ConfigError
from recbole_gr.untrusted.shapes import is_plain_name

#: Settings that may name a class as `package.module:Class`.
CLASS_KEYS = ("model", "tokenizer", "backbone", "continual_model")


def check_names(
    settings: Mapping[str, Any],
    file: str | os.PathLike[str],
    given: Collection[str] = (),
    learns: bool = False,
) -> None:
    """See that settings of a file ask for nothing but code of RecBole-GR and RecBole.

    Nothing is imported to find out: a name is one that the registry has (what the user registered
    is among them), whatever modules there are.

    Args:
        settings (dict): as they stand in the file; a text may be a value in quotes, as a user's.
        file (str | os.PathLike): its name, for messages.
        given (Collection[str]): keys that the user gives himself, whatever the file says.
        learns (bool): item content is made again, for which an encoder of texts may be loaded.

    Raises:
        ConfigError: names the key and what to give.
    """
    parsed = {key: parse_value(value, key) for key, value in settings.items()}
    for key in CLASS_KEYS:
        value = parsed.get(key)
        if key not in given and value is not None and not registry.is_named(key, value):
            raise _outside(key, value, file)
    if "config_files" in parsed:
        raise ConfigError(
            f"'{file}': config_files {parsed['config_files']!r}: a file does not say which others "
            "to read. Remove the key from it, and give config_files yourself if you want them."
        )
    if parsed.get("dataset") is not None and "dataset" not in given:
        check_dataset_name(parsed["dataset"], file)
    _check_teacher(parsed, file, given)
    if learns:
        _check_encoder(parsed, file, given)
    for kind in ("per_model", "per_tokenizer"):
        sections = parsed.get(kind)
        for section in sections.values() if isinstance(sections, dict) else ():
            if isinstance(section, dict):
                check_names(section, file, given, learns)


def check_dataset_name(name: Any, file: str | os.PathLike[str]) -> None:
    """Raise ConfigError unless the data set that a file names is a name and no path."""
    if not is_plain_name(name):
        raise ConfigError(
            f"'{file}': dataset {name!r} is no name of a data set. It names a folder and its "
            "files, without separators: take a file that a run wrote."
        )


def _outside(key: str, value: Any, file: str | os.PathLike[str]) -> ConfigError:
    if key == "model":
        return ConfigError(
            f"'{file}' is of model {value!r}, which is neither of RecBole-GR nor of RecBole. A "
            "file does not say what code to import: if you trust it, give the class yourself, "
            "model=package.module:Class."
        )
    example = value if isinstance(value, str) and ":" in value else "package.module:Class"
    return ConfigError(
        f"'{file}' was made with {key} {value!r}, a class outside of RecBole-GR. A file does not "
        f"say what code to import: if you trust it, give {key}='{example}' yourself."
    )


def _check_teacher(
    settings: Mapping[str, Any], file: str | os.PathLike[str], given: Collection[str]
) -> None:
    """RecBole's KD_DAGFM evaluates this setting as Python."""
    teacher = settings.get("teacher")
    if teacher is None or "teacher" in given:
        return
    if not isinstance(teacher, str) or not teacher.isidentifier() or hasattr(builtins, teacher):
        raise ConfigError(
            f"'{file}': teacher {teacher!r} is no name of a network of KD_DAGFM; give teacher "
            "yourself, such as teacher='CrossNet'."
        )


def _check_encoder(
    settings: Mapping[str, Any], file: str | os.PathLike[str], given: Collection[str]
) -> None:
    """A folder of sentence-transformers may hold code, and a name is fetched from elsewhere."""
    encoder = settings.get("text_encoder")
    if encoder is None or "text_encoder" in given:
        return
    if encoder != read_yaml(properties_dir() / "overall.yaml")["text_encoder"]:
        raise ConfigError(
            f"'{file}' was made with text_encoder {encoder!r}. Loading it may run code that lies "
            "with it: if you trust it, give text_encoder yourself."
        )
