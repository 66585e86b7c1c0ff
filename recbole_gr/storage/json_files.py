"""JSON files by one writer and one reader: strict, complete or absent, and named in errors."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.text_files import read_text


def finite(value: Any) -> Any:
    """Plain data with None for NaN and infinity, which JSON does not have; keys become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def json_text(value: Any, **style: Any) -> str:
    """`value` as JSON that any reader takes: null for NaN and infinity, numbers for those of numpy
    and torch, and text for whatever else has no form of its own.

    Args:
        value: the data.
        **style: `indent` and `ensure_ascii`, as of `json.dumps`.
    """
    return json.dumps(finite(value), default=_plain, allow_nan=False, **style)


def save_json(path: str | os.PathLike[str], value: Any, indent: int | None = 2) -> None:
    """Write `value` by :func:`json_text`, completely or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json_text(value, indent=indent) + "\n", encoding="utf-8")


def load_json(path: str | os.PathLike[str], name: str = "", remedy: str = "") -> Any:
    """What a JSON file holds.

    Args:
        path: the file, of UTF-8 text.
        name: what it is, for messages, such as `sid_file sid.json`; the path if empty.
        remedy: what to do about one that cannot be read.

    Raises:
        ConfigError: no such file, or no JSON; names it.
    """
    name = name or f"'{path}'"
    text = read_text(path, name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = f"{name} cannot be read as JSON: {error}"
        raise ConfigError(f"{why}. {remedy}" if remedy else why) from error


def _plain(value: Any) -> Any:
    return finite(value.item()) if hasattr(value, "item") else str(value)
