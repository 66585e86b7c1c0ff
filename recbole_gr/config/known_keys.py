"""The keys that a run knows, against which a misspelt one is noticed."""

import inspect
import re
import sys
from functools import cache, lru_cache
from pathlib import Path

import recbole
from recbole.utils import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

_READ = re.compile(r"""config(?:\[|\.get\()\s*["'](\w+)["']""")

# What a run is about, rather than how it goes.
RUN_KEYS = frozenset(["model", "dataset", "config_files", "per_model", "per_tokenizer"])


@lru_cache(maxsize=1)
def _recbole_keys() -> frozenset[str]:
    """Keys that RecBole lists, and those it reads outside of its models."""
    keys = set(dataset_arguments + evaluation_arguments + general_arguments + training_arguments)
    folder = Path(recbole.__file__).parent
    for part in ("data", "evaluator", "sampler", "trainer", "utils"):
        for file in (folder / part).rglob("*.py"):
            keys.update(_READ.findall(file.read_text(encoding="utf-8")))
    return frozenset(keys)


RECBOLE_KEYS = _recbole_keys()


@cache
def keys_read_by(model_class: type) -> frozenset[str]:
    """Keys that a model's source reads: `config["key"]` in its module and in those of its bases.

    RecBole's property files leave some of their models' keys out, and a model from outside has no
    property file here at all.

    Returns:
        frozenset[str]: the keys.
    """
    keys = set()
    for module in {parent.__module__ for parent in model_class.__mro__}:
        if module.partition(".")[0] in ("torch", "builtins", "typing", "abc"):
            continue
        try:
            keys.update(_READ.findall(inspect.getsource(sys.modules[module])))
        except (OSError, TypeError, KeyError):
            continue  # no source to read, such as a class typed into a shell
    return frozenset(keys)
