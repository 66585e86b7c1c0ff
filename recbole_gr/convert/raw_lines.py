"""Lines of plain, gzipped and zipped files in bounded memory, and a count of the broken ones."""

from __future__ import annotations

import codecs
import contextlib
import csv
import lzma
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from logging import getLogger
from pathlib import Path
from typing import IO, Any

from recbole_gr.errors import ConfigError
from recbole_gr.storage.text_files import UTF16_REMEDY, is_utf16
from recbole_gr.terminal.bars import Bar

CHUNK = 1 << 20  # bytes held at a time
MAX_LINE = 1 << 24  # a longer line means that this is no text file
EARLY = 1000  # lines after which a file that is mostly broken is given up
SHOWN = 10  # reasons named in a message
NOT_WHOLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
LOCKED = (RuntimeError, NotImplementedError)  # zipfile's, of a password or a rare compression


class BrokenLine(ValueError):
    """A line that cannot be used; the text is the reason, free of what varies from line to line."""


class LineFile:
    """The lines of one raw file, and what was wrong with those that could not be used.

    Gzip is told by its first bytes, not by the name. At most about `MAX_LINE` bytes are held.

    Args:
        path (str | os.PathLike): the file, or the zip that holds it.
        member (str | None): the file inside a zip.
        encoding (str): of the text.
        max_broken (float): share of broken lines above which reading ends in an error.
        allow_truncated (bool): take a gzip file that ends too early as far as it goes.
        progress (bool): show a bar of the bytes read.

    Attributes:
        name (str): for messages.
        n_lines, n_broken (int): lines read so far, and how many of them were broken.
        reasons (collections.Counter): broken lines by reason.
        undecoded (str): the reason of lines in another encoding.
        quiet (bool): do not warn of a file that is cut, as another reading of it does.
        remedy (str): what helps against these, beside converting the file.
        unread (collections.Counter): cells that are left empty since they could not be read, by
            reason; their lines are used.
    """

    def __init__(
        self,
        path: str | Path,
        member: str | None = None,
        encoding: str = "utf-8",
        max_broken: float = 0.01,
        allow_truncated: bool = False,
        progress: bool = True,
    ) -> None:
        self.path, self.member, self.encoding = Path(path), member, encoding
        self.name = str(path) if member is None else f"{path}: {member}"
        self.undecoded = f"not {encoding}"
        self.max_broken, self.allow_truncated = max_broken, allow_truncated
        self.progress, self.quiet = progress, False
        self.n_lines = self.n_broken = 0
        self._span = 1  # a stray quote in CSV can swallow lines, which must not go uncounted
        self.remedy = ""
        self.reasons: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        # Such as UTF-16, in which a line does not end in the byte of a line end.
        self._wide = "\n".encode(encoding) != b"\n"

    def lines(self) -> Generator[tuple[int, str], None, None]:
        """Yield (line number from 1, text without line end); undecodable lines are counted broken.

        Raises:
            ConfigError: the file cannot be opened, is cut or damaged, is no text file or UTF-16, or
                has too many broken lines.
        """
        rest = b""
        for chunk in self._as_utf8() if self._wide else self._chunks():
            if self.n_lines == 0 and not rest and not self._wide and is_utf16(chunk):
                raise ConfigError(f"{self.name} cannot be read: {UTF16_REMEDY}")
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield from self._decoded(line)
            if len(rest) > MAX_LINE:
                raise ConfigError(
                    f"{self.name}: no line end in {MAX_LINE} bytes after line {self.n_lines}; "
                    "is this a text file?"
                )
        if rest:
            yield from self._decoded(rest)
        self._check_share()

    def rows(self, separator: str = ",") -> Generator[tuple[int, list[str]], None, None]:
        """Yield (line number, cells) of CSV with RFC 4180 quotes; the number is that of its end."""

        def texts() -> Iterator[str]:
            for number, text in self.lines():
                self._row_line = number
                yield text + "\n"

        reader = csv.reader(texts(), delimiter=separator)
        while True:
            before = reader.line_num
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._span = reader.line_num - before
                self.broken(self._row_line, f"not CSV ({error})")
                continue
            if cells:
                self._span = reader.line_num - before
                yield self._row_line, cells

    def beginning(self) -> bytes:
        """The first bytes, as they are in a file that is not compressed."""
        chunks = self._chunks()
        found = next(chunks, b"")
        chunks.close()
        return found

    def leave_empty(self, reason: BrokenLine | str) -> None:
        """Count a cell of the present line that cannot be read and is left empty."""
        self.unread[str(reason)] += 1
        self._first.setdefault(str(reason), self.n_lines)

    def broken(self, number: int, reason: BrokenLine | str) -> None:
        """Count what ends in this line as broken: all lines of a row of CSV, else the line."""
        self._count_broken(number, str(reason), self._span)

    def _count_broken(self, number: int, reason: str, n_lines: int) -> None:
        self.n_broken += n_lines
        self.reasons[reason] += n_lines
        self._first.setdefault(reason, number - n_lines + 1)
        if self.n_lines >= EARLY and self.n_broken > max(self.max_broken, 0.5) * self.n_lines:
            self._check_share()

    def summary(self) -> str:
        """Count, reasons and first line numbers of the broken lines in one sentence, or ""."""
        if not self.n_broken:
            return ""
        share = self.n_broken / max(self.n_lines, 1)
        return (
            f"{self.name}: {self.n_broken} of {self.n_lines} lines ({share:.2%}) are broken: "
            + self._listed(self.reasons)
        )

    def summary_of_cells(self) -> str:
        """Count, reasons and first line numbers of the cells left empty in one sentence, or ""."""
        if not self.unread:
            return ""
        n = self.unread.total()
        cells = "1 cell" if n == 1 else f"{n} cells"
        return f"{self.name}: {cells} cannot be read: {self._listed(self.unread)}"

    def _listed(self, reasons: Counter[str]) -> str:
        parts = [
            f"{reason} ({count}, first in line {self._first[reason]})"
            for reason, count in reasons.most_common(SHOWN)
        ]
        if len(reasons) > SHOWN:
            parts.append(f"{len(reasons) - SHOWN} more reasons")
        return "; ".join(parts)

    def _check_share(self) -> None:
        if self.n_broken > self.max_broken * self.n_lines:
            remedy = "is this the right file for --format? A higher --max_broken skips them"
            if self.undecoded in self.reasons:
                remedy += ". Text of another encoding can be converted: iconv -f LATIN1 -t UTF-8"
                remedy += f", or {self.remedy}" if self.remedy else ""
            raise ConfigError(
                f"{self.summary()}. That is more than max_broken={self.max_broken}; {remedy}"
            )

    def _decoded(self, line: bytes) -> Iterator[tuple[int, str]]:
        self.n_lines += 1
        if self.n_lines == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.rstrip(b"\r").decode("utf-8" if self._wide else self.encoding)
        except UnicodeDecodeError:
            self._count_broken(self.n_lines, self.undecoded, 1)
            return
        if text.strip():
            yield self.n_lines, text

    def _as_utf8(self) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            for chunk in self._chunks():
                yield decoder.decode(chunk).encode()
            yield decoder.decode(b"", True).encode()
        except UnicodeError as error:
            raise ConfigError(
                f"{self.name}, after line {self.n_lines}: not {self.encoding} text ({error})"
            ) from error

    def _chunks(self) -> Generator[bytes, None, None]:
        try:
            with (
                self._open() as (file, size),
                Bar(
                    total=size,
                    unit="B",
                    unit_scale=True,
                    desc=Path(self.member or self.path).name,
                    disable=not self.progress,
                ) as bar,
            ):
                yield from self._decompressed(_counted(file, bar))
        except NOT_WHOLE as error:
            raise ConfigError(
                f"{self.name} is not a whole zip file ({error}); download it again"
            ) from error
        except LOCKED as error:
            raise ConfigError(
                f"{self.name} cannot be unpacked ({error}); unpack it yourself and give the folder"
            ) from error
        except OSError as error:
            raise ConfigError(f"{self.name} cannot be read: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], int]]:
        if self.member is None:
            with open(self.path, "rb") as file:
                yield file, os.path.getsize(self.path)
        else:
            with zipfile.ZipFile(self.path) as archive:
                with archive.open(self.member) as file:
                    yield file, archive.getinfo(self.member).file_size

    def _decompressed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        first = next(chunks, b"")
        if first[:4] == b"PK\x03\x04":
            raise ConfigError(f"{self.name} is a zip file; unpack it and give the file inside")
        if first[:2] != b"\x1f\x8b":
            yield first
            yield from chunks
            return
        stream: Any = zlib.decompressobj(31)  # zlib keeps the name of its class to itself
        data = first
        while True:
            try:
                while data:
                    yield stream.decompress(data, CHUNK)
                    data = stream.unconsumed_tail
                    if stream.eof:  # files may be several gzip streams one after the other
                        data = stream.unused_data.lstrip(b"\0")
                        stream = zlib.decompressobj(31) if data else None
            except zlib.error as error:
                self._cut(f"is damaged: its gzip stream has an error ({error})")
                return
            data = next(chunks, b"")
            if not data:
                break
            stream = stream or zlib.decompressobj(31)
        if stream is not None:
            yield stream.flush()
            self._cut("is truncated: it ends in the middle of its gzip stream")

    def _cut(self, what: str) -> None:
        message = f"{self.name} {what}, after line {self.n_lines}"
        if not self.allow_truncated:
            raise ConfigError(
                f"{message}; download it again, or take what is there by --allow_truncated=True"
            )
        if not self.quiet:
            getLogger().warning("%s; only what comes before is used", message)


def _counted(file: IO[bytes], bar: Bar) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        bar.update(len(chunk))
        yield chunk
