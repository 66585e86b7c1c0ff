"""Dates as exports write them, and what a column of them has in common, as Unix seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

from recbole_gr.convert.amounts import AmountColumn
from recbole_gr.convert.raw_lines import BrokenLine
from recbole_gr.errors import ConfigError

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # in a second
_COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}  # by the number of digits
_TIME = (
    r"(?:(?:T|,?\s+)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})"
    r"(?:[.,](?P<fraction>\d{1,9}))?)?\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?"
)
_YEAR_FIRST = re.compile(
    r"(?P<year>\d{4})(?P<mark>[./-])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})" + _TIME, re.A
)
_YEAR_LAST = re.compile(
    r"(?P<one>\d{1,2})(?P<mark>[./-])(?P<two>\d{1,2})(?P=mark)(?P<year>\d{4})" + _TIME, re.A
)


def check_date_format(form: str) -> None:
    """See that `--date_format` is a unit or a form of `strptime` that holds a whole date.

    Raises:
        ConfigError: it is neither.
    """
    if form in UNITS:
        return
    day = datetime(2023, 12, 31, 22, 58, 59)
    try:
        found = datetime.strptime(day.strftime(form), form)
    except (ValueError, TypeError, re.error):
        found = None
    if found is None or found.date() != day.date():
        raise ConfigError(
            f"--date_format={form}: neither one of {list(UNITS)}, numbers since 1970, nor a form "
            "with day, month and year as Python's strptime has it, such as %d.%m.%Y or "
            "'%m/%d/%Y %H:%M'"
        )


class TimeColumn:
    """A column of times, whose cells decide together how they are read.

    Taken are Unix seconds, ISO 8601, `2024/01/31`, `31.01.2024` and `01/31/2024`, with or without a
    time of the day, and dates of digits alone (`20240131`) if all cells are. Where a date may have
    the day or the month first, a day above 12 anywhere in the column settles it; with points the
    day comes first. A time without a zone is UTC.

    Args:
        name (str): of the field, for messages.
        form (str | None): `--date_format`, which all cells then have.
        mark (str | None): `--decimal`, of numbers.
    """

    def __init__(self, name: str, form: str | None = None, mark: str | None = None) -> None:
        self.name, self._form = name, form
        self._numbers = AmountColumn(name, mark)
        self._digits: dict[str | None, int] = {}  # cells of digits by the date that they may be
        self._first: dict[str, tuple[str, int]] = {}  # by what a cell tells
        self._counts = {"day": 0, "month": 0}
        self._day_first = True

    def see(self, text: str, line: int) -> None:
        """Take note of a cell."""
        text = text.strip()
        if self._form is not None and self._form not in UNITS:
            return
        if text.isascii() and text.isdigit():
            form = _COMPACT.get(len(text))
            form = form if form and _strptime(text, form) is not None else None
            self._digits[form] = self._digits.get(form, 0) + 1
            self._first.setdefault("digits", (text, line))
            return
        if text[4:5] == "-":  # the year first, which tells by itself
            return
        found = _YEAR_LAST.fullmatch(text)
        if found is None:
            self._numbers.see(text, line)
            return
        days, months = ((_from_parts(found, first) is not None) for first in (True, False))
        if days and months and found["one"] != found["two"]:
            self._first.setdefault("points" if found["mark"] == "." else "either", (text, line))
        elif days != months:
            kind = "day" if days else "month"
            self._counts[kind] += 1
            self._first.setdefault(kind, (text, line))

    def settle(self, file: str) -> str:
        """Decide; cells that contradict most others will be broken.

        Returns:
            str: for the log, empty where nothing had to be decided.

        Raises:
            ConfigError: dates can be read in two ways.
        """
        if self._form is not None and self._form not in UNITS:
            return f"{self.name} as {self._form}"
        said = [self._numbers.settle(file)]
        if len(self._digits) == 1 and self._form is None:
            self._form = next(iter(self._digits))
            if self._form is not None:
                text, line = self._first["digits"]
                said.append(f"{self.name} as {self._form} ({text!r} in line {line})")
        days, months = self._counts["day"], self._counts["month"]
        self._day_first = days >= months
        if days == months and "either" in self._first:
            text, line = self._first["either"]
            mark = "/" if "/" in text else "-"
            forms = [mark.join(parts) for parts in (("%d", "%m", "%Y"), ("%m", "%d", "%Y"))]
            clock = f" (and what stands for the time, as in '{forms[0]} %H:%M')"
            raise ConfigError(
                f"{file}, line {line}: {self.name} {text!r} may have the day or the month first, "
                f"and no other cell of the column tells; give --date_format={forms[0]} or "
                f"--date_format={forms[1]}{clock if ':' in text else ''}"
            )
        order = "day" if self._day_first else "month"
        shown = self._first.get(order) or self._first.get("points")
        if shown:
            said.append(f"{self.name} with the {order} first ({shown[0]!r} in line {shown[1]})")
        return ", ".join(filter(None, said))

    def read(self, text: str) -> float:
        """Unix seconds of a cell.

        Raises:
            BrokenLine: it is no time, or none as the column has them.
        """
        text = text.strip()
        value: float | None
        if self._form is not None and self._form not in UNITS:
            if (value := _strptime(text, self._form)) is None and self._digits:
                value = _iso(text)  # beside dates of digits
            if value is None:
                raise BrokenLine(f"{self.name} is not of the form {self._form}")
            return value
        if not (text.isascii() and text.isdigit()):
            if (value := _iso(text)) is not None:
                return value
            if (found := _YEAR_LAST.fullmatch(text)) is not None:
                return self._of_column(found)
        try:
            value = self._numbers.read(text)
        except BrokenLine as reason:
            if "mark" in str(reason):
                raise
            raise BrokenLine(
                f"{self.name} is neither a finite number nor a date of a form that needs no "
                "--date_format"
            ) from None
        return value / UNITS[self._form or "s"]

    def _of_column(self, found: re.Match[str]) -> float:
        value = _from_parts(found, self._day_first)
        if value is None:
            order = "day" if self._day_first else "month"
            raise BrokenLine(f"{self.name} is no date with the {order} first, as others are")
        return value


def _seconds(date: datetime) -> float:
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()


def _guarded(convert: Callable[[], datetime]) -> float | None:
    try:
        return _seconds(convert())
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=1 << 14)  # logs have many events a day
def _strptime(text: str, form: str) -> float | None:
    return _guarded(lambda: datetime.strptime(text, form))


def _iso(text: str) -> float | None:
    value = _guarded(lambda: datetime.fromisoformat(text))
    if value is None and (found := _YEAR_FIRST.fullmatch(text)) is not None:
        value = _guarded(lambda: _date(found, int(found["month"]), int(found["day"])))
    return value


def _from_parts(found: re.Match[str], day_first: bool) -> float | None:
    one, two = int(found["one"]), int(found["two"])
    day, month = (one, two) if day_first else (two, one)
    return _guarded(lambda: _date(found, month, day))


def _date(found: re.Match[str], month: int, day: int) -> datetime:
    hour, half = int(found["hour"] or 0), (found["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        raise ValueError("no hour of half a day")
    hour = hour % 12 + 12 * half.startswith("p") if half else hour
    microsecond = int((found["fraction"] or "0").ljust(6, "0")[:6])
    minute, second = int(found["minute"] or 0), int(found["second"] or 0)
    date = datetime(int(found["year"]), month, day, hour, minute, second, microsecond)
    zone = found["zone"] or "Z"
    if zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        return date.replace(tzinfo=timezone(-shift if zone[0] == "-" else shift))
    return date.replace(tzinfo=UTC)
