"""The lines of the log that reach the terminal; the log file of a run keeps all of them.

By default these are the few that are marked for it (:func:`say`), warnings and errors. RecBole's
own lines, the settings among them, are for the file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.terminal.arguments import joined
from recbole_gr.terminal.bars import Bar, is_terminal, want

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m"}
_ESCAPES = re.compile(r"\x1B(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")


def say(message: str, *args: Any) -> None:
    """Log a line that the terminal shows as well, unless it shall be quiet."""
    logging.getLogger().info(message, *args, extra=brief(), stacklevel=2)


def brief(text: str | None = None) -> dict[str, Any]:
    """The `extra` of a record that the terminal shows, as `text` where that is given."""
    return {"terminal": text or True}


class _Printed(io.TextIOBase):
    """A standard output whose lines come into the log."""

    _begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            logging.getLogger().info("%s", line)
        return len(text)


def prints_to_log() -> contextlib.AbstractContextManager[Any]:
    """Inside the block what is printed is logged: some of RecBole's models print as they are made,
    and standard output is for what comes out."""
    return contextlib.redirect_stdout(_Printed())


class Terminal(logging.Handler):
    """Writes records to standard error, around a bar that may be there.

    `DEBUG` shows all of them, `INFO` those that are marked by :func:`say` or :func:`brief`,
    warnings and errors, `WARNING` warnings and errors, and `ERROR` errors alone.
    """

    of_a_run = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the terminal shows a record."""
        marked = record.levelno >= logging.WARNING or getattr(record, "terminal", None)
        return bool(marked or self.level <= logging.DEBUG) and bool(super().filter(record))

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record, with its level before it where that is a warning or an error."""
        shown, text = getattr(record, "terminal", None), super().format(record)
        if isinstance(shown, str) and self.level > logging.DEBUG:
            text = shown
        if not is_terminal():
            text = _ESCAPES.sub("", text)
        if record.levelno < logging.WARNING:
            return text
        level = min(record.levelno, logging.ERROR)
        name = logging.getLevelName(record.levelno).lower()
        if is_terminal() and not os.environ.get("NO_COLOR"):
            name = f"{_COLOURS.get(level, '')}{name}\033[0m"
        return f"{name}: {text}"

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            stream = sys.stderr  # looked up now: it may have been replaced
            with Bar.external_write_mode(file=stream):
                stream.write(self.format(record) + "\n")
                stream.flush()
        except Exception:
            self.handleError(record)


_terminal = Terminal()
_without_logs = False


def show(level: str | int, of_file: int = logging.CRITICAL) -> None:
    """Let the terminal show the log from now on; nothing where the application has handlers.

    Args:
        level (str | int): one of `LEVELS`.
        of_file (int): the level of a log file beside it.
    """
    root = logging.getLogger()
    if has_others(root):
        return
    _terminal.setLevel(level)
    want(_terminal.level <= logging.INFO)
    root.setLevel(min(_terminal.level, of_file))
    if _terminal not in root.handlers:
        root.addHandler(_terminal)


def hide() -> None:
    """Take the terminal's handler away, if it is there."""
    logging.getLogger().removeHandler(_terminal)


def has_others(root: logging.Logger) -> bool:
    """Whether a logger has handlers of the application, beside those of a run."""
    return any(not getattr(handler, "of_a_run", False) for handler in root.handlers)


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Runs inside the block leave neither logs nor event files behind."""
    global _without_logs
    before, _without_logs = _without_logs, True
    try:
        yield
    finally:
        _without_logs = before


def logs_are_kept() -> bool:
    """False inside of `without_logs`."""
    return not _without_logs


def level_of(config: Mapping[str, Any]) -> str:
    """What the terminal shows by a configuration: `log_level`, or else RecBole's `state`."""
    return str(config["log_level"] or config["state"] or "INFO").upper()


def _check(key: str, value: Any, known: Iterable[str]) -> None:
    if value is not None and str(value).upper() not in known:
        raise ConfigError(
            f"{key}: {value!r} is not one of {', '.join(known)}{did_you_mean(value, known)}"
        )


def with_level(arguments: Iterable[str]) -> tuple[list[str], str | None]:
    """Arguments as `--key=value`, `--quiet` among them as `--log_level=WARNING`, and that level.

    Raises:
        ConfigError: no level, or two that contradict each other.
    """
    rest: list[str] = []
    levels: dict[str, str] = {}
    for argument in joined(arguments):
        if argument.lower() in ("--quiet", "--quiet=true"):
            levels["WARNING"] = argument
        elif argument.partition("=")[0] == "--quiet":
            if argument.lower() != "--quiet=false":
                raise ConfigError(f"{argument}: write --quiet, or leave it out")
        elif argument.startswith("--log_level="):
            level = argument.partition("=")[2]
            _check("log_level", level, LEVELS)
            levels[level.upper()] = argument
        else:
            rest.append(argument)
    if len(levels) > 1:
        raise ConfigError(f"{' and '.join(levels.values())}: leave one of both out")
    return rest + [f"--log_level={name}" for name in levels], next(iter(levels), None)
