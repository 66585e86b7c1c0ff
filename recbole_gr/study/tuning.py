"""Tuning: the same number of trials for every row, and the best by the validation targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from recbole_gr.errors import ConfigError
from recbole_gr.search.samplers import check_algorithm, draws
from recbole_gr.search.space import Params, parameter
from recbole_gr.storage.hashes import sha256
from recbole_gr.study.plan import Cell, Place, Study
from recbole_gr.study.store import Finished


@dataclass(frozen=True)
class Trials:
    """The trials of a row on a data set.

    Attributes:
        params: of each trial, beside the row's own settings.
        cells: their runs.
        metric: what they are judged by, the row's `valid_metric`.
        bigger: whether more of it is better.
    """

    params: list[Params]
    cells: list[Cell]
    metric: str = ""
    bigger: bool = True

    def best(self, results: Mapping[Cell, Finished]) -> int | None:
        """The number of the one with the best validation score, of equal ones the first; None
        where none has a score. Nothing else of a result is read."""
        scores = [self.score(results.get(cell)) for cell in self.cells]
        known = [number for number, score in enumerate(scores) if score is not None]
        sign = 1 if self.bigger else -1
        return max(known, key=lambda n: sign * (scores[n] or 0.0), default=None)

    @staticmethod
    def score(kept: Finished | None) -> float | None:
        """What a trial's validation gave."""
        return None if kept is None else kept.result["best_valid_score"]

    def outcome(
        self, results: Mapping[Cell, Finished], failed: Mapping[str, str]
    ) -> dict[str, Any]:
        """As plain data: `metric`, `chosen` (settings, None where no trial finished), `score`,
        `trial` (its number) and `trials`, each with `number`, `params`, `score`, `folder` and,
        where it gave nothing, a `message`."""
        best = self.best(results)
        trials: list[dict[str, Any]] = []
        for number, (params, cell) in enumerate(zip(self.params, self.cells)):
            kept = results.get(cell)
            score = self.score(kept)
            trial = {"number": number, "params": params, "score": score}
            where = cell.folder if kept is None else kept.folder
            trial["folder"] = cell.folder.with_name(where.name).as_posix()
            if score is None:
                trial["message"] = failed.get(str(cell), "its validation gave no score")
            trials.append(trial)
        chosen = self.params[best] if best is not None else None if self.cells else {}
        score = None if best is None else trials[best]["score"]
        about = {"metric": self.metric, "chosen": chosen, "score": score, "trial": best}
        return {**about, "trials": trials}


def trials_of(study: Study, n: int) -> dict[Place, Trials]:
    """`n` trials of every row on every data set of `tune_on`, with the first seed of the study.

    More of them begin as fewer do. An empty space (`Pop: {}`) has none: the row is what it is.

    Raises:
        ConfigError: a row declares no space, or one with fewer settings; or a trial cannot be run.
    """
    check_algorithm("random")
    seed = study.seeds[0]
    drawn: dict[str, list[Params]] = {}
    for row in study.trained:  # a fusion chooses on the validation targets itself
        if row not in study.tune:
            raise ConfigError(
                f"--tune={n}: row '{row}' has no space; every row gets the same number of trials, "
                f"so write under tune what '{row}' is tuned over, or '{row}: {{}}' if it has "
                "nothing to tune"
            )
        if not {*study.tune_on} & {*study.only_on.get(row, study.tune_on)}:
            raise ConfigError(
                f"--tune={n}: row '{row}' runs on {', '.join(study.only_on[row])} alone, none of "
                f"which is in tune_on: {', '.join(study.tune_on)}"
            )
        space = [parameter(key, text) for key, text in study.tune[row].items()]
        drawn[row] = draws(space, n, seed) if space else []
        if space and len(drawn[row]) < n:
            raise ConfigError(
                f"--tune={n}: the space of row '{row}' holds {len(drawn[row])} settings; every row "
                "gets the same number of trials, so give a larger space or fewer trials"
            )
    file_hash = cache(sha256)

    def of(row: str, dataset: str) -> Trials:
        pairs = [
            study.cell(row, dataset, seed, params, file_hash, number)
            for number, params in enumerate(drawn[row])
        ]
        if not pairs:
            return Trials([], [])
        config = pairs[0][1]
        metric, bigger = str(config["valid_metric"]), bool(config["valid_metric_bigger"])
        return Trials(drawn[row], [cell for cell, _ in pairs], metric, bigger)

    return study.of_each_place(of, study.trained, study.tune_on)
