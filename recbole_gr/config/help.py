"""What `--help` lists: models and tokenizers with a line each, read from their source.

Nothing that the lists name is imported, nor torch: help is to come at once.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

WIDTH = 100
CONTEXT = "context-aware"
_OF_CLASS = "or package.module:Class, a class of yours"


def models_help() -> str:
    """The models here with a line each, and the names of RecBole's by kind."""
    from recbole_gr.registry import MODELS, recbole_kinds

    return _table("Models", MODELS) + _names("RecBole's models", recbole_kinds())


def context_models_help() -> str:
    """The names of RecBole's models of clicks."""
    from recbole_gr.registry import recbole_kinds

    return _names("RecBole's models of clicks", {CONTEXT: recbole_kinds()[CONTEXT]})


def tokenizers_help() -> str:
    """The tokenizers with a line each."""
    from recbole_gr.registry import TOKENIZERS

    return _table("Tokenizers", TOKENIZERS)


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


def _table(title: str, classes: Mapping[str, str | type]) -> str:
    width = max(map(len, classes))
    lines = [f"  {name:<{width}}  {summary(target)}" for name, target in classes.items()]
    return "\n".join([f"{title}, {_OF_CLASS}:", *lines]) + "\n"


def _names(title: str, kinds: Mapping[str, Iterable[str]]) -> str:
    text = f"{title}:\n"
    for kind, names in kinds.items():
        listed = f"{kind}: {', '.join(sorted(names, key=str.lower))}"
        text += textwrap.fill(listed, WIDTH, initial_indent="  ", subsequent_indent="    ") + "\n"
    return text
