"""Declared shapes of plain-data files: stated once beside the reader, checked as the file is read.

A shape is one of

* a type or several, of which the value is one (a bool is no number, an int will do for a float);
* a dict of shapes by key: `"key?"` may be missing, `...` stands for all keys that are not named;
* a list of one shape: any number of values of it;
* `OrNone` of a shape;
* a `Rule`, words and a function that says whether a value holds.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, TypeAlias

import torch

from recbole_gr.errors import ConfigError

Shape: TypeAlias = Any

_WORDS = {
    str: "text", int: "an integer", float: "a number", bool: "True or False",
    dict: "a mapping", list: "a list", tuple: "a list", type(None): "nothing",
    torch.Tensor: "a tensor",
}  # fmt: skip


class OrNone(NamedTuple):
    """A value of the shape, or None."""

    shape: Shape


class Rule(NamedTuple):
    """A value for which the function holds; `words` say what that is."""

    words: str
    holds: Callable[[Any], bool]


def is_plain_name(name: Any) -> bool:
    """Whether a file of that name lies in the folder in which it is looked for."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and PurePosixPath(name).name == name == PureWindowsPath(name).name
    )


ANY = Rule("anything", lambda value: True)
NAME = Rule("the name of a file, without a folder", is_plain_name)


def at_least(least: int) -> Rule:
    """An integer from `least` on."""
    return Rule(f"an integer of at least {least}", lambda value: _is(value, int) and value >= least)


def within(most: int) -> Rule:
    """An integer from 1 to `most`, which is what else the file holds."""
    return Rule(f"of 1 to {most}", lambda value: _is(value, int) and 1 <= value <= most)


def tensor(words: str, dim: int, *types: torch.dtype) -> Rule:
    """A tensor of so many dimensions and one of the types; `words` name it."""
    return Rule(
        words,
        lambda value: (
            isinstance(value, torch.Tensor) and value.dim() == dim and value.dtype in types
        ),
    )


def require(
    value: Any, shape: Shape, file: str | os.PathLike[str], remedy: str, where: str = ""
) -> None:
    """See that what was read from a file has the shape that its reader relies on.

    Args:
        value: what was read.
        shape: see above.
        file (str | os.PathLike): its name.
        remedy (str): a sentence on what to do, the end of the message.
        where (str): the key of `value` in the file.

    Raises:
        ConfigError: names the file, the first key that is wrong, what is there and what should be.
    """
    if isinstance(shape, OrNone):
        if value is not None:
            require(value, shape.shape, file, remedy, where)
    elif isinstance(shape, Rule):
        if not shape.holds(value):
            raise _wrong(value, shape.words, file, remedy, where)
    elif isinstance(shape, dict):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _wrong(value, "a mapping of names to values", file, remedy, where)
        _require_keys(value, shape, file, remedy, where)
    elif isinstance(shape, list):
        if not isinstance(value, (list, tuple)):
            raise _wrong(value, "a list", file, remedy, where)
        for number, item in enumerate(value):
            require(item, shape[0], file, remedy, f"{where}[{number}]")
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        if not any(_is(value, kind) for kind in kinds):
            words = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
            raise _wrong(value, words, file, remedy, where)


def require_version(found: Any, known: int, file: str | os.PathLike[str]) -> None:
    """See that a file is of a format that this version reads.

    Raises:
        ConfigError: its format is none or a later one; what to do.
    """
    if not _is(found, int) or found < 1:
        raise ConfigError(
            f"'{file}' has the format_version {_shown(found)}, which is no version. It was changed "
            "or is of another program: take a copy of it, or write it again."
        )
    if found > known:
        raise ConfigError(
            f"'{file}' has format {found}, this version reads up to {known}. Update RecBole-GR."
        )


@contextlib.contextmanager
def taking(what: str, file: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Put to use what a file holds: whatever goes wrong with it becomes a message about the file.

    For values whose form another library decides (states of an optimiser, settings of a model).
    A ConfigError that does not name the file is told to be about it. Want of memory on a GPU and
    packages that are not there keep their own words.

    Args:
        what (str): the key, or what the values are.
        file (str | os.PathLike): its name.
        remedy (str): a sentence on what to do.

    Raises:
        ConfigError: names the file, what could not be used, and the remedy.
    """
    try:
        yield
    except ConfigError as error:
        if os.fspath(file) in str(error):
            raise
        raise type(error)(f"'{file}': {error}") from error
    except (ImportError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        logging.getLogger().debug("'%s': %s", file, what, exc_info=True)
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"'{file}': its {what} cannot be used ({type(error).__name__}: {reason}). {remedy}"
        ) from error


def _require_keys(
    value: Mapping[str, Any],
    shape: dict[Any, Shape],
    file: str | os.PathLike[str],
    remedy: str,
    where: str,
) -> None:
    named = {key.removesuffix("?"): key for key in shape if key is not ...}
    for key, stated in named.items():
        place = f"{where}.{key}" if where else key
        if key in value:
            require(value[key], shape[stated], file, remedy, place)
        elif stated == key:
            raise ConfigError(f"'{file}' lacks {place}. {remedy}")
    others = shape.get(..., ANY)
    for key in value.keys() - named.keys() if others is not ANY else ():
        require(value[key], others, file, remedy, f"{where}.{key}" if where else key)


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _wrong(
    value: Any, expected: str, file: str | os.PathLike[str], remedy: str, where: str
) -> ConfigError:
    found = _shown(value)
    return ConfigError(f"'{file}': {where or 'it'} is {found}, and must be {expected}. {remedy}")


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {value.dtype} of shape {list(value.shape)}"
    if isinstance(value, (str, int, float, bool, type(None))):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    return _WORDS.get(type(value), f"a {type(value).__name__}")
