"""The arguments of a command: its own, declared once for parsing and help, and settings."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recbole_gr.config.help import HelpFormatter, settings_help, shown
from recbole_gr.config.parsing import parse_value
from recbole_gr.config.schema import Key, declared
from recbole_gr.errors import ConfigError, nearest
from recbole_gr.terminal.arguments import joined

SHARED = """
In every command:
  --quiet            warnings, errors and the outcome alone
  --log_level=LEVEL  what standard error shows: DEBUG, INFO, WARNING (--quiet) or ERROR
  --help             this text
"""
_UNKNOWN = re.compile(r"Unknown key '([^']+)'(?:.*did you mean '([^']+)')?")  # of a `Config`
_SCRIPTS = ("run_recbole_gr.py", "run_hyper.py")


class Arguments(argparse.ArgumentParser):
    """What a command takes: arguments of its own, and `--key=value` or `--key value` settings.

    Args:
        command (str): its name after `recbole-gr`.
        synopsis, example (str): its arguments in the usage, and a line that can be pasted.
        text (str): what it does.
        settings (list): owners of the settings that matter to it (`Key.owner`), which its help
            lists; none where it takes no settings at all.
        models (str | None): the argument that names the models whose settings it takes; None where
            it takes those of the tokenizers alone.
        tokenizes (bool): it makes SIDs, whatever the model.
        lists (list): what makes lists of names for the help.

    Attributes:
        names: of its own arguments.
        keys: the types of those of them that are not plain text.
    """

    def __init__(
        self,
        command: str,
        synopsis: str,
        example: str,
        text: str,
        settings: Sequence[str] = (),
        models: str | None = "model",
        tokenizes: bool = False,
        lists: Sequence[Callable[[], str]] = (),
    ) -> None:
        script = Path(*sys.argv[:1]).name  # the doors that RecBole's users know
        super().__init__(
            prog=f"python {script}" if script in _SCRIPTS else f"recbole-gr {command}",
            usage=f"%(prog)s {synopsis}\nexample: %(prog)s {example}",
            description=text,
            formatter_class=HelpFormatter,
            argument_default=argparse.SUPPRESS,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self.settings, self.models, self.tokenizes = tuple(settings), models, tokenizes
        self.lists = lists
        self.names: tuple[str, ...] = ()
        self.keys: dict[str, Key] = {}
        self.alone: dict[str, str] = {}  # arguments without a value, and what they stand for
        self._file = ""  # the argument without a name
        self._needed: dict[str, str] = {}

    def add(
        self,
        name: str,
        metavar: str,
        help: str,
        form: str | None = None,
        default: Any = None,
        needed: bool = False,
        alone: str | None = None,
    ) -> None:
        """Declare an argument of the command's own.

        Args:
            name (str): without `--`.
            metavar (str): what the help has for its value.
            help (str): one line.
            form (str | None): what it may hold, in the language of the schema: `int >= 1`; None is
                text, which is taken as it is: `196,186` or `007` may be tokens, no numbers.
            default: its value where it is not given; None leaves it out.
            needed (bool): it has to be given.
            alone (str | None): the value that `--name` without one stands for, where it may.
        """
        self.names += (name,)
        if alone is not None:
            self.alone[f"--{name}"] = f"--{name}={alone}"
        more: dict[str, Any] = {} if default is None else {"default": default}
        if form:
            line = f"{name}: {'~' if default is None else default}  # ({form}) {help}\n"
            self.keys[name] = replace(declared(line, "run", "arguments")[name], optional=False)
            more["type"] = partial(_typed, self.keys[name])
        if needed:
            self._needed[name] = f"No {name} is given: add --{name}={metavar}, {help}."
        self._describe(name, metavar, help, form, **more)

    def add_file(self, name: str, help: str) -> None:
        """Declare the argument without a name, which has to be given."""
        self._file = name
        self._needed[name] = f"No {name} is given: add {name.upper()}, {help}."
        self.add_argument(name, metavar=name.upper(), help=help)

    def mention(self, name: str, metavar: str, help: str) -> None:
        """Have a setting among the first lines of the help."""
        self._describe(name, metavar, help, None)

    def mention_data(self) -> None:
        """Have the settings that say what a command is about among the first lines of the help."""
        self.mention("dataset", "NAME", "a folder <data_path>/NAME/; ml-100k comes with RecBole")
        self.mention("config_files", "FILE[,FILE...]", "YAML files of settings")

    def _describe(self, name: str, metavar: str, help: str, form: str | None, **more: Any) -> None:
        text = f"({form}) {help}" if form else help
        if more.get("default") is not None:
            text += f" (default: {shown(more['default'])})"
        self.add_argument(f"--{name}", metavar=metavar, help=text.replace("%", "%%"), **more)

    def read(self, arguments: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        """Take a command's own arguments out of those that are settings.

        Returns:
            tuple[dict, list]: values by name, and the settings as `--key=value`.

        Raises:
            ConfigError: naming an argument that is missing, given twice with different values, or
                has a value that it may not have.
        """
        own: dict[str, str] = {}
        rest = []
        for argument in joined(arguments):
            argument = self.alone.get(argument, argument)
            name, equals, value = argument.removeprefix("--").partition("=")
            if self._file and self._file not in own and not argument.startswith("-"):
                own[self._file] = argument
            elif equals and argument.startswith("--") and name in self.names:
                if own.setdefault(name, value) != value:
                    raise ConfigError(f"--{name} is given twice: '{own[name]}' and '{value}'.")
            else:
                rest.append(argument)
        for name, message in self._needed.items():
            if not own.get(name):
                near = [given for given in map(_name, rest) if nearest(given, [name])]
                raise ConfigError(message + "".join(_stands(given, name) for given in near))
        texts = [text if name == self._file else f"--{name}={text}" for name, text in own.items()]
        try:
            return vars(self.parse_args(texts)), rest
        except argparse.ArgumentError as error:
            raise ConfigError(error.message) from error

    def remark(self, error: ConfigError, arguments: Iterable[str]) -> str:
        """What to add to an error about unknown keys where one is like an argument of our own."""
        given, text = set(map(_name, joined(arguments))), ""
        for key, near in _UNKNOWN.findall(str(error)):
            best = nearest(key, [*self.names, near])
            if key in given and best and best[0] in self.names:
                text += _stands(key, best[0])
        return text

    def help(self, arguments: Iterable[str] = ()) -> str:
        """The text for `--help`, with the settings of the models and tokenizers that are named."""
        given = {_name(a): a.partition("=")[2] for a in joined(arguments)}
        models, tokenizers = (
            [part.strip() for part in given.get(name or "", "").split(",") if part.strip()]
            for name in (self.models, "tokenizer")
        )
        text = self.format_help() + SHARED
        if self.settings:
            of = models, tokenizers, given.get("dataset"), self.tokenizes
            text += "\n" + settings_help(self.settings, *of, without=self.names)
        if not models + tokenizers:
            text += "".join("\n" + make() for make in self.lists)
        return text


def _name(argument: str) -> str:
    return argument.removeprefix("--").partition("=")[0]


def _stands(given: str, name: str) -> str:
    return f" Does --{given} stand for --{name}?"


def _typed(key: Key, text: str) -> Any:
    """The value of an argument, of the type that its key declares."""
    value = parse_value(text)
    if value is None and key.default is None:
        return None
    try:
        return key.checked(value, "command line")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"--{error}") from error
