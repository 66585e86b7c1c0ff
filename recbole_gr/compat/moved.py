"""Modules under the names that the README gave them before they stood in rooms."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

#: Name below the package before -> now.
MOVED = {
    "data.convert": "convert.command",
    "export": "serving.export",
    "inference": "serving.recommender",
    "recommend": "serving.recommend",
    "restore": "serving.restore",
    "sid_features": "commands.sid_features",
    "tokenize": "commands.tokenize",
    "verify": "commands.verify",
}
_PACKAGE = __name__.partition(".")[0]


class _Alias:
    """Loads a module by its name of before: the same module, or its code for `python -m`."""

    def __init__(self, now: str):
        self.now = now

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module as it stands under its name of now."""
        module = importlib.import_module(self.now)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; the import system put the alias into `__spec__`."""
        module.__spec__ = self.spec

    def get_code(self, name: str) -> CodeType | None:
        """What `python -m` runs."""
        spec = importlib.util.find_spec(self.now)
        return spec.loader.get_code(self.now) if spec and spec.loader else None  # type: ignore[attr-defined]


class _Moved:
    """Finds the modules of `MOVED`, after all other finders."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As of any finder of modules."""
        package, _, below = name.partition(".")
        if package != _PACKAGE or below not in MOVED:
            return None
        now = f"{_PACKAGE}.{MOVED[below]}"
        found = importlib.util.find_spec(now)
        return ModuleSpec(name, _Alias(now), origin=found and found.origin)  # type: ignore[arg-type]


def keep_former_names() -> None:
    """Let `import recbole_gr.export` and `python -m recbole_gr.export` find what they found."""
    if _Moved not in sys.meta_path:
        sys.meta_path.append(_Moved)
