"""The progress record of a conversion: the same command goes on, and another one does not."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.storage.files import remove_leftovers
from recbole_gr.storage.json_files import load_json, save_json


class Record:
    """`<dataset>.convert.json`: for each part its sources, its options and its outcome.

    A part is begun before its file is written and done afterwards. So a file that stands there is
    ours if its part was begun with the same sources and options, and whole if it was done.

    Args:
        folder (pathlib.Path): of the data set.
        dataset (str): its name.
        force (bool): replace whatever is there.

    Raises:
        ConfigError: the record cannot be read.
    """

    def __init__(self, folder: str | Path, dataset: str, force: bool = False) -> None:
        self.path, self._force = Path(folder) / f"{dataset}.convert.json", force
        self.parts = {}
        if self.path.is_file() and not force:
            remedy = "Add --force=True to convert again."
            record = load_json(self.path, remedy=remedy)
            if not isinstance(record, dict) or not isinstance(record.get("parts"), dict):
                raise ConfigError(f"'{self.path}' is no record of a conversion. {remedy}")
            self.parts = record["parts"]

    def check(self, path: Path, plan: dict[str, Any]) -> bool:
        """Whether the part of the file `path` is done already.

        Raises:
            ConfigError: the file is there, but not from this command, or it was changed since.
        """
        known = self.parts.get(path.suffix)
        if self._force or not path.exists():
            return False
        if known is None or known["plan"] != plan:
            changed = [key for key in plan if known and known["plan"].get(key) != plan[key]]
            why = f"was made with other {', '.join(changed)}" if known else "exists already"
            raise ConfigError(
                f"{path} {why}; give another --dataset or --output, or replace it by --force=True"
            )
        if "size" in known and known["size"] != path.stat().st_size:
            raise ConfigError(f"{path} was changed since; --force=True replaces it")
        return "size" in known

    def begin(self, path: Path, plan: dict[str, Any]) -> None:
        """Note that the file is about to be written; remove what a killed run left of it."""
        remove_leftovers(path.parent)
        self.parts[path.suffix] = {"plan": plan}
        self._write()

    def done(self, path: Path, plan: dict[str, Any], figures: dict[str, int]) -> None:
        """Note that the file is whole."""
        self.parts[path.suffix] = {"plan": plan, "size": path.stat().st_size, "figures": figures}
        self._write()

    def figures(self, path: Path) -> dict[str, int]:
        """What `done` was told about a file."""
        return self.parts[path.suffix]["figures"]

    def _write(self) -> None:
        save_json(self.path, {"parts": self.parts})


def source_of(paths: Iterable[str | Path]) -> list[list[Any]]:
    """Name, size and time of change of raw files."""
    status = [(Path(path).name, os.stat(path)) for path in paths]
    return [[name, s.st_size, s.st_mtime_ns] for name, s in status]
