"""Finished runs of earlier versions of the program, which did not know all keys of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbole_gr import registry
from recbole_gr.config.defaults import default_settings
from recbole_gr.storage.checkpoint import plain
from recbole_gr.study.plan import Cell

_NO_DATASET = ""  # the default of a key, not what the file of a data set makes of it


def is_run_of(inputs: Any, cell: Cell) -> bool:
    """Whether a run gave what this cell would give: the same version of results, bytes of files and
    settings, but for keys that came since and have their defaults here. A new key's default leaves
    results as they were; where it does not, the model's `settings_before` says what does, or
    `RESULTS_VERSION` is counted up.

    Args:
        inputs: of the run, as its task has them; anything else is of no run.
        cell: of today.
    """
    now = json.loads(json.dumps(cell.inputs))
    if not isinstance(inputs, dict) or not isinstance(inputs.get("settings"), dict):
        return False
    if any(inputs.get(name) != now[name] for name in ("version", "files")):
        return False
    then, settings = inputs["settings"], now["settings"]
    if any(key not in settings or settings[key] != value for key, value in then.items()):
        return False
    new = settings.keys() - then.keys()
    if not new:
        return True
    model = registry.get_model(cell.model)
    defaults = plain(default_settings(model, _NO_DATASET, settings.get("tokenizer")).values)
    before = getattr(model, "settings_before", {})
    return all(
        settings[key] in (before[key], None) if key in before
        else key in defaults and defaults[key] == settings[key]
        for key in new
    )  # fmt: skip


def siblings(folder: Path) -> list[Path]:
    """Folders of the same model, data set and seed as that of a run, without it."""
    stem = folder.name.rpartition("-")[0]
    return sorted(path for path in folder.parent.glob(f"{stem}-*") if path != folder)
