"""Any CSV or TSV with a header, by a map of its columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from recbole_gr.data.raw.cells import id_cell, number, price_cell, seconds, text_cell
from recbole_gr.data.raw.lines import BrokenLine
from recbole_gr.data.raw.reader import Reader
from recbole_gr.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from recbole_gr.data.raw.lines import LineFile
    from recbole_gr.data.raw.reader import Entities, Entity, Interactions, OpenFile, RawInteraction

Cells = TypeVar("Cells")  # what a row is parsed to

FIELDS = ("user_id", "item_id", "rating", "timestamp")
_TYPES = ("token", "token_seq", "float")
_SEQUENCES = ("title", "categories", "genres", "description", "text")


class Table(Reader):
    """Reader of a file of interactions and, where there is one, a file of items.

    Args:
        open_file (Callable): from a path to a `LineFile`.
        interactions (str): the file; its separator is a tab where the header has one, else a comma.
        columns (str): `user_id:uid,item_id:sku,timestamp:ts,rating:stars`, the last two optional.
        items (str | None): the file of items.
        item_columns (str | None): `item_id:sku,title:name,colour:col:token`, with a type where the
            field is no text; None takes all columns of the file under their own names.

    Raises:
        ConfigError: a map is malformed or names a column that is not there.
    """

    def __init__(
        self,
        open_file: OpenFile,
        interactions: str,
        columns: str,
        items: str | None = None,
        item_columns: str | None = None,
    ) -> None:
        self._open, self._interactions, self._items = open_file, interactions, items or ""
        wanted = _parse_map(columns, "columns")
        unknown = [field for field in wanted if field not in FIELDS]
        if unknown:
            raise ConfigError(
                f"--columns: no field {unknown[0]!r}{did_you_mean(unknown[0], FIELDS)}; the fields "
                f"are {list(FIELDS)}"
            )
        header = self._header(interactions)
        self._places = _places(wanted, header, interactions, "columns")
        if "user_id" not in self._places:
            raise ConfigError("--columns must name the column of user_id, as in user_id:uid")
        self._width = len(header)
        self.fields = tuple(field for field in FIELDS if field in self._places)
        self.item_columns = {}
        if items:
            self._plan_items(wanted["item_id"][0], item_columns)

    def _plan_items(self, id_column: str, item_columns: str | None) -> None:
        header = self._header(self._items)
        if item_columns:
            wanted = _parse_map(item_columns, "item_columns")
        else:
            wanted = {"item_id": (id_column, None)}
            rest = [name for name in header if name and name not in (id_column, "item_id")]
            wanted |= {name.replace(":", "_").replace(" ", "_"): (name, None) for name in rest}
        self._item_places = _places(wanted, header, self._items, "item_columns")
        self._item_width = len(header)
        for field, (_, kind) in wanted.items():
            default = "token_seq" if field in _SEQUENCES else "token"
            self.item_columns[field] = kind or ("float" if field == "price" else default)
        del self.item_columns["item_id"]

    def _header(self, path: str) -> list[str]:
        file = self._open(path)
        file.progress = False  # one line is read
        rows = file.rows(self._separator(path))
        cells = next(rows, (0, []))[1]
        rows.close()
        if file.undecoded in file.reasons:  # the line after it would be taken for the header
            raise ConfigError(
                f"{path}: the header is {file.undecoded}; save the file as UTF-8, for example by "
                "iconv -f LATIN1 -t UTF-8"
            )
        return [cell.strip() for cell in cells]

    def _separator(self, path: str) -> str:
        file = self._open(path)
        file.progress = False
        lines = file.lines()
        first = next(lines, (0, ""))[1]
        lines.close()
        return "\t" if "\t" in first else ","

    def _rows(
        self, path: str, width: int, function: Callable[[list[str]], Cells]
    ) -> tuple[LineFile, Iterator[tuple[int, Callable[[], Cells]]]]:
        file = self._open(path)
        rows = file.rows(self._separator(path))
        next(rows, None)

        def checked(cells: list[str]) -> Cells:
            if len(cells) != width:
                raise BrokenLine(f"not {width} cells as in the header")
            return function(cells)

        return file, ((n, partial(checked, cells)) for n, cells in rows)

    def interactions(self) -> Interactions:
        """The file, and (line, function to user, item, rating, time) of each; 0 where not given."""
        return self._rows(self._interactions, self._width, self._interaction)

    def items(self, kept: Collection[str]) -> Entities:
        """The file of items, and (line, function to item id and cells) of each."""
        return self._rows(self._items, self._item_width, self._item)

    def _interaction(self, cells: list[str]) -> RawInteraction:
        at = self._places
        return (
            id_cell(cells[at["user_id"]], "user_id"),
            id_cell(cells[at["item_id"]], "item_id"),
            number(cells[at["rating"]], "rating") if "rating" in at else 0.0,
            seconds(cells[at["timestamp"]], "timestamp") if "timestamp" in at else 0.0,
        )

    def _item(self, cells: list[str]) -> Entity:
        found = {}
        for field, kind in self.item_columns.items():
            raw = cells[self._item_places[field]]
            found[field] = price_cell(raw) if kind == "float" else text_cell(raw, field)
        return id_cell(cells[self._item_places["item_id"]], "item_id"), found


def _parse_map(text: str, key: str) -> dict[str, tuple[str, str | None]]:
    """`field:column[:type],...` as {field: (column, type or None)}."""
    found = {}
    for part in str(text or "").split(","):
        pieces = [piece.strip() for piece in part.split(":")]
        if len(pieces) not in (2, 3) or not all(pieces) or pieces[0] in found:
            raise ConfigError(
                f"--{key}: {part!r} is not of the form field:column, each field once, as in "
                "user_id:uid,item_id:sku"
            )
        kind = pieces[2] if len(pieces) == 3 else None
        if kind not in (None, *_TYPES):
            raise ConfigError(f"--{key}: {kind!r} is no type{did_you_mean(kind, _TYPES)}; the "
                              f"types are {list(_TYPES)}")  # fmt: skip
        found[pieces[0]] = (pieces[1], kind)
    if "item_id" not in found:
        raise ConfigError(f"--{key} must name the column of item_id, as in item_id:sku")
    return found


def _places(
    wanted: dict[str, tuple[str, str | None]], header: list[str], path: str, key: str
) -> dict[str, int]:
    places = {}
    for field, (column, _) in wanted.items():
        if column not in header:
            raise ConfigError(
                f"--{key}: {path} has no column {column!r}{did_you_mean(column, header)}; its "
                f"columns are {header}"
            )
        places[field] = header.index(column)
    return places
