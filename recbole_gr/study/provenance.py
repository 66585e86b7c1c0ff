"""What the runs of a study were made of and on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_gr.storage.manifest import NAME, read_manifest
from recbole_gr.study.plan import Cell
from recbole_gr.study.store import Finished


def provenance_of(results: Mapping[Cell, Finished]) -> dict[str, Any]:
    """Where figures come from, as plain data.

    Args:
        results: all runs that finished, trials among them.

    Returns:
        dict: `runs` (number), `seconds` (of all of them, those that were interrupted from where
        they went on), `data` (by data set the sha256 of its files by their names) and `made_on`
        (the `versions` and the `machine` of runs, with their number).

    Raises:
        ConfigError: a manifest is damaged; names it.
    """
    data: dict[str, dict[str, str | None]] = {}
    made_on: list[dict[str, Any]] = []
    for cell, kept in results.items():
        if not (kept.folder / NAME).is_file():
            continue
        manifest = read_manifest(kept.folder / NAME)
        for run in manifest["runs"]:
            data.setdefault(cell.dataset, {}).update(run.get("data") or {})
        place = {name: manifest.get(name) or {} for name in ("versions", "machine")}
        known = next((each for each in made_on if place.items() <= each.items()), None)
        if known is None:
            made_on.append(known := {**place, "runs": 0})
        known["runs"] += 1
    seconds = sum(kept.result["seconds_total"] for kept in results.values())
    return {"runs": len(results), "seconds": seconds, "data": data, "made_on": made_on}


def provenance_text(provenance: Mapping[str, Any]) -> str:
    """The same in a few lines."""
    hours = provenance["seconds"] / 3600
    lines = [f"{provenance['runs']} runs, trials among them, of {hours:.1f} hours in all."]
    for each in provenance["made_on"]:
        software = ", ".join(f"{name} {number}" for name, number in each["versions"].items())
        machine = ", ".join(f"{name} {value}" for name, value in each["machine"].items() if value)
        lines.append(f"* {each['runs']} with {software}; {machine}")
    return "\n".join(lines)
