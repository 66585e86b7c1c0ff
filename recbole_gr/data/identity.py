"""The identity of a model's user and item ids, so that it is not put on other data."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

_SEPARATOR = "\0"


def identity_of(dataset: Dataset) -> dict[str, Any]:
    """The users and items of a data set by id, as plain values for a checkpoint.

    Args:
        dataset (Dataset): any split of it.

    Returns:
        dict: `items`, all item tokens in one text (a single value loads far faster than one per
        item); `n_users`, and `users`, the sha256 of their tokens. A field that the data set does
        not have is None.
    """
    items, users = (_text(dataset, field) for field in (dataset.iid_field, dataset.uid_field))
    digest = None if users is None else hashlib.sha256(users.encode()).hexdigest()
    n_users = None if users is None else users.count(_SEPARATOR) + 1
    return {"items": items, "n_users": n_users, "users": digest}


def check_identity(saved: dict[str, Any], dataset: Dataset, file: str | Path) -> None:
    """See that ids of a data set stand for the users and items that a checkpoint's do.

    Args:
        saved (dict): of `identity_of`, from the checkpoint.
        dataset (Dataset): the data set as it is now.
        file (str): the checkpoint, for the message.

    Raises:
        ConfigError: says what differs.
    """
    now, name = identity_of(dataset), dataset.dataset_name
    remedy = (
        f"Give the data it was trained on (data_path; now {dataset.dataset_path}, with the filters "
        "of its configuration), or train on these."
    )
    if now["items"] != saved["items"]:
        before, present = ((part["items"] or "").split(_SEPARATOR)[1:] for part in (saved, now))
        raise ConfigError(
            f"'{file}' was trained on other items than '{name}' has now: "
            f"{_difference(before, present)}. {remedy}"
        )
    if now["users"] != saved["users"]:
        counts = f"{_n_users(saved)} users in training, {_n_users(now)} now"
        if saved["n_users"] == now["n_users"]:
            counts = f"{_n_users(now)} users, but not the same or in another order"
        raise ConfigError(
            f"'{file}' was trained on other users than '{name}' has now: {counts}. {remedy}"
        )


def _text(dataset: Dataset, field: str | None) -> str | None:
    return None if field is None else _SEPARATOR.join(map(str, dataset.field2id_token[field]))


def _n_users(identity: dict[str, Any]) -> int:
    return max(0, (identity["n_users"] or 1) - 1)  # without padding


def _difference(before: Collection[str], present: Collection[str]) -> str:
    gone, new = set(before) - set(present), set(present) - set(before)
    parts = [
        f"{len(items)} {what}, such as {min(items)!r}"
        for items, what in ((gone, "are missing"), (new, "are new"))
        if items
    ]
    return " and ".join(parts) or "the same items in another order"
