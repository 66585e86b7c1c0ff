"""The `.item` file of a data set, and its rows by item."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recbole_gr.data.atomic import atomic_path, read_table
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.config import Settings


class ItemFile:
    """All cells of a `.item` file.

    Args:
        config (Config): names the data set, its item id field and its separators.

    Attributes:
        path (str): the file.
        cells (pandas.DataFrame): strings, row i for the i-th data line.
        columns (dict[str, str]): atomic type of each column.
        id_field (str): the column of item tokens.
        separator (str): between the tokens of a sequence cell.

    Raises:
        ConfigError: the file does not exist, or has no column of item ids or no rows.
    """

    def __init__(self, config: Settings) -> None:
        self.path = atomic_path(config, "item")
        self.id_field = config["ITEM_ID_FIELD"]
        self.separator = config["seq_separator"] or " "
        if not os.path.isfile(self.path):
            raise ConfigError(
                f"{self.path} does not exist; item content from a file or from text needs it "
                "(item_content=collaborative needs no file)"
            )
        self.cells, self.columns, _ = read_table(
            self.path, config["field_separator"], config["encoding"]
        )
        if self.id_field not in self.columns:
            raise ConfigError(
                f"{self.path} has no column {self.id_field!r} (ITEM_ID_FIELD); its columns are "
                f"{list(self.columns)}"
            )

        if not len(self.cells):
            raise ConfigError(f"{self.path} has a header and no rows; write some, or remove it")

    def __len__(self) -> int:
        return len(self.cells)

    def rows_of(self, tokens: Sequence[str]) -> np.ndarray:
        """Line of each item token, the first where a token occurs twice, -1 where it is absent.

        Args:
            tokens (Sequence[str]): [n] item tokens.

        Returns:
            numpy.ndarray: [n] positions in `cells`, int64.
        """
        known = self.cells[self.id_field].drop_duplicates()
        positions = pd.Index(known).get_indexer(list(tokens))
        return np.where(positions < 0, -1, known.index.to_numpy()[positions]).astype(np.int64)
