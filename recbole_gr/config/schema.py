"""The type and range of each key, read from the line of a YAML file that gives its default.

    beam_size: 20                   # (int >= 1) Prefixes kept per user and level.

The files of defaults carry the schema because RecBole's have the same comments: one line says name,
default, type, range and help, what a user copies is what is checked, and RecBole's own keys are
typed by it too. Alternatives stand side by side, a word stands for itself and `~` for none:

    (bool)  (str)  (dict)  (list)  (interval)  (int >= 0)  (float > 0)  (0 <= float < 1)
    (lazy_decoder | encoder_decoder)   (list of str)   (int >= 1 | list of int >= 1 | auto)
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Integral, Real
from typing import Any

from recbole_gr.config.count_intervals import FORM, intervals
from recbole_gr.config.parsing import FALSE, TRUE, parse_switch, yaml_settings
from recbole_gr.errors import ConfigError, did_you_mean

_LINE = re.compile(
    r"(?m)^(\w+):[^#\n]*#\s*\(([^)\n]*)\)[ \t]*(.*)$"  # name, type, help
    r"|^# ([A-Z][\w -]*?)(?:[:;,(].*)?$"  # or a heading
)
_NUMBER = re.compile(
    r"(?:(?P<low>-?[\d.]+) (?P<above><=?) )?(?P<kind>int|float)"
    r"(?: (?P<side>[<>]=?) (?P<end>-?[\d.]+))?"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">="}
_REFUSED = object()  # what a kind returns for a value that it is not


@dataclass(frozen=True)
class Kind:
    """One alternative of what a key may hold.

    Attributes:
        take: returns the value in the form in which code reads it, or `_REFUSED`.
        says: the words of a message, which follow "must be".
        words: that a list may hold.
    """

    take: Callable[[Any], Any]
    says: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
        name: as in `--name=value`.
        default: its value where nobody sets it.
        kinds: what it may hold, alternatives.
        words: those of them that are single words.
        optional: None is a value too.
        form: what it may hold, as declared: `int >= 1 | auto`.
        help: one line.
        owner: `run`, `data`, `model`, `tokenizer`, `trainer`, `decoding` or `periods`.
    """

    name: str
    default: Any
    kinds: tuple[Kind, ...]
    words: tuple[str, ...]
    optional: bool
    form: str
    help: str
    owner: str

    def checked(self, value: Any, source: object = None) -> Any:
        """A value in the form in which code reads it: a number, True for `yes`, a listed word.

        Args:
            value: as parsed.
            source: where it came from, for the message.

        Raises:
            ConfigError: it is none that the key may hold; names key, value, source and what may be.
        """
        word = _word(value, self.words)
        if word is not None:
            return word
        if value is None and self.optional:
            return None
        for kind in self.kinds:
            taken = kind.take(value)
            if taken is not _REFUSED:
                return taken
        where = f" ({source})" if source else ""
        raise ConfigError(f"{self.name}: {value!r} {self._remedy(value)}{where}")

    def _remedy(self, value: Any) -> str:
        words = [*self.words, *(word for kind in self.kinds for word in kind.words)]
        given = value if isinstance(value, (list, tuple)) else [value]
        wrong = next((part for part in given if isinstance(part, str) and part not in words), "")
        near = did_you_mean(wrong, words) if wrong and words else ""
        empty = ["~ for none"] if self.optional else []
        if not self.kinds:
            return f"is not one of {', '.join([*self.words, *empty])}{near}"
        return f"must be {', or '.join([*(k.says for k in self.kinds), *self.words, *empty])}{near}"


def _word(value: Any, words: Iterable[str]) -> str | None:
    """The word that a value is: in any case, or as YAML reads `off` and `none`."""
    names: tuple[str, ...]
    if value is None:
        names = ("none",)
    elif isinstance(value, bool):
        names = TRUE if value else FALSE
    else:
        names = (value.lower(),) if isinstance(value, str) else ()
    return next((word for word in words if word.lower() in names), None)


# Kinds


def _bool(value: Any) -> Any:
    switch = parse_switch(value)
    return switch if isinstance(switch, bool) else _REFUSED


def _text(value: Any) -> Any:
    if isinstance(value, (str, os.PathLike)):
        return value
    if isinstance(value, tuple):  # 0,1 on the command line
        return ",".join(map(str, value))
    return str(value) if isinstance(value, Real) and not isinstance(value, bool) else _REFUSED


def _number(value: Any, whole: bool, bounds: tuple[tuple[str, float], ...]) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        return _REFUSED
    number = int(value) if isinstance(value, Integral) else float(value)
    if whole and number == int(number if math.isfinite(number) else 0):  # 1e3 is an integer
        number = int(number)
    elif whole:
        return _REFUSED
    inside = math.isfinite(number) and all(_COMPARE[sign](number, end) for sign, end in bounds)
    return number if inside else _REFUSED


def _list(value: Any, of: Kind | None) -> Any:
    if of is not None and isinstance(value, str):
        value = [part.strip() for part in value.strip("[]").split(",") if part.strip()]
    if not isinstance(value, (list, tuple)) or not value:
        return _REFUSED
    if of is None:
        return value
    taken = [of.take(part) for part in value]
    return _REFUSED if any(part is _REFUSED for part in taken) else taken


_EMPTY = Kind(lambda value: value if value in ([], ()) else _REFUSED, "an empty list")


def _interval(value: Any) -> Any:
    try:
        return value if intervals(value) is None else str(value)  # [5,10] is a list to YAML
    except ConfigError:
        return _REFUSED


