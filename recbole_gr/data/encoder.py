"""The encoder of item content, kept so that an item that comes later needs its text alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recbole_gr.data import tfidf as text
from recbole_gr.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from recbole_gr.data.item_file import ItemFile

# What a vector of each source is, for those who must make one themselves.
_VECTORS = {
    "embedding": "as a line of the content_file of the training",
    "preload": "as a line of the preloaded field of the training",
    "collaborative": "in the space of the training interactions, of which a new item has none; "
    "train with item_content=text to add items by their text",
    "text": "from where the kept vectors of the training were made, as they could not be made "
    "again; remove them from content_cache_dir and train again to add items by their text",
}


class TextColumns:
    """Texts of items that are in no file, in the columns of the `.item` file of the training.

    Args:
        items: text, or text by column, by item token. A text without column counts as words of the
            first column of words; columns that are not given are empty.
        columns: atomic type by column.
        separator: between the tokens of a sequence cell.

    Attributes:
        cells, columns, separator: as of :class:`~recbole_gr.data.item_file.ItemFile`.

    Raises:
        ConfigError: a column that the training did not read, or a value that is no text.
    """

    def __init__(self, items: Mapping[str, Any], columns: Mapping[str, str], separator: str):
        self.columns, self.separator = dict(columns), separator
        self._words = next((f for f, kind in columns.items() if kind == "token_seq"), "text")
        self.columns.setdefault(self._words, "token_seq")
        rows = [self._row(token, given) for token, given in items.items()]
        self.cells = pd.DataFrame(rows, columns=list(self.columns), dtype=object).fillna("")

    def _row(self, token: str, given: Any) -> dict[str, str]:
        given = {self._words: given} if isinstance(given, str) else given
        row = {}
        for column, value in given.items():
            if column not in self.columns:
                raise ConfigError(
                    f"new items: {token!r} has a column {column!r}, which is none of the text "
                    f"columns of the training{did_you_mean(column, self.columns)}; these are "
                    f"{list(self.columns)}"
                )
            words = value if isinstance(value, (list, tuple)) else [value]
            if not all(isinstance(word, (str, int, float)) for word in words):
                raise ConfigError(
                    f"new items: {column} of {token!r} is {value!r}; give text, as in the .item "
                    "file"
                )
            # Line ends and tabs cannot stand in a cell of a file.
            parts = (" ".join(str(w).replace("\t", " ").splitlines()) for w in words)
            row[column] = self.separator.join(parts)
        return row


def kept_encoder(
    source: str, item_file: ItemFile, fields: Sequence[str], **parts: Any
) -> dict[str, Any]:
    """An encoder of texts as plain data for a checkpoint: the columns it reads, and `parts`."""
    columns = {field: item_file.columns[field] for field in fields}
    return {"source": source, "columns": columns, "separator": item_file.separator, **parts}


def encoded_texts(
    encoder: Mapping[str, Any] | None, items: Mapping[str, Any], device: str | None = None
) -> np.ndarray:
    """Content vectors of new items from their texts, as those of the training were made.

    Args:
        encoder: `encoder` of an :class:`~recbole_gr.data.content.ItemContent`, of a checkpoint;
            None of those of the first versions.
        items: text, or text by column of the `.item` file, by item token.
        device: of a sentence encoder.

    Returns:
        numpy.ndarray: ``[n, d]`` float32.

    Raises:
        ConfigError: the content of the training was not made of texts (says which vectors are
            needed), or an item has no text that the encoder knows.
    """
    first = next(iter(items))
    if encoder is None:
        raise ConfigError(
            f"new items: {first!r} has a text, but the checkpoint holds no encoder of texts, as it "
            "is of an earlier version; give a vector of the kind that item_content gave for the "
            "training, or train the model again"
        )
    source = encoder["source"]
    if "columns" not in encoder:
        raise ConfigError(
            f"new items: {first!r} has a text, but the model was trained with "
            f"item_content={source}; give a vector of {encoder['dim']} numbers, {_VECTORS[source]}"
        )
    columns = TextColumns(items, encoder["columns"], encoder["separator"])
    fields, rows = list(columns.columns), np.arange(len(items))
    if source == "sentence":
        sentences = text.item_sentences(columns, fields, rows)
        _require_some(items, [bool(sentence) for sentence in sentences], "it is empty")
        return text.sentence_vectors(sentences, encoder["text_encoder"], device)
    vectors = text.Tfidf.of(encoder).vectors(text.item_terms(columns, fields, rows))
    _require_some(items, vectors.any(axis=1), "none of its words occurs in those of the training")
    return vectors


def _require_some(items: Mapping[str, Any], known: Sequence[bool] | np.ndarray, why: str) -> None:
    for (token, given), is_known in zip(items.items(), known):
        if not is_known:
            raise ConfigError(
                f"new items: the text of {token!r} says nothing to the model, as {why}: {given!r}; "
                "give more of it, or a vector"
            )
