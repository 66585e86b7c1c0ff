"""Queries to a trained model, in the many forms of Python, as lists of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral
from typing import Any

from recbole_gr.errors import ConfigError

_FORM = 'a list for each answer, as in histories=[["50", "181"]]'


def token_lists(histories: Iterable) -> list[list[str]]:
    """Tokens of each history.

    Args:
        histories: lists, tuples, arrays, tensors or generators of item tokens, in one of these.

    Raises:
        ConfigError: something else, or a history without items; says which and what is wanted.
    """
    if isinstance(histories, (str, bytes)) or _has_no_order(histories):
        raise ConfigError(f"histories: {histories!r:.100} is no list of histories; give {_FORM}")
    rows = []
    for number, history in enumerate(_listed(histories, "histories", f"give {_FORM}"), 1):
        name = f"histories: number {number} is {history!r:.100}"
        if isinstance(history, (str, bytes)):
            raise ConfigError(
                f"{name}; give a list of item tokens. Of a single history the outer list is "
                f"missing: {_FORM}"
            )
        if _has_no_order(history):
            raise ConfigError(f"{name}, which has no order; give a list of item tokens")
        tokens = _listed(history, name, f"give a list of item tokens: {_FORM}")
        if not tokens:
            raise ConfigError(
                f"{name}; give a list of item tokens, one at least: nothing can be recommended "
                "after nothing"
            )
        rows.append([str(token) for token in tokens])
    return rows


def user_tokens(users: Any) -> list[str]:
    """Tokens of users, or of a single one.

    Raises:
        ConfigError: no list of tokens.
    """
    if isinstance(users, (str, Integral)):
        return [str(users)]
    remedy = 'give a list of user tokens, as in users=["196"]'
    if isinstance(users, (bytes, Mapping)):
        raise ConfigError(f"users: {users!r:.100} is no list; {remedy}")
    return [str(token) for token in _listed(users, "users", remedy)]


def check_count(value: Any, key: str, least: int = 1, most: int | None = None) -> int:
    """A whole number, numpy's too, from `least` to `most`.

    Raises:
        ConfigError: something else; names `key`.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{key}: {value!r} must be an integer {limits}")
    return int(value)


def _listed(values: Any, name: str, remedy: str) -> list:
    """The values of anything that can be gone through; arrays and tensors give Python's own."""
    if hasattr(values, "tolist"):  # of a tensor each value would be a tensor
        values = values.tolist()
    try:
        return list(values)
    except TypeError:
        name = name if " is " in name else f"{name}: {values!r:.100}"
        raise ConfigError(f"{name}, which is no list; {remedy}") from None


def _has_no_order(values: Any) -> bool:
    return isinstance(values, (Mapping, AbstractSet))
