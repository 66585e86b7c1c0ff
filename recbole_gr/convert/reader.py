"""Base class of the readers of raw files: lines of interactions and of entities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

from recbole_gr.convert.raw_lines import LineFile

#: User, item, rating and Unix seconds.
RawInteraction: TypeAlias = tuple[str, str, float, float]
#: Id of an item or a user, and its cells by field.
Entity: TypeAlias = tuple[str, dict[str, str]]
#: A file, and the number of each line with a function that parses it (or raises BrokenLine).
Interactions: TypeAlias = tuple[LineFile, Iterator[tuple[int, Callable[[], RawInteraction]]]]
Entities: TypeAlias = tuple[LineFile, Iterator[tuple[int, Callable[[], Entity]]]]


class OpenFile(Protocol):
    """Opens a raw file, or a member of a zip file, with the options of a conversion."""

    def __call__(
        self, path: str | Path, member: str | None = None, encoding: str = "utf-8"
    ) -> LineFile: ...


class Reader:
    """Reader of one source of raw files.

    Attributes:
        fields: fields of an interaction that the source gives, in order.
        files: the raw files, where the options do not name each.
        item_columns, user_columns: atomic types by field; empty where the source has no such lines.
    """

    fields: tuple[str, ...]
    files: list[Path] = []
    item_columns: dict[str, str]
    user_columns: dict[str, str] = {}

    def interactions(self) -> Interactions:
        """The file of interactions, and (line, function to user, item, rating, time) of each."""
        raise NotImplementedError

    def items(self, kept: Collection[str]) -> Entities:
        """The file of items, and (line, function to item id and cells) of each.

        Args:
            kept: ids of the interactions; lines of others may be left out.
        """
        raise NotImplementedError

    def users(self, kept: Collection[str]) -> Entities:
        """As `items`, of users."""
        raise NotImplementedError
