"""Titles of items for people."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recbole_gr.data.atomic import atomic_path
from recbole_gr.data.item_file import ItemFile

if TYPE_CHECKING:
    from recbole_gr.config import Config

NAMES = ("title", "movie_title", "item_title", "name", "item_name")


def item_titles(config: Config) -> dict[str, str]:
    """Title of each item token, from the `.item` file.

    The column is the first of `NAMES` that is there, else the first text column whose name ends in
    "title" or "name".

    Args:
        config (Config): names the data set.

    Returns:
        dict[str, str]: empty where there is no such file or column.
    """
    if not os.path.isfile(atomic_path(config, "item")):
        return {}
    file = ItemFile(config)
    text = [name for name, kind in file.columns.items() if kind in ("token", "token_seq")]
    text = [name for name in text if name != file.id_field]
    wanted = [name for name in NAMES if name in text]
    wanted += [name for end in ("title", "name") for name in text if name.lower().endswith(end)]
    if not wanted:
        return {}
    cells = file.cells.drop_duplicates(file.id_field)
    return dict(zip(cells[file.id_field], cells[wanted[0]]))
