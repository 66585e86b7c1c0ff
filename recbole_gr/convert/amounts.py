"""Numbers as people and shops write them: `19,99`, `1.299,00`, `$1,299.00`, `EUR 12,00`."""

from __future__ import annotations

import re

from recbole_gr.convert.raw_lines import BrokenLine
from recbole_gr.errors import ConfigError

MARKS = (".", ",")  # that part the whole from the fraction
# Zeros to every reader of prices: there is none.
NO_AMOUNT = frozenset(("", "-", "--", "\u2013", "\u2014"))

_LONGEST = 64  # characters of a number with its currency, twice for a range
_SPACE = "['\u2019 \u00a0\u2007\u2009\u202f]"  # between thousands, beside the other mark
_DASH = "[-\u2013\u2014]"
_CURRENCY = (
    r"(?:[A-Za-z]{0,3}[$\u00a2-\u00a5\u0e3f\u20a0-\u20c0]|[A-Z]{3}|(?:Rs|SFr|Fr|kr|\u043b\u0432|"
    r"\u0440\u0443\u0431)\.?|z\u0142|K\u010d|Ft|lei)"
)
_BODY = (
    rf"(?:[0-9](?:(?:[0-9.,]|{_SPACE})*[0-9])?|[.,][0-9]+)(?:[.,]{_DASH}{{0,2}})?(?:[eE][+-]?[0-9]+)?"
)
_ONE = rf"([-+\u2212]?)\s*(?:{_CURRENCY})?\s*([-+\u2212]?)({_BODY})\s*(?:{_CURRENCY})?"
_AMOUNT = re.compile(rf"(?:from\s|ab\s)?\s*{_ONE}(?:\s*(?:{_DASH}|to|bis)\s*{_ONE})?")
_POINT = re.compile(r"[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,})")
_PLAIN = re.compile(rf"()([-+\u2212]?)({_BODY})")


def _form(mark: str) -> re.Pattern[str]:
    """A number with this decimal mark; the other one, or a blank or apostrophe, groups digits."""
    other = re.escape(MARKS[mark == "."])
    # Groups have three digits, or two as in India, and a number in groups does not begin with 0.
    groups = rf"[1-9][0-9]{{0,2}}(?:{other}[0-9]{{3}})+|[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+"
    indian = "|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}" if mark == "." else ""
    end = rf"(?:{re.escape(mark)}(?:(?P<fraction>[0-9]+)|{_DASH}*))?"
    return re.compile(rf"(?P<whole>{groups}{indian}|[0-9]*){end}(?P<exponent>[eE][+-]?[0-9]+)?")


_FORMS = {mark: _form(mark) for mark in MARKS}


def readings(text: str, priced: bool = True) -> tuple[float | None, float | None]:
    """A text as a number, once with the decimal point and once with the decimal comma.

    Args:
        text (str): `19,99` is (None, 19.99), `1,299` is (1299.0, 1.299), `12` is (12.0, 12.0).
        priced (bool): take a currency before or after it, and of a range the lower end.

    Returns:
        tuple[float | None, float | None]: None where it is no number with that mark.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text), float(text)
    if _POINT.fullmatch(text):  # what most files have
        return float(text), None
    form = _AMOUNT if priced else _PLAIN
    found = form.fullmatch(text) if len(text) <= 2 * _LONGEST else None
    if found is None:
        return None, None
    point, comma = (_range(found.groups(), mark) for mark in MARKS)
    return point, comma


def _range(parts: tuple[str, ...], mark: str) -> float | None:
    """The lower end, where both ends are numbers with the mark."""
    triples = (parts[n : n + 3] for n in range(0, len(parts), 3))
    ends = [_value(outer, inner, body, mark) for outer, inner, body in triples if body]
    known = [end for end in ends if end is not None]
    return min(known) if len(known) == len(ends) else None


def _value(outer: str, inner: str, body: str, mark: str) -> float | None:
    found = _FORMS[mark].fullmatch(body)
    if found is None or not (found["whole"] or found["fraction"]) or (outer and inner):
        return None
    whole = re.sub("[^0-9]", "", found["whole"]) or "0"
    value = float(f"{whole}.{found['fraction'] or 0}{found['exponent'] or ''}")
    return -value if outer + inner in ("-", "\u2212") else value


class AmountColumn:
    """A column of numbers, whose cells decide together which mark is decimal.

    `1,299` alone may be read in two ways; `19,99` or `1.299,00` anywhere in the column settles it.

    Args:
        name (str): of the field, for messages.
        mark (str | None): what counts where the cells do not tell.
        priced (bool): cells may have a currency or be a range, see `readings`.

    Attributes:
        mark (str): the decimal mark; known after `settle`.
    """

    def __init__(self, name: str, mark: str | None = None, priced: bool = False) -> None:
        self.name, self.mark, self._given = name, mark or MARKS[0], mark
        self._priced = priced
        self._counts = dict.fromkeys(MARKS, 0)
        self._first: dict[str | None, tuple[str, int]] = {}  # None: of those that do not tell

    def see(self, text: str, line: int) -> bool:
        """Take note of a cell; returns whether it is a number."""
        point, comma = readings(text, self._priced)
        if point == comma:
            return point is not None
        mark = None if None not in (point, comma) else MARKS[point is None]
        self._first.setdefault(mark, (text, line))
        if mark:
            self._counts[mark] += 1
        return True

    def settle(self, file: str) -> str:
        """Decide; cells that contradict most others will be broken.

        Returns:
            str: for the log, empty where no cell has a mark.

        Raises:
            ConfigError: the cells can be read in two ways, and `mark` is not given.
        """
        point, comma = (self._counts[mark] for mark in MARKS)
        if point != comma:
            self.mark = MARKS[comma > point]
        elif self._given is None and (point or None in self._first):
            text, line = self._first[None if None in self._first else MARKS[0]]
            values = readings(text, self._priced)
            either = " or ".join(f"{value:g}" for value in values if value is not None)
            raise ConfigError(
                f"{file}, line {line}: {self.name} {text!r} may be {either}, and no other cell of "
                "the column tells whether the point or the comma is its decimal mark; give "
                "--decimal=. or --decimal=,"
            )
        if not self._first:
            return ""
        text, line = self._first.get(self.mark) or next(iter(self._first.values()))
        return f"{self.name} with the decimal mark {self.mark!r} ({text!r} in line {line})"

    def read(self, text: str) -> float:
        """The number in a cell.

        Raises:
            BrokenLine: it is none, or none with the column's mark.
        """
        both = readings(text, self._priced)
        value = both[MARKS.index(self.mark)]
        if value is None:
            with_mark = f" with the decimal mark {self.mark!r}" if both != (None, None) else ""
            raise BrokenLine(f"{self.name} is no number{with_mark}")
        if value in (float("inf"), float("-inf")):
            raise BrokenLine(f"{self.name} is not finite")
        return value


def amount(text: str) -> float | None:
    """A number with the decimal point, for sources that always write it; None where it is none."""
    return readings(text)[0]
