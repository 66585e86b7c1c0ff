"""Amazon reviews and product metadata, 2014, 2018 and 2023.

Formats: J. McAuley's pages of He & McAuley 2016 (`reviews_*_5.json.gz`, `meta_*.json.gz`, whose
metadata are Python literals), of Ni et al. 2019 (`*_5.json.gz`, `meta_*.json.gz`, all JSON) and of
Hou et al. 2024 (`*.jsonl.gz`, `meta_*.jsonl.gz`; all variants of a product are one item, the
`parent_asin` that the metadata are about, and times are milliseconds).
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_gr.convert.cells import id_cell, number, price_cell, text_cell, tokens_cell
from recbole_gr.convert.raw_lines import BrokenLine
from recbole_gr.convert.reader import Reader

if TYPE_CHECKING:
    from recbole_gr.convert.raw_lines import LineFile
    from recbole_gr.convert.reader import Entities, Entity, Interactions, OpenFile, RawInteraction

ITEM_COLUMNS = {
    "title": "token_seq",
    "brand": "token",
    "categories": "token_seq",
    "price": "float",
    "description": "token_seq",
}
# What 2023's metadata have beside these is not taken: `average_rating` and `rating_number` count
# reviews of all times, those to be predicted too; `details` are sizes, dates and numbers of models.
ITEM_COLUMNS_2023 = {
    "title": "token_seq",
    "store": "token",
    "main_category": "token",
    "categories": "token_seq",
    "price": "float",
    "features": "token_seq",
    "description": "token_seq",
}


class Keys(NamedTuple):
    """The keys of a review, and how many units of its time are a second."""

    user: str
    item: str
    rating: str
    time: str
    per_second: int


_OLDER = Keys("reviewerID", "asin", "overall", "unixReviewTime", 1)
_KEYS = {
    2014: _OLDER, 2018: _OLDER, 2023: Keys("user_id", "parent_asin", "rating", "timestamp", 1000),
}  # fmt: skip
_ASIN = re.compile(r"\{'asin': '(\w+)'")
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


class Amazon(Reader):
    """Reader of one category.

    Args:
        open_file (Callable): from a path to a `LineFile`.
        year (int): 2014, 2018, which has the column `feature` too, or 2023.
        reviews, metadata (str): the files.
    """

    fields = ("user_id", "item_id", "rating", "timestamp")

    def __init__(
        self, open_file: OpenFile, year: int, reviews: str, metadata: str | None = None
    ) -> None:
        self._open, self._reviews, self._metadata = open_file, reviews, metadata or ""
        self._keys = _KEYS[year]
        self.item_columns = {}
        if metadata:
            self.item_columns = dict(ITEM_COLUMNS_2023 if year == 2023 else ITEM_COLUMNS)
        if metadata and year == 2018:
            self.item_columns["feature"] = "token_seq"

    def interactions(self) -> Interactions:
        """The file of reviews, and (line, function to user, item, rating, time) of each."""
        file = self._open(self._reviews)
        return file, ((n, partial(_review, self._keys, text)) for n, text in file.lines())

    def items(self, kept: Collection[str]) -> Entities:
        """The file of metadata, and (line, function to item id and cells) of each kept item.

        2014's lines begin with the item's id; those of other items are not parsed, as that takes
        long, so that what is broken in them is not seen.
        """
        file = self._open(self._metadata)

        def lines() -> Iterator[tuple[int, Callable[[], Entity]]]:
            for n, text in file.lines():
                asin = _ASIN.match(text)
                if asin is None or asin[1] in kept:
                    yield n, partial(self._item, file, text)

        return file, lines()

    def _item(self, file: LineFile, text: str) -> Entity:
        record = _record(text)
        key = self._keys.item
        item = id_cell(_get(record, key), key)
        texts = [key for key in self.item_columns if key not in ("categories", "price")]
        cells = {key: text_cell(record.get(key), key) for key in texts}
        if "getTime" in cells["title"]:
            cells["title"] = ""  # some pages of 2018 were scraped as their script
        cells["categories"] = tokens_cell(_categories(record))
        try:
            cells["price"] = price_cell(record.get("price"))
        except BrokenLine as reason:  # the rest of the line is of use
            file.leave_empty(reason)
        return item, cells


def _review(keys: Keys, text: str) -> RawInteraction:
    record = _record(text)
    return (
        id_cell(_get(record, keys.user), keys.user),
        id_cell(_get(record, keys.item), keys.item),
        _plain_number(record, keys.rating),
        _plain_number(record, keys.time) / keys.per_second,
    )


def _record(text: str) -> dict[str, Any]:
    """The mapping in a line, JSON or a Python literal; nothing in it is executed."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        if not text.startswith("{'") and not text.startswith('{"'):
            raise BrokenLine("neither JSON nor a Python literal") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                record = ast.literal_eval(text)
        except _UNREADABLE:
            raise BrokenLine("neither JSON nor a Python literal") from None
    if not isinstance(record, dict):
        raise BrokenLine("no mapping of keys to values")
    return record


def _get(record: dict[str, Any], key: str) -> Any:
    if key not in record:
        raise BrokenLine(f"the key {key} is missing")
    return record[key]


def _plain_number(record: dict[str, Any], key: str) -> float:
    value = _get(record, key)
    if isinstance(value, str):
        raise BrokenLine(f"{key} is no number")
    return number(value, key)


def _categories(record: dict[str, Any]) -> list[str]:
    """2014 has a list of paths under `categories`, 2018 one path under `category`, 2023 one under
    `categories`."""
    paths = record.get("categories") or record.get("category") or []
    paths = paths if isinstance(paths, list) else [paths]
    names = [name for path in paths for name in (path if isinstance(path, list) else [path])]
    if not all(isinstance(name, str) for name in names):
        raise BrokenLine("categories are no lists of text")
    return names
