"""The texts of `--help`: models and tokenizers with a line each, and every setting with its line.

Nothing that the lists name is imported, nor torch, so that help comes at once; but for the settings
of a model or tokenizer that is asked for.
"""

from __future__ import annotations

import argparse
import ast
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_gr import registry
from recbole_gr.config.layers import COMPUTED_KEYS, shared_settings
from recbole_gr.config.schema import Key

WIDTH = 100
CONTEXT = "context-aware"
_OF_CLASS = "or package.module:Class, a class of yours; --{}=NAME --help: its settings"
OWNERS = {  # of settings, see `Key.owner`, and what the help calls theirs
    "run": "run: machine, output, evaluation",
    "data": "data",
    "periods": "periods",
    "tokenizer": "tokenizer: semantic IDs",
    "model": "model",
    "trainer": "trainer",
    "decoding": "decoding",
}
Settings = dict[str, tuple[Key, Any]]  # a key and its default by name


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lines as `--key=VALUE  what it is`, or `--key[=VALUE]` where it may stand alone."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        parts = [*action.option_strings, str(action.metavar)]
        return ("" if parts[-1].startswith("[=") else "=").join(parts)


def settings_help(
    owners: Collection[str],
    models: Sequence[str] = (),
    tokenizers: Sequence[str] = (),
    dataset: str | None = None,
    tokenizes: bool = False,
    without: Collection[str] = (),
) -> str:
    """A line for each setting with default, type and help, by owner.

    Args:
        owners (list): of the settings that are listed.
        models, tokenizers (list): whose settings; none: those that all share.
        dataset (str | None): whose defaults, where models or tokenizers are given.
        tokenizes (bool): the settings of SIDs are among them, whatever the models.
        without (list): those that are left out.

    Raises:
        ConfigError: no such model or tokenizer.
    """
    settings: Settings = {} if models else _shared("decoding" in owners, "tokenizer" in owners)
    for model in models:
        settings |= _settings_of(model, tokenizers, dataset)
    generative = any(registry.is_generative(registry.get_model(model)) for model in models)
    if not generative and (tokenizers or (models and tokenizes)):
        of_sids = _settings_of("TIGER", tokenizers, dataset)  # or any other generative model
        settings |= {name: line for name, line in of_sids.items() if line[0].owner == "tokenizer"}
    whose = ", ".join([*models, *tokenizers])
    title = f"Settings{f' of {whose}' if whose else ''}, with their defaults\n\n"
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, add_help=False, formatter_class=HelpFormatter
    )
    for owner in OWNERS:
        group = parser.add_argument_group(OWNERS[owner])
        for name, (key, default) in settings.items():
            if key.owner == owner in owners and name not in without:
                line = f"({key.form}) {key.help}".replace("%", "%%")
                group.add_argument(f"--{name}", metavar=shown(default), help=line)
    return title + parser.format_help()


def _shared(of_models: bool, of_tokenizers: bool) -> Settings:
    """The settings of every model, of every generative one and of every tokenizer."""
    values, keys = shared_settings(of_models, of_tokenizers)
    names = [name for name in keys if name in values and name not in COMPUTED_KEYS]
    return {name: (keys[name], values[name]) for name in names}


def _settings_of(model: str, tokenizers: Sequence[str], dataset: str | None) -> Settings:
    from recbole_gr.config.defaults import default_settings

    found: Settings = {}
    for tokenizer in tokenizers or (None,):
        of = registry.get_model(model), dataset or "sample", tokenizer
        values, known, keys, _ = default_settings(*of)
        found |= {n: (key, values.get(n)) for n, key in keys.items() if n in known}
    return found


def shown(value: Any) -> str:
    """A default as it is written on a command line."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(shown, value))}]"
    plain = isinstance(value, str) and value.isprintable() and value.strip() == value != ""
    return value if plain else repr(value)


def models_help() -> str:
    """The models here with a line each, and the names of RecBole's by kind."""
    kinds = registry.recbole_kinds()
    return _table("Models", "model", registry.MODELS) + _names("RecBole's models", kinds)


def context_models_help() -> str:
    """The names of RecBole's models of clicks."""
    return _names("RecBole's models of clicks", {CONTEXT: registry.recbole_kinds()[CONTEXT]})


def tokenizers_help() -> str:
    """The tokenizers with a line each."""
    return _table("Tokenizers", "tokenizer", registry.TOKENIZERS)


def summary(target: str | type) -> str:
    """The first line of a class's docstring, without its full stop.

    Args:
        target (str | type): the class, or `"package.module:Class"`, which is not imported.
    """
    if not isinstance(target, str):
        return (target.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    module, _, name = target.partition(":")
    file = _source(module)
    tree = ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            text = (ast.get_docstring(node) or "").partition("\n")[0]
            return text.replace("``", "").replace(":mod:", "").replace("`", "").rstrip(".")
    return ""


def _source(module: str) -> Path | None:
    """The file of a module, found without importing the packages that it is in."""
    parts = module.split(".")
    spec = find_spec(parts[0])  # of an editable installation, which has a finder of its own, too
    for number in range(1, len(parts)):
        if spec is None:
            return None
        path = spec.submodule_search_locations
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), path)
    return Path(spec.origin) if spec and spec.origin else None


def _table(title: str, key: str, classes: Mapping[str, str | type]) -> str:
    width = max(map(len, classes))
    lines = [f"  {name:<{width}}  {summary(target)}" for name, target in classes.items()]
    return "\n".join([f"{title}, {_OF_CLASS.format(key)}:", *lines]) + "\n"


def _names(title: str, kinds: Mapping[str, Iterable[str]]) -> str:
    text = f"{title}:\n"
    for kind, names in kinds.items():
        listed = f"{kind}: {', '.join(sorted(names, key=str.lower))}"
        text += textwrap.fill(listed, WIDTH, initial_indent="  ", subsequent_indent="    ") + "\n"
    return text
