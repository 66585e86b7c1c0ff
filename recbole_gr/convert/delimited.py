"""Any CSV or TSV with a header, by a map of its columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Protocol, TypeVar

from recbole_gr.convert.amounts import NO_AMOUNT, AmountColumn
from recbole_gr.convert.cells import MISSING, float_cell, id_cell, text_cell
from recbole_gr.convert.dates import TimeColumn
from recbole_gr.convert.dialect import check_delimiter, delimiter_of, wide_encoding
from recbole_gr.convert.raw_lines import BrokenLine
from recbole_gr.convert.reader import Reader
from recbole_gr.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from recbole_gr.convert.raw_lines import LineFile
    from recbole_gr.convert.reader import Entities, Entity, Interactions, OpenFile, RawInteraction

Cells = TypeVar("Cells")  # what a row is parsed to

FIELDS = ("user_id", "item_id", "rating", "timestamp")
_TYPES = ("token", "token_seq", "float")
_SEQUENCES = ("title", "categories", "genres", "description", "text")
_EMPTY = MISSING | NO_AMOUNT  # cells of numbers that say that there is none


class Column(Protocol):
    """A column whose cells decide together how they are read."""

    def see(self, text: str, line: int) -> object: ...

    def settle(self, file: str) -> str: ...


class Table(Reader):
    """Reader of a file of interactions and, where there is one, a file of items.

    Encoding and delimiter are recognised by the beginning of each file, the decimal mark of a
    column of numbers and the order of day and month by all of its cells, for which a file is read
    once more. What was found is logged; what cannot be told is an error that names the option.

    Args:
        open_file (Callable): from a path to a `LineFile`.
        interactions (str): the file.
        columns (str): `user_id:uid,item_id:sku,timestamp:ts,rating:stars`, the last two optional.
        items (str | None): the file of items.
        item_columns (str | None): `item_id:sku,title:name,colour:col:token`, with a type where the
            field is no text; None takes all columns of the file under their own names.
        delimiter, encoding (str | None): of both files.
        date_format (str | None): of the times, see `dates.check_date_format`.
        decimal (str | None): `.` or `,`, for columns of numbers that do not tell.

    Raises:
        ConfigError: a map is malformed or names a column that is not there, or the delimiter cannot
            be told.
    """

    def __init__(
        self,
        open_file: OpenFile,
        interactions: str,
        columns: str,
        items: str | None = None,
        item_columns: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        date_format: str | None = None,
        decimal: str | None = None,
    ) -> None:
        self._open_file, self._interactions, self._items = open_file, interactions, items or ""
        self._encoding, self._date_format, self._decimal = encoding, date_format, decimal
        self._encodings: dict[str, str] = {}
        self._delimiters: dict[str, str] = {}
        self._given_delimiter = check_delimiter(delimiter) if delimiter else None
        wanted = _parse_map(columns, "columns")
        unknown = [field for field in wanted if field not in FIELDS]
        if unknown:
            raise ConfigError(
                f"--columns: no field {unknown[0]!r}{did_you_mean(unknown[0], FIELDS)}; the fields "
                f"are {list(FIELDS)}"
            )
        header = self._header(interactions, [column for column, _ in wanted.values()])
        mark = self._delimiters[interactions]
        self._places = _places(wanted, header, mark, interactions, "columns")
        if "user_id" not in self._places:
            raise ConfigError("--columns must name the column of user_id, as in user_id:uid")
        self._width = len(header)
        self.fields = tuple(field for field in FIELDS if field in self._places)
        self.item_columns = {}
        if items:
            self._plan_items(wanted["item_id"][0], item_columns)

    def _plan_items(self, id_column: str, item_columns: str | None) -> None:
        if item_columns:
            wanted = _parse_map(item_columns, "item_columns")
            header = self._header(self._items, [column for column, _ in wanted.values()])
        else:
            header = self._header(self._items, [id_column])
            wanted = {"item_id": (id_column, None)}
            rest = [name for name in header if name and name not in (id_column, "item_id")]
            wanted |= {name.replace(":", "_").replace(" ", "_"): (name, None) for name in rest}
        mark = self._delimiters[self._items]
        self._item_places = _places(wanted, header, mark, self._items, "item_columns")
        self._item_width = len(header)
        for field, (_, kind) in wanted.items():
            default = "token_seq" if field in _SEQUENCES else "token"
            self.item_columns[field] = kind or ("float" if field == "price" else default)
        del self.item_columns["item_id"]

    def _open(self, path: str, progress: bool = True) -> LineFile:
        if path not in self._encodings:
            first = self._open_file(path)
            first.progress = False
            found = self._encoding or wide_encoding(first.beginning())
            if found and not self._encoding:
                getLogger().info("%s: %s", path, found)
            self._encodings[path] = found or "utf-8"
        file = self._open_file(path, None, self._encodings[path])
        file.progress = file.progress and progress
        file.remedy = "its encoding be given as --encoding=cp1252, for example"
        return file

    def _header(self, path: str, wanted: Collection[str]) -> list[str]:
        delimiter = self._given_delimiter or delimiter_of(self._open(path, False), wanted)
        self._delimiters[path] = delimiter
        file = self._open(path, False)  # one line is read
        rows = file.rows(delimiter)
        cells = next(rows, (0, []))[1]
        rows.close()
        if file.undecoded in file.reasons:  # the line after it would be taken for the header
            raise ConfigError(
                f"{path}: the header is {file.undecoded}; save the file as UTF-8, for example by "
                "iconv -f LATIN1 -t UTF-8, or give its encoding, such as --encoding=cp1252"
            )
        if not self._given_delimiter:
            getLogger().info("%s: cells are separated by %r", path, delimiter)
        return [cell.strip() for cell in cells]

    def _rows(
        self, path: str, width: int, function: Callable[[LineFile, list[str]], Cells]
    ) -> tuple[LineFile, Iterator[tuple[int, Callable[[], Cells]]]]:
        file = self._open(path)
        rows = file.rows(self._delimiters[path])
        next(rows, None)

        def checked(cells: list[str]) -> Cells:
            if len(cells) != width:
                raise BrokenLine(f"not {width} cells as in the header")
            return function(file, cells)

        return file, ((n, partial(checked, cells)) for n, cells in rows)

    def _settle(self, path: str, width: int, columns: dict[int, Column]) -> None:
        """Let columns see all of their cells, by place, and decide how they are read."""
        if not columns:
            return
        file = self._open(path)
        file.max_broken, file.quiet = 1.0, True  # it is read again, and judged then
        rows = file.rows(self._delimiters[path])
        next(rows, None)
        for line, cells in rows:
            if len(cells) == width:
                for place, column in columns.items():
                    column.see(cells[place], line)
        found = [column.settle(path) for column in columns.values()]
        if any(found):
            getLogger().info("%s: %s", path, "; ".join(filter(None, found)))

    def interactions(self) -> Interactions:
        """The file, and (line, function to user, item, rating, time) of each; 0 where not given."""
        rating = AmountColumn("rating", self._decimal)
        time = TimeColumn("timestamp", self._date_format, self._decimal)
        by_field: dict[str, Column] = {"rating": rating, "timestamp": time}
        at = self._places
        columns = {at[field]: column for field, column in by_field.items() if field in at}
        self._settle(self._interactions, self._width, columns)

        def interaction(_: LineFile, cells: list[str]) -> RawInteraction:
            return (
                id_cell(cells[at["user_id"]], "user_id"),
                id_cell(cells[at["item_id"]], "item_id"),
                rating.read(cells[at["rating"]]) if "rating" in at else 0.0,
                time.read(cells[at["timestamp"]]) if "timestamp" in at else 0.0,
            )

        return self._rows(self._interactions, self._width, interaction)

    def items(self, kept: Collection[str]) -> Entities:
        """The file of items, and (line, function to item id and cells) of each.

        A number that cannot be read is counted and left empty: the rest of its line is of use.
        """
        fields = [field for field, kind in self.item_columns.items() if kind == "float"]
        numbers = {field: AmountColumn(field, self._decimal, priced=True) for field in fields}
        places = self._item_places
        columns: dict[int, Column] = {places[name]: column for name, column in numbers.items()}
        self._settle(self._items, self._item_width, columns)

        def item(file: LineFile, cells: list[str]) -> Entity:
            raw = {field: cells[places[field]] for field in self.item_columns}
            found = {field: text_cell(raw[field], field) for field in raw if field not in numbers}
            found |= {field: _number(file, numbers[field], raw[field]) for field in numbers}
            return id_cell(cells[places["item_id"]], "item_id"), found

        return self._rows(self._items, self._item_width, item)


def _number(file: LineFile, column: AmountColumn, raw: str) -> str:
    if raw.strip() in _EMPTY:
        return ""
    try:
        return float_cell(column.read(raw))
    except BrokenLine as reason:
        file.leave_empty(reason)
        return ""


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
    wanted: dict[str, tuple[str, str | None]], header: list[str], mark: str, path: str, key: str
) -> dict[str, int]:
    places = {}
    for field, (column, _) in wanted.items():
        if column not in header:
            raise ConfigError(
                f"--{key}: {path} has no column {column!r}{did_you_mean(column, header)}; its "
                f"columns are {header}, separated by {mark!r} (--delimiter gives another mark)"
            )
        places[field] = header.index(column)
    return places
