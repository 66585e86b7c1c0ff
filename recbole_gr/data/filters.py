"""Filters of a data set by value, and what is left of it."""

from __future__ import annotations

from collections.abc import Sized
from logging import getLogger
from typing import TYPE_CHECKING, Any

import pandas as pd
from recbole.utils import FeatureType

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.config import Settings

KEYS = (
    *("val_interval", "user_inter_num_interval", "item_inter_num_interval"),
    *("entity_kg_num_interval", "relation_kg_num_interval"),
    *("filter_inter_by_user_or_item", "rm_dup_inter"),
)
_EXAMPLES = {
    FeatureType.TOKEN: ("a list of tokens", "{genre: ['drama', 'comedy']}"),
    FeatureType.FLOAT: ("an interval", "{rating: '[3,inf)'}"),
}


def check_value_filter(field: str, wanted: Any, types: dict[str, FeatureType]) -> None:
    """See that `val_interval` says of a column what its type can be filtered by.

    Args:
        field (str): the column.
        wanted (Any): what is asked of it: a list of tokens, or intervals as text.
        types (dict): of all columns that are loaded.

    Raises:
        ConfigError: no such column, or something else is asked.
    """
    kind = types.get(field)
    if kind is None or kind not in _EXAMPLES:
        raise ConfigError(
            f"val_interval: {field!r} is no token or float column that is loaded; there are "
            f"{sorted(name for name, known in types.items() if known in _EXAMPLES)}"
        )
    if isinstance(wanted, (list, tuple, set)) != (kind == FeatureType.TOKEN):
        form, example = _EXAMPLES[kind]
        raise ConfigError(
            f"val_interval: {wanted!r} for the {kind.value} column {field!r} must be {form}, such "
            f"as {example}"
        )


def rows_of_listed(
    inter: pd.DataFrame, feat: pd.DataFrame, field: str, file: str
) -> pd.DataFrame:
    """The interactions of users or items that have a line in their own file; counts the others.

    Args:
        inter (pandas.DataFrame): interactions.
        feat (pandas.DataFrame): the rows of the file.
        field (str): the column of ids.
        file (str): its name.

    Raises:
        ConfigError: none has.
    """
    listed = inter[field].isin(feat[field])
    if not listed.any():
        raise ConfigError(
            f"no {field} of the interactions has a line in {file}, where ids look like "
            f"{str(feat[field].iloc[0])!r} and not {str(inter[field].iloc[0])!r}; give the file of "
            "these data, or --filter_inter_by_user_or_item=False"
        )
    if not listed.all():
        getLogger().warning(
            "%d of %d interactions are left out, as their %s has no line in %s "
            "(filter_inter_by_user_or_item)", (~listed).sum(), len(listed), field, file,
        )  # fmt: skip
    return inter[listed]


def check_rows_left(rows: Sized, name: str, config: Settings) -> None:
    """Raise a ConfigError that names the filters if they leave no row of `name`."""
    if not len(rows):
        given = {key: config[key] for key in KEYS if config[key] not in (None, True, "[0,inf)")}
        raise ConfigError(
            f"the filters leave no row of {name} in '{config['dataset']}': {given}; loosen one"
        )
