"""A study's report and finished runs beside its file, as they come with it: whoever adds a row of
their own trains this row alone and has the others, with the rank of each target, beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_gr.data.sources import UNHASHED_KEYS
from recbole_gr.report.ranks import write_rank_file
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.json_files import load_json, save_json
from recbole_gr.storage.manifest import NAME, read_manifest
from recbole_gr.study import store
from recbole_gr.study.plan import Cell
from recbole_gr.study.ranks import anonymous
from recbole_gr.study.store import Finished

FOLDER = "runs"
#: Of settings and results, what belongs to the place where they were made, or shows histories.
_OF_THE_PLACE = {*UNHASHED_KEYS, "members", "checkpoint", "example"}


def publish(cell: Cell, kept: Finished, folder: Path) -> None:
    """Write a finished run where :func:`recbole_gr.study.store.finished` finds them on any machine:
    figures, settings, hashes of the inputs, and ranks without the data (:func:`anonymous`).
    Checkpoints and logs stay behind.

    Args:
        cell: the run; one over periods is left out, as its periods share users.
        kept: what it gave.
        folder: `runs` beside the file of the study.
    """
    place = folder / cell.folder.with_name(kept.folder.name)
    if (place / store.RESULT).is_file() or kept.result.get("periods"):
        return
    task = load_json(kept.folder / store.TASK)
    task.pop("weights", None)
    task["settings"] = {k: v for k, v in task["settings"].items() if k not in _OF_THE_PLACE}
    save_json(place / store.TASK, task)
    if (kept.folder / NAME).is_file():
        save_json(place / NAME, _without_the_place(read_manifest(kept.folder / NAME)))
    if kept.ranks is not None:
        write_rank_file(place / store.RANKS, anonymous(kept.ranks))
    result = {name: v for name, v in kept.result.items() if name not in _OF_THE_PLACE}
    save_json(place / store.RESULT, result)


def publish_report(outcome: Mapping[str, Any], folder: Path) -> None:
    """Put the report of a study beside its file: `report.md`, `.csv`, `.json`, `.png` and
    `curves.png`; the JSON without the command and the places of checkpoints.

    Args:
        outcome: of :func:`recbole_gr.study.report.write_study_report`.
        folder: of the file of the study.
    """
    for kind in ("md", "csv", "png", "curves"):
        if kind in outcome["files"]:
            made = Path(outcome["files"][kind])
            with atomic_write(folder / made.name) as temporary:
                temporary.write_bytes(made.read_bytes())
    report = {name: value for name, value in outcome["report"].items() if name != "command"}
    report["datasets"] = {
        name: {**found, "trained": {}} for name, found in report["datasets"].items()
    }
    save_json(folder / "report.json", report)


def _without_the_place(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What of a manifest a report tells: data, versions and machine."""
    runs = [
        {"model": run["model"], "config": {}, "data": run.get("data")} for run in manifest["runs"]
    ]
    return {"format_version": manifest.get("format_version"), "runs": runs} | {
        name: manifest[name] for name in ("versions", "machine") if name in manifest
    }
