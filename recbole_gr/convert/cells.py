"""Values of raw files as cells of an atomic file that every reader reads alike."""

import html
import math
import re
from collections.abc import Iterable
from typing import Any

from recbole_gr.convert.amounts import NO_AMOUNT, amount
from recbole_gr.convert.raw_lines import BrokenLine

# RecBole reads atomic files with pandas, to which these words are missing values.
MISSING = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan"
    "|null".split("|")
)
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def clean(text: str) -> str:
    """Text of one cell: HTML resolved, all white space one blank, no control characters.

    Tabs, line ends and NULs become blanks, as do lone surrogates, which UTF-8 cannot hold.
    Quotation marks at the start go too: RecBole's reader would take them for the start of a quoted
    cell that may span lines. A text that is a word for a missing value, which that reader would
    drop, is empty.
    """
    text = _TAG.sub(" ", html.unescape(text))
    text = " ".join(_UNWRITABLE.sub(" ", text).split()).lstrip('" ')
    return "" if text in MISSING else text


def id_cell(value: Any, key: str) -> str:
    """A user or item id, as it is but for blanks around it.

    Raises:
        BrokenLine: no id, or one that an atomic file cannot hold or RecBole reads as missing.
    """
    if not isinstance(value, str):
        raise BrokenLine(f"{key} is no text")
    value = value.strip()
    if not value or value in MISSING:
        raise BrokenLine(f"{key} is empty or a word for a missing value")
    if value[0] == '"' or _UNWRITABLE.search(value):
        raise BrokenLine(f"{key} has characters that an atomic file cannot hold")
    return value


def number(value: Any, key: str) -> float:
    """A finite float from a number or its text.

    Raises:
        BrokenLine: it is neither, or not finite.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BrokenLine(f"{key} is no number") from None
    if not math.isfinite(result):
        raise BrokenLine(f"{key} is not finite")
    return result


def text_cell(value: Any, key: str) -> str:
    """Cleaned text from a string, a number, None or a list of strings.

    Raises:
        BrokenLine: it is something else.
    """
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BrokenLine(f"{key} is no text")
    return clean(value)


def tokens_cell(values: Iterable[str]) -> str:
    """A token_seq of names, each one token: `Hair Care` becomes `Hair_Care`; repeats go."""
    names = [clean(value).replace(" ", "_") for value in values]
    return clean(" ".join(dict.fromkeys(name for name in names if name)))


def price_cell(value: Any, key: str = "price") -> str:
    """Price with a decimal point as a float cell; the lower end of a range; empty where there is
    none.

    Raises:
        BrokenLine: it is something else than a price.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float_cell(value) if math.isfinite(value) else ""
    if value is None or (isinstance(value, str) and value.strip() in MISSING | NO_AMOUNT):
        return ""
    found = amount(value) if isinstance(value, str) else None
    if found is None or not math.isfinite(found):
        raise BrokenLine(f"{key} is no number")
    return float_cell(found)


def float_cell(value: float) -> str:
    """Shortest text that reads back as the same float; whole numbers without a point."""
    value = float(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
