"""Options of a tokenizer: from a configuration to checked values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.config import Settings

Number = TypeVar("Number", int, float)


def option(config: Settings, key: str) -> Any:
    """The value of a key, None where it is missing, from RecBole's ``Config`` or a dictionary."""
    try:
        return config[key]
    except KeyError:
        return None


def options_of(config: Settings, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all keys of ``defaults``; ``tokenizer_seed`` is an integer, by default ``seed``."""
    options = dict(defaults)
    for key in options:
        value = option(config, key)
        options[key] = options[key] if value is None else value
    if options["tokenizer_seed"] is None:
        seed = option(config, "seed")
        options["tokenizer_seed"] = 2020 if seed is None else seed
    options["tokenizer_seed"] = int(options["tokenizer_seed"])
    return options


def positive(value: Any, key: str, kind: type[Number]) -> Number:
    """The value of ``key`` as a positive number of the given kind.

    Raises:
        ConfigError: it is none.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value > 0 or kind(value) != value:
        word = "integer" if kind is int else "number"
        raise ConfigError(f"{key} must be a positive {word}, got {value!r}")
    return kind(value)


def codebook_sizes(codebook_size: Any, levels: int) -> tuple[int, ...]:
    """One codebook size per level from an integer or a list.

    Raises:
        ConfigError: something else, or a list of another length.
    """
    given = codebook_size if isinstance(codebook_size, (list, tuple)) else [codebook_size] * levels
    if len(given) != levels or any(type(size) is not int or size < 1 for size in given):
        raise ConfigError(
            f"codebook_size must be a positive integer or a list of sid_levels={levels} positive "
            f"integers, got {codebook_size!r}"
        )
    return tuple(given)
