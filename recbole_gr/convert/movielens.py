"""MovieLens (Harper and Konstan 2015), as its zip or as the unpacked folder."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Collection, Iterator
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.convert.cells import id_cell, number, text_cell, tokens_cell
from recbole_gr.convert.raw_lines import LOCKED, NOT_WHOLE, BrokenLine
from recbole_gr.convert.reader import Reader
from recbole_gr.errors import ConfigError

if TYPE_CHECKING:
    from recbole_gr.convert.raw_lines import LineFile
    from recbole_gr.convert.reader import Entities, Entity, Interactions, OpenFile, RawInteraction

# Published by GroupLens beside the files.
MD5 = {
    "ml-100k.zip": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m.zip": "c4d9eecfca2ab87c1945afe126590906",
}
# The flags of u.item, in their order (u.genre).
GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
_TITLE = re.compile(r"(.*?)\s*\((\d{4})\)\s*")
# Ratings, movies, users, separators of ratings, movies and users, encoding.
_LAYOUTS = (
    ("u.data", "u.item", "u.user", "\t", "|", "latin-1"),
    ("ratings.dat", "movies.dat", "users.dat", "::", "::", "latin-1"),  # 1M; 10M is UTF-8
    ("ratings.csv", "movies.csv", None, ",", ",", "utf-8"),
)
_USER_KEYS = {
    "u.user": ("age", "gender", "occupation", "zip_code"),
    "users.dat": ("gender", "age", "occupation", "zip_code"),
}


class MovieLens(Reader):
    """Reader of ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m and ml-latest.

    Args:
        open_file (Callable): from path, member and encoding to a `LineFile`.
        archive (str): zip or folder.

    Raises:
        ConfigError: it is neither, or has no ratings.
    """

    fields = ("user_id", "item_id", "rating", "timestamp")

    def __init__(self, open_file: OpenFile, archive: str) -> None:
        self._open, self._archive = open_file, Path(archive)
        members = self._members()
        layout = next((layout for layout in _LAYOUTS if layout[0] in members), None)
        if layout is None:
            raise ConfigError(
                f"{archive} has none of {[layout[0] for layout in _LAYOUTS]}; give a MovieLens zip "
                "or the folder it was unpacked to as --archive"
            )
        ratings, movies, users, separator, other, encoding = layout
        if ratings == "ratings.dat" and users not in members:
            encoding = "utf-8"
        self._members_by_name, self._encoding = members, encoding
        self._ratings, self._movies, self._users = ratings, movies, users or ""
        self._separator, self._other = separator, other
        #: The files that are read.
        self.files = [self._archive]
        if self._archive.is_dir():
            self.files = [members[name] for name in layout[:3] if name in members]
        self.item_columns = self.user_columns = {}
        if movies in members:
            self.item_columns = {
                "title": "token_seq", "genres": "token_seq", "release_year": "token"
            }  # fmt: skip
        if users and users in members:
            self.user_columns = dict.fromkeys(_USER_KEYS[users], "token")

    def _members(self) -> dict[str, Any]:
        if self._archive.is_dir():
            files = [path for path in sorted(self._archive.rglob("*")) if path.is_file()]
            return {path.name: path for path in reversed(files)}
        try:
            with zipfile.ZipFile(self._archive) as archive:
                names = archive.namelist()
        except (*NOT_WHOLE, *LOCKED) as error:
            raise ConfigError(
                f"{self._archive} is not a whole zip file ({error}); download it again"
            ) from error
        _check_md5(self._archive)
        return {Path(name).name: name for name in reversed(names) if not name.endswith("/")}

    def _rows(self, name: str, separator: str) -> tuple[LineFile, Iterator[tuple[int, list[str]]]]:
        member = self._members_by_name[name]
        if self._archive.is_dir():
            file = self._open(member, None, self._encoding)
        else:
            file = self._open(self._archive, member, self._encoding)
        if separator == ",":
            rows = file.rows()
            next(rows, None)  # the header
        else:
            rows = ((n, text.split(separator)) for n, text in file.lines())
        return file, rows

    def interactions(self) -> Interactions:
        """The file of ratings, and (line, function to user, item, rating, time) of each."""
        file, rows = self._rows(self._ratings, self._separator)
        return file, ((n, partial(_rating, cells)) for n, cells in rows)

    def items(self, kept: Collection[str]) -> Entities:
        """The file of movies, and (line, function to item id and cells) of each."""
        file, rows = self._rows(self._movies, self._other)
        return file, ((n, partial(self._movie, cells)) for n, cells in rows)

    def users(self, kept: Collection[str]) -> Entities:
        """The file of users, and (line, function to user id and cells) of each."""
        file, rows = self._rows(self._users, self._other)
        return file, ((n, partial(self._user, cells)) for n, cells in rows)

    def _movie(self, cells: list[str]) -> Entity:
        if self._movies == "u.item":
            _expect(cells, 5 + len(GENRES))
            genres = [name for name, flag in zip(GENRES, cells[5:]) if flag.strip() == "1"]
        else:
            _expect(cells, 3)
            genres = cells[2].split("|") if cells[2] != "(no genres listed)" else []
        found = _TITLE.fullmatch(cells[1])
        title, year = found.groups() if found else (cells[1], "")
        return id_cell(cells[0], "movie id"), {
            "title": text_cell(title, "title"),
            "genres": tokens_cell(genres),
            "release_year": year,
        }

    def _user(self, cells: list[str]) -> Entity:
        keys = _USER_KEYS[self._users]
        _expect(cells, 1 + len(keys))
        values = {key: text_cell(value, key) for key, value in zip(keys, cells[1:])}
        return id_cell(cells[0], "user id"), values


def _expect(cells: list[str], n: int) -> None:
    if len(cells) != n:
        raise BrokenLine(f"not {n} cells")


def _rating(cells: list[str]) -> RawInteraction:
    _expect(cells, 4)
    return (
        id_cell(cells[0], "user id"),
        id_cell(cells[1], "movie id"),
        number(cells[2], "rating"),
        number(cells[3], "timestamp"),
    )


def _check_md5(path: Path) -> None:
    if path.name not in MD5:
        return
    with open(path, "rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != MD5[path.name]:
        getLogger().warning(
            "%s has the md5 %s, GroupLens publishes %s: it is another version or damaged",
            path, digest.hexdigest(), MD5[path.name],
        )  # fmt: skip
