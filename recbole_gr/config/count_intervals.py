"""Intervals that filter the data, `[5,inf)`: their form."""

import math
import re
from collections.abc import Mapping
from typing import Any

from recbole_gr.errors import ConfigError

_INTERVAL = re.compile(r"([\[(])\s*([^,;\s]+)\s*,\s*([^,;\s]+)\s*([\])])")
FORM = (
    "an interval such as '[5,inf)', with [ or ] where the bound itself belongs to it and ( or ) "
    "where not, the lower bound first, several separated by ';'"
)


def intervals(text: Any, key: str = "an interval") -> list[tuple[str, float, float, str]] | None:
    """RecBole's intervals, `[5,inf)` or several as `[1,2];[8,inf)`.

    Args:
        text (Any): the setting; None is no interval.
        key (str): its name, for the message.

    Returns:
        list | None: tuples of opening bracket, least value, largest value, closing bracket.

    Raises:
        ConfigError: it has another form, or would hold no number.
    """
    if text is None:
        return None
    found = []
    for part in str(text).split(";"):
        match = _INTERVAL.fullmatch(part.strip())
        try:
            low, high = (float(match[2]), float(match[3])) if match else (math.nan, math.nan)
        except ValueError:
            low = high = math.nan
        if match is None or not low <= high:
            raise ConfigError(f"{key}: {text!r} must be {FORM}")
        found.append((match[1], low, high, match[4]))
    return found


def check_filters(given: Mapping[str, Any]) -> None:
    """Raise a ConfigError for a filter of the data that cannot be read.

    Args:
        given (dict): settings, None where a key is not set.
    """
    values = given.get("val_interval") or {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"val_interval: {values!r} must map columns to intervals or lists of tokens, such as "
            "{rating: '[3,inf)'}"
        )
    for column, wanted in values.items():
        if not wanted:
            raise ConfigError(
                f"val_interval: {{{column!r}: {wanted!r}}} says nothing; give an interval such as "
                "'[3,inf)' or a list of tokens"
            )
        if not isinstance(wanted, (list, tuple, set)):  # of tokens
            intervals(wanted, f"val_interval of {column!r} (of tokens it is a list)")
