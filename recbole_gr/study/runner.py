"""A study from its file to its report: what is finished is found again, the rest is run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from recbole_gr.continual.disruption import write_disruption
from recbole_gr.errors import ConfigError
from recbole_gr.report.lines import interval_text
from recbole_gr.storage.files import require_writable
from recbole_gr.storage.json_files import save_json
from recbole_gr.storage.run_files import held
from recbole_gr.study import published, store
from recbole_gr.study.periods import by_period
from recbole_gr.study.plan import Cell, Study
from recbole_gr.study.provenance import provenance_of
from recbole_gr.study.report import write_study_report
from recbole_gr.study.store import Finished
from recbole_gr.study.study_file import read_study, waves
from recbole_gr.study.tuning import trials_of
from recbole_gr.study.workers import Workers, in_processes
from recbole_gr.terminal.log import say

FOLDER = Path("saved", "studies")
CHOSEN = "chosen.json"


def study(
    file: str | os.PathLike[str],
    jobs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: Workers = in_processes,
    tune: int | None = None,
    publish: bool = False,
) -> dict[str, Any]:
    """Run every row of a study on every data set with every seed, and report.

    Everything is kept in `saved/studies/<name>/`, in which the same call goes on: a run that is
    finished is not done again unless its settings, its data or the version of results changed; one
    that was interrupted goes on from its checkpoint; one that failed is tried again. Runs that were
    published beside the file count as finished, too.

    Args:
        file: the study, see :func:`recbole_gr.study.study_file.read_study`.
        jobs: runs side by side; None is one, with `by_ray` as many as there is room for.
        settings: of every row, beside those of the file.
        workers: where runs take place: `in_processes` or `by_ray` of `recbole_gr.study.workers`.
        tune: how many settings of its space every row tries first on each data set of the study's
            `tune_on`, with the first seed; the best by the validation targets are then those of the
            row there (on other data sets those of the first), and are kept in `chosen.json`. None:
            rows run as they are.
        publish: put report and finished runs beside the file, see `recbole_gr.study.published`.

    Returns:
        dict: `table` (markdown), `files` (paths by "md", "csv", "json", "png"; of a tuned study
        "chosen"), `report` (what the JSON holds), `done` and `found` (numbers of runs done now and
        before) and `failed` (reasons by run; those of trials only where no trial of a row
        finished).

    Raises:
        ConfigError: the file, settings or data cannot be used, before anything is run; or another
            process is at the same study.
    """
    plan = read_study(file, settings)
    cells = plan.cells()
    trials = trials_of(plan, tune) if tune else {}
    places = root, beside = places_of(plan, file)
    if publish:
        require_writable(beside, "copy the study elsewhere, or leave --publish out")
    with held(root, "give the study another name"):
        runs, failed = _Runs(plan.name, places, jobs, workers, publish), {}
        tuning: dict[str, dict[str, Any]] = {}  # by data set and row
        chosen: dict[tuple[str, str], Any] = {}
        if tune:
            of_trials = runs.do([cell for each in trials.values() for cell in each.cells], "trials")
            for (row, dataset), each in trials.items():
                outcome = each.outcome(runs.results, of_trials)
                tuning.setdefault(dataset, {})[row] = outcome
                if outcome["chosen"] is not None:
                    chosen[row, dataset] = outcome["chosen"]
                    continue
                reason = outcome["trials"][0]["message"]
                failed[f"{row} on {dataset}"] = f"no trial finished; the first: {reason}"
            for row, dataset in product(plan.trained, plan.datasets):
                first = next((d for d in plan.tune_on if (row, d) in trials), dataset)
                if dataset not in plan.tune_on and (row, first) in chosen:
                    chosen[row, dataset] = chosen[row, first]
            cells = plan.cells(chosen)
            save_json(root / CHOSEN, {"trials": tune, "datasets": tuning})
        failed |= runs.do(cells, "runs")
        kept = members_of(cells, runs.results)
        if plan.weights_of:
            tests = plan.tests(kept, chosen)
            failed |= runs.do(tests, "tests of weights")
            cells += tests
        for rows in waves(plan.fused):
            fusions = plan.fusions(rows, kept)
            failed |= runs.do(fusions, "fusions")
            cells += fusions
            kept = members_of(cells, runs.results)
        results = {cell: runs.results[cell] for cell in cells if cell in runs.results}
        made_of = provenance_of(runs.results)
        more: dict[str, str] = {}
        if plan.over_periods:
            parts = [part for kept in results.values() for part in kept.result["periods"]]
            more = write_disruption(parts, root)
            plan, results = by_period(plan, results)
        report = write_study_report(plan, results, failed, root, tuning, made_of)
        report["files"] |= more
        if tune:
            report["files"]["chosen"] = str(root / CHOSEN)
        if publish:
            published.publish_report(report, beside.parent)
    return {**report, "done": runs.done, "found": runs.found, "failed": failed}


def places_of(plan: Study, file: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Where the runs of a study are kept: its folder, and the one that comes with its file."""
    return FOLDER / plan.name, Path(file).parent / published.FOLDER