def _kind(text: str) -> Kind | None:
    """What one alternative of a declaration stands for; None where it is none of the forms."""
    text = {"string": "str"}.get(text, text)
    if text.startswith("list of "):
        inner = _kind(text.removeprefix("list of "))
        if inner is None:
            words = tuple(text.removeprefix("list of ").split("/"))
            inner = Kind(partial(_of_words, words=words), f"one of {', '.join(words)}", words)
        return Kind(partial(_list, of=inner), f"a list, each {inner.says}", inner.words)
    simple = {
        "bool": Kind(_bool, "True or False (true, yes, on; false, no, off)"),
        "str": Kind(_text, "text"),
        "dict": Kind(lambda v: v if isinstance(v, Mapping) else _REFUSED, "a mapping of names"),
        "list": Kind(partial(_list, of=None), "a list"),
        "interval": Kind(_interval, FORM),
        "[]": _EMPTY,
    }
    match = _NUMBER.fullmatch(text)
    if text in simple or match is None:
        return simple.get(text)
    whole = match["kind"] == "int"
    bounds = []
    if match["low"]:
        bounds.append((_MIRRORED[match["above"]], float(match["low"])))
    if match["end"]:
        bounds.append((match["side"], float(match["end"])))
    noun = "an integer" if whole else "a number"
    return Kind(partial(_number, whole=whole, bounds=tuple(bounds)), noun + _range(bounds))


def _of_words(value: Any, words: tuple[str, ...]) -> Any:
    word = _word(value, words)
    return _REFUSED if word is None else word


def _range(bounds: list[tuple[str, float]]) -> str:
    names = {">=": "of at least", ">": "above", "<": "below", "<=": "of at most"}
    if len(bounds) == 2:
        (first, low), (last, high) = bounds
        opening, closing = "[("[first == ">"], "])"[last == "<"]
        return f" in {opening}{low:g}, {high:g}{closing}"
    return "".join(f" {names[sign]} {end:g}" for sign, end in bounds)


# Declarations

# Headings in the files below which the keys have another owner than the file.
_OWNERS = {
    "Environment Settings": "run", "Output": "run", "Processes": "run",
    "Training Settings": "trainer", "Training": "trainer",
    "Evaluation Settings": "run", "Evaluation": "run", "Decoding": "decoding",
    "Periods": "periods", "Reading": "data", "Item content": "data", "Models": "model",
    "Click-through models": "data", "Semantic IDs": "tokenizer",
}  # fmt: skip


@lru_cache(maxsize=256)
def declared(text: str, owner: str, file: str = "") -> dict[str, Key]:
    """The keys that the text of a YAML file declares, in its order.

    Args:
        text (str): lines of the form `key: value  # (type) help`; others declare nothing.
        owner (str): who the keys belong to where no heading says otherwise.
        file (str): its name, for messages; a declaration that cannot be read is left out where
            there is none, as RecBole's have a few.

    Raises:
        ConfigError: a declaration that cannot be read, or a default that it does not allow.
    """
    values = yaml_settings(text, file or owner)
    keys: dict[str, Key] = {}
    present = owner
    for name, form, line, heading in _LINE.findall(text):
        if heading:
            present = owner if owner == "tokenizer" else _OWNERS.get(heading.strip(), owner)
        else:
            key = _key(name, values.get(name), form, line, present, strict=bool(file))
            if key is not None:
                keys[name] = key
            elif file:
                raise ConfigError(
                    f"'{file}': {name}: cannot read the type ({form}); the forms are in "
                    f"{__name__}, such as (int >= 1)"
                )
    return keys


def _key(name: str, default: Any, form: str, line: str, owner: str, strict: bool) -> Key | None:
    kinds, words, optional = [], [], default is None or not strict
    for part in re.split(r"\s*\|\s*" if strict else r"\s*\|\s*|\s+or\s+", form.strip()):
        kind = _kind(part)
        if kind is not None:
            kinds.append(kind)
            kinds += [_EMPTY] * (part.startswith("list") and not strict)
        elif part in ("~", "None"):
            optional = True
        elif strict and re.fullmatch(r"[\w./-]+", part):
            words.append(part)
        else:
            return None
    key = Key(name, default, tuple(kinds), tuple(words), optional, form, line.strip(), owner)
    try:
        taken = key.checked(default, "its own default")
    except ConfigError:
        if strict:
            raise
        return None  # RecBole calls a few numbers integers that are none
    return key if strict or taken == default else None  # or text


def inferred(values: Mapping[str, Any], owner: str) -> dict[str, Key]:
    """Keys of defaults that are given as a dictionary, without types: a number stays a number and
    a switch a switch."""
    forms = {
        name: "bool" if isinstance(value, bool) else "float"
        for name, value in values.items()
        if isinstance(value, (bool, int, float))
    }
    keys = {n: _key(n, values[n], form, "", owner, strict=False) for n, form in forms.items()}
    return {name: key for name, key in keys.items() if key is not None}


def check_settings(
    settings: Mapping[str, Any], keys: Mapping[str, Key], source: object = None
) -> dict[str, Any]:
    """Settings in the form in which code reads them, those without a declaration as they are.

    Raises:
        ConfigError: naming every value that cannot be used.
    """
    taken, wrong = {}, []
    for name, value in settings.items():
        try:
            taken[name] = keys[name].checked(value, source) if name in keys else value
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return taken
