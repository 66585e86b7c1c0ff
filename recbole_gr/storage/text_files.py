"""Text files that users write: UTF-8, with any line ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from recbole_gr.errors import ConfigError

UTF16_REMEDY = "it is UTF-16; save it as UTF-8, for example by iconv -f UTF-16 -t UTF-8"


def read_text(path: str | os.PathLike[str], name: str) -> str:
    """Text of a file that a user wrote: UTF-8, with or without a byte order mark, any line ends.

    Args:
        path (str | os.PathLike): the file; "-" is standard input.
        name (str): what it is, for messages, such as `--users_file=users.txt`.

    Raises:
        ConfigError: no such file, or text of another encoding.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror or error}") from error
    return decoded(data, name).replace("\r\n", "\n").replace("\r", "\n")


def decoded(data: bytes, name: str) -> str:
    """Bytes as the UTF-8 text that they are, without its byte order mark.

    Raises:
        ConfigError: another encoding; names `name`, the line, and how to convert it.
    """
    if is_utf16(data):
        raise ConfigError(f"{name} cannot be read: {UTF16_REMEDY}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{name} cannot be read: it is not UTF-8 (byte 0x{data[error.start]:02x} in line "
            f"{line}); save it as UTF-8, for example by iconv -f LATIN1 -t UTF-8"
        ) from error


def is_utf16(data: bytes) -> bool:
    """Whether a text begins as UTF-16 or UTF-32, with a byte order mark or a zero in each of its
    first two characters."""
    marked = data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[:4] == b"\0\0\xfe\xff"
    return marked or data[1:4:2] == b"\0\0" or data[0:3:2] == b"\0\0"
