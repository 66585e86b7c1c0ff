"""A check that the files of a data set can be joined in one batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import getLogger
from typing import TYPE_CHECKING, Any

import numpy as np
from recbole.utils import FeatureType, ModelType

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

_BY_LABEL = (ModelType.CONTEXT, ModelType.DECISIONTREE)


def check_names(dataset: Dataset) -> None:
    """See that no name stands for two things, as RecBole joins all files into one batch.

    Args:
        dataset (Dataset): with its files read, before anything else is done.

    Raises:
        ConfigError: a column of users or items has the name of one of the interactions, of the
            other file, or of a field that is made.
    """
    config, suffix = dataset.config, dataset.config["LIST_SUFFIX"]
    made = {dataset.label_field, config["ITEM_LIST_LENGTH_FIELD"], dataset.time_field}
    taken = {name: ".inter" for name in dataset.inter_feat}
    for file, own in (("user", dataset.uid_field), ("item", dataset.iid_field)):
        feat = getattr(dataset, f"{file}_feat")
        for name in feat if feat is not None else ():
            if name == own:
                continue
            other = taken.get(name)
            if name in made or name.endswith(suffix) or name.startswith(config["NEG_PREFIX"]):
                other = other or "RecBole's batches"
            if name in (dataset.uid_field, dataset.iid_field):
                other = "the other side of an interaction"
            if other:
                raise ConfigError(
                    f"load_col: the column {name!r} of '{dataset.dataset_name}.{file}' would "
                    f"overwrite the one of the same name of {other}; rename it in the file, or "
                    f"leave it out of load_col: {{{file}: [...]}}"
                )
            taken[name] = f".{file}"


def check_types(dataset: Dataset) -> None:
    """See that columns which settings name have the type that is needed of them.

    Raises:
        ConfigError: an alias of ids that is no token, a label or what it is made of that is no
            number, or a float column without any value; names the column and its type.
    """
    types, config = dataset.field2type, dataset.config
    for group, names in dataset.alias.items():
        for name in map(str, names):
            if name not in types:
                raise ConfigError(f"alias_of_{group}: no column {name!r} is loaded (load_col)")
            if types[name] not in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ):
                raise ConfigError(
                    f"alias_of_{group}: {name!r} is a {types[name].value} column; ids are tokens"
                )
    if config["unused_col"]:
        for file in config["unused_col"]:
            if getattr(dataset, f"{file}_feat", None) is None:
                raise ConfigError(f"unused_col: nothing of the .{file} file is loaded (load_col)")
    for key in ("discretization", "normalize_field", "numerical_features"):
        for name in config[key] or ():
            if types.get(name) not in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
                kind = types[name].value if name in types else "no loaded"
                raise ConfigError(f"{key}: {name!r} is a {kind} column; it takes float columns")
    for field in config["threshold"] or ():
        if field not in dataset.inter_feat:
            raise ConfigError(
                f"threshold: no column {field!r} of the interactions is loaded; there are "
                f"{list(dataset.inter_feat)} (load_col)"
            )
    labels = [("threshold", field) for field in config["threshold"] or ()]
    for key, field in (*labels, ("LABEL_FIELD", dataset.label_field)):
        if types.get(field, FeatureType.FLOAT) != FeatureType.FLOAT:
            raise ConfigError(
                f"{key}: {field!r} is a {types[field].value} column; what is liked is told by a "
                "number, so write `:float` in the header"
            )


def check_values(feats: Mapping[str, Any], types: Mapping[str, FeatureType], name: str) -> None:
    """Say which float columns have gaps, which RecBole fills with the mean of the others.

    Args:
        feats (dict): tables by file, without padding.
        types (dict): of their columns.
        name (str): of the data set.

    Raises:
        ConfigError: a column has no value at all.
    """
    for file, feat in feats.items():
        for field in feat:
            if types[field] != FeatureType.FLOAT:
                continue
            n_missing = int(feat[field].isna().sum())
            if n_missing == len(feat):
                raise ConfigError(
                    f"the column {field!r} of '{name}.{file}' has no value at all; leave it out of "
                    "load_col"
                )
            if n_missing:
                getLogger().warning(
                    "%d of %d rows of %s in '%s' have no %s; they take the mean of the others",
                    n_missing, len(feat), file, name, field,
                )  # fmt: skip


def check_labels(dataset: Dataset) -> None:
    """See that click-through models learn of labels 0 and 1.

    Raises:
        ConfigError: other values, such as stars.
    """
    field = dataset.label_field
    if dataset.config["MODEL_TYPE"] not in _BY_LABEL or field not in dataset.inter_feat:
        return
    values = np.unique(np.asarray(dataset.inter_feat[field], dtype=float))
    if not set(values.tolist()) <= {0.0, 1.0}:
        shown = ", ".join(f"{value:g}" for value in values[:5])
        raise ConfigError(
            f"LABEL_FIELD: {field!r} of '{dataset.dataset_name}' holds {shown}"
            f"{', ...' if len(values) > 5 else ''}; a label is 0 or 1. Make it of them, as "
            f"--threshold={{'{field}': {values[len(values) // 2]:g}}} --LABEL_FIELD=label"
        )


def check_links(
    items: Iterable[str], entities: Iterable[str], lines: np.ndarray, file: str
) -> None:
    """See that the links of a knowledge graph are one to one, as RecBole takes them to be.

    Raises:
        ConfigError: names the line of the second link of an item or an entity.
    """
    seen: dict[tuple[str, str], int] = {}
    for item, entity, line in zip(items, entities, lines.tolist()):
        for what, name in (("item", item), ("entity", entity)):
            first = seen.setdefault((what, name), line)
            if first != line:
                raise ConfigError(
                    f"{file}, line {line}: the {what} {name!r} is linked in line {first} already; "
                    "an item has one entity and an entity one item, so keep one of the lines"
                )
