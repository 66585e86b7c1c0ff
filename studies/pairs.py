"""Two rows of a study against each other, where the report has each against the baseline.

    python studies/pairs.py studies/leave_one_out/study.yaml "IntRR" "IntRR, codebook" [untied]

prints the paired differences of the first row to the second one on every data set that both are
for, with 95 % intervals over users and seeds; with `tied` or `untied` of the targets that have the
time of their user's event before them, or have not. Runs are those that come with the study, or are
in `saved/`; nothing is trained.
"""

import sys
from dataclasses import replace

from recbole_gr.errors import ConfigError
from recbole_gr.report.table import aligned_table
from recbole_gr.study.comparison import Comparison, compare
from recbole_gr.study.ranks import TIED, anonymous, part_of
from recbole_gr.study.runner import finished_runs
from recbole_gr.study.store import Finished
from recbole_gr.study.study_file import read_study


def compared(file: str, first: str, second: str, part: str = "") -> dict[str, Comparison]:
    """By data set the comparison of one row with another as the baseline; of all targets, or those
    of a part, "tied" or "untied".

    Raises:
        ConfigError: the study has no such row, one has no finished run, or they share no data set.
    """
    plan = read_study(file)
    for row in (first, second):
        if row not in plan.rows:
            raise ConfigError(f"no row of {file} is called '{row}': {list(plan.rows)}")
    runs: dict[str, dict[str, dict[int, Finished]]] = {}
    for cell, kept in finished_runs(plan, file).items():
        if cell.row in (first, second):
            kept = _part(kept, part) if part else kept
            runs.setdefault(cell.dataset, {}).setdefault(cell.row, {})[cell.seed] = kept
    places = [set(plan.only_on.get(row, plan.datasets)) for row in (first, second)]
    wanted = [dataset for dataset in plan.datasets if dataset in set.intersection(*places)]
    if not wanted:
        raise ConfigError(f"{first} and {second} have no data set in common: see their 'datasets'")
    for row in (first, second):
        if absent := [d for d in wanted if row not in runs.get(d, {})]:
            raise ConfigError(f"{row} has no finished run on {', '.join(absent)}: run the study")
    return {dataset: compare(runs[dataset], second) for dataset in wanted}


def _part(kept: Finished, part: str) -> Finished:
    if part not in ("tied", "untied") or kept.ranks is None or TIED not in kept.ranks:
        raise ConfigError(
            f"'{part}' is not tied or untied, or a run does not know its targets' times"
        )
    ranks = anonymous(kept.ranks)  # rows that were just trained, too
    return replace(kept, ranks=part_of(ranks, ranks[TIED] == (part == "tied"), part))


def main(file: str, first: str, second: str, part: str = "") -> None:
    lines = [["data set", "ranking", "metric", "difference", "95 %", "verdict"]]
    for dataset, comparison in compared(file, first, second, part).items():
        for protocol, rows in comparison.differences.items():
            for metric, d in rows.get(first, {}).items():
                between = f"[{d.low:+.4f}, {d.high:+.4f}]"
                lines.append([dataset, protocol, metric, f"{d.mean:+.4f}", between, d.verdict])
    print(aligned_table(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
