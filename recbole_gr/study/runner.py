"""A study from its file to its report: what is finished is found again, the rest is run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.report.lines import interval_text
from recbole_gr.storage.run_files import held
from recbole_gr.study import store
from recbole_gr.study.plan import Cell, read_study
from recbole_gr.study.report import write_study_report
from recbole_gr.study.store import Finished
from recbole_gr.study.workers import Workers, in_processes
from recbole_gr.terminal.log import say

FOLDER = Path("saved", "studies")


def study(
    file: str | os.PathLike[str],
    jobs: int = 1,
    settings: Mapping[str, Any] | None = None,
    workers: Workers = in_processes,
) -> dict[str, Any]:
    """Run every row of a study on every data set with every seed, and report.

    Everything is kept in `saved/studies/<name>/`, in which the same call goes on: a run that is
    finished is not done again unless its settings, its data or the version of results changed; one
    that was interrupted goes on from its checkpoint; one that failed is tried again.

    Args:
        file: the study, see :func:`recbole_gr.study.plan.read_study`.
        jobs: runs side by side.
        settings: of every row, beside those of the file.
        workers: where runs take place.

    Returns:
        dict: `table` (markdown), `files` (paths by "md", "csv", "json", "png"), `report` (what the
        JSON holds), `done` and `found` (numbers of runs done now and before) and `failed` (reasons
        by run).

    Raises:
        ConfigError: the file, settings or data cannot be used, before anything is run; or another
            process is at the same study.
    """
    plan = read_study(file, settings)
    cells = plan.cells()
    root = FOLDER / plan.name
    with held(root, "give the study another name"):
        results: dict[Cell, Finished] = {}
        folders: dict[Path, list[Cell]] = {}  # rows that are alike share a run
        for cell in cells:
            kept = store.finished(root / cell.folder, cell)
            if kept is not None:
                results[cell] = kept
            else:
                folders.setdefault(root / cell.folder, []).append(cell)
        n_found = len(results)
        say("%s: %d of %d runs are to be done, in %s", plan.name, len(folders), len(cells), root)
        failed = _run(folders, jobs, workers, results)
        report = write_study_report(plan, results, failed, root)
    return {**report, "done": len(results) - n_found, "found": n_found, "failed": failed}


def _run(
    folders: Mapping[Path, list[Cell]],
    jobs: int,
    workers: Workers,
    results: dict[Cell, Finished],
) -> dict[str, str]:
    """Do what is not done, into `results`; returns the reasons of those that failed."""
    failed: dict[str, str] = {}
    for folder, cells in folders.items():
        store.prepare(folder, cells[0])
    if not folders:
        return failed
    with contextlib.closing(workers(list(folders), jobs)) as ended:  # type: ignore[type-var]
        for number, (folder, code) in enumerate(ended, start=1):
            for cell in folders[folder]:
                try:
                    kept = store.finished(folder, cell)
                    reason = "" if kept else store.reason_of(folder, code)
                except ConfigError as error:
                    kept, reason = None, str(error)
                if kept is not None:
                    results[cell] = kept
                else:
                    failed[str(cell)] = reason
                outcome = f"failed: {reason}" if kept is None else interval_text(kept.result)
                say("[%d/%d] %s: %s", number, len(folders), cell, outcome)
    return failed
