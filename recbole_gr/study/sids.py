"""What a study says of the SIDs of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from recbole_gr.report.table import Column, table_text
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.study.store import Finished

#: Figures of SIDs, not of what it took to learn them: tables come from earlier runs where they can.
FIGURES = {name: column for name, column in COLUMNS.items() if name not in ("seconds", "peak")}


def sid_figures_of(runs: Mapping[str, Mapping[int, Finished]]) -> dict[str, dict[str, list[float]]]:
    """By row and figure the values of its seeds; rows without SIDs are left out, and figures that
    are not known for all seeds of a row."""
    found: dict[str, dict[str, list[float]]] = {}
    for row, by_seed in runs.items():
        figures = [kept.result.get("sid_figures") or {} for kept in by_seed.values()]
        values = {name: [seed.get(name) for seed in figures] for name in FIGURES}
        known = {
            name: [value for value in each if value is not None] for name, each in values.items()
        }
        if complete := {name: each for name, each in known.items() if len(each) == len(figures)}:
            found[row] = complete
    return found


def sid_table(found: Mapping[str, Mapping[str, list[float]]]) -> str:
    """The figures of :func:`sid_figures_of` as means over seeds, the best of each bold."""
    rows = [
        [row, *(fmean(values[name]) if name in values else None for name in FIGURES)]
        for row, values in found.items()
    ]
    return table_text([Column("model"), *FIGURES.values()], rows)