def finished_runs(plan: Study, file: str | os.PathLike[str]) -> dict[Cell, Finished]:
    """What the runs of a study gave that are finished: those that train, those that test weights
    and those that fuse. Nothing is run.

    Raises:
        ConfigError: as :meth:`recbole_gr.study.plan.Study.cells`.
    """
    places, results = places_of(plan, file), {}

    def find(cells: list[Cell]) -> list[Cell]:
        results.update({cell: kept for cell in cells if (kept := found(cell, places))})
        return cells

    cells = find(plan.cells())
    cells += find(plan.tests(members_of(cells, results)))
    for rows in waves(plan.fused):
        cells += find(plan.fusions(rows, members_of(cells, results)))
    return results


def found(cell: Cell, places: Iterable[Path]) -> Finished | None:
    """What the run of a cell gave, in the first place that has it; None where none does."""
    each = (store.finished(place / cell.folder, cell) for place in places)
    return next(filter(None, each), None)


def members_of(
    cells: Iterable[Cell], results: Mapping[Cell, Finished]
) -> dict[tuple[str, str, int], tuple[str, Path]]:
    """What other rows need of finished runs, as :meth:`Study.fusions` and `tests` take it."""
    return {
        (cell.row, cell.dataset, cell.seed): (
            str(results[cell].result["key"]),
            results[cell].folder / store.CHECKPOINT,
        )
        for cell in cells
        if cell in results
    }


class _Runs:
    """Runs of a study, with what they gave by cell in `results`: those that were `found`, and those
    that were `done`."""

    def __init__(
        self,
        name: str,
        places: tuple[Path, Path],
        jobs: int | None,
        workers: Workers,
        publish: bool,
    ):
        self.results: dict[Cell, Finished] = {}
        self.found = self.done = 0
        self._name, self._jobs, self._workers, self._publish = name, jobs, workers, publish
        self._root, self._beside = places

    def do(self, cells: list[Cell], called: str) -> dict[str, str]:
        """Find what is finished and do what is not; returns the reasons of those that failed."""
        folders: dict[Path, list[Cell]] = {}  # rows that are alike share a run
        for cell in dict.fromkeys(cells):
            if cell in self.results:
                continue
            kept = found(cell, (self._root, self._beside))
            if kept is not None:
                self._keep(cell, kept)
                self.found += 1
            else:
                folders.setdefault(self._root / cell.folder, []).append(cell)
        failed: dict[str, str] = {}
        for folder, own in list(folders.items()):
            needed = [*(own[0].settings.get("members") or ()), own[0].weights]
            absent = [path for path in needed if path and not Path(path).is_file()]
            if absent:  # published runs have no checkpoints
                remedy = "move its folder away, and its run is done again"
                what = "test" if own[0].weights else "fuse"
                reason = f"there is no checkpoint '{absent[0]}' to {what}: {remedy}"
                failed |= {str(cell): reason for cell in own}
                del folders[folder]
        told = (self._name, len(folders), len(cells), called, self._root)
        say("%s: %d of %d %s are to be done, in %s", *told)
        for folder, own in folders.items():
            store.prepare(folder, own[0])
        if not folders:
            return failed
        with contextlib.closing(
            self._workers(list(folders), self._jobs)  # type: ignore[type-var]
        ) as ended:
            for number, (folder, code) in enumerate(ended, start=1):
                for cell in folders[folder]:
                    outcome = self._take(folder, code, cell, failed)
                    say("[%d/%d] %s: %s", number, len(folders), cell, outcome)
        return failed

    def _take(self, folder: Path, code: int, cell: Cell, failed: dict[str, str]) -> str:
        """Keep what an ended run gave, or why it gave nothing; returns that in words."""
        try:
            kept = store.finished(folder, cell)
            reason = "" if kept else store.reason_of(folder, code)
        except ConfigError as error:
            kept, reason = None, str(error)
        if kept is None:
            failed[str(cell)] = reason
            return f"failed: {reason}"
        self._keep(cell, kept)
        self.done += 1
        if kept.result.get("periods"):
            return f"{len(kept.result['periods'])} methods and periods"
        if cell.trial is not None:  # nobody is to choose by its test
            return f"validation score {kept.result['best_valid_score']}"
        return interval_text(kept.result)

    def _keep(self, cell: Cell, kept: Finished) -> None:
        self.results[cell] = kept
        if self._publish:  # at once: an interrupted study has what it did
            published.publish(cell, kept, self._beside)
