"""The tables of studies in README.md and docs/, made from `studies/<name>/report.json`.

    python studies/tables.py

writes them anew between the lines `<!-- study: NAME -->` and `<!-- end of study -->` of each page;
with `<!-- study: NAME of: ROW | ROW -->` those rows alone.
"""

import json
import re
from pathlib import Path

from recbole_gr.report.metrics import metric_title
from recbole_gr.report.table import aligned_table
from recbole_gr.storage.files import atomic_write

STUDIES = Path(__file__).parent
PAGES = [STUDIES.parent / "README.md", *sorted((STUDIES.parent / "docs").glob("*.md"))]
METRICS = ("recall@10", "ndcg@10")
_PROTOCOLS = ("with_history", "without_history")
_BLOCK = re.compile(
    r"(?<=<!-- study: )(\w+)((?: of: (?:(?! -->).)+)? -->\n).*?(?=<!-- end of study -->)", re.S
)


def table(report: dict, wanted: list[str] | None = None) -> str:
    """Test metrics of a study, mean and deviation over seeds, with the user's history in the
    ranking and without it, and the paired difference of NDCG@10 to the baseline with its 95 %
    interval and verdict; of the `wanted` rows, in their order, or of all.

    Raises:
        KeyError: a wanted row is none of the study.
    """
    for row in wanted or ():
        if row not in report["rows"]:
            raise KeyError(f"'{row}' is no row of the study")
    titles = [metric_title(m) for m in METRICS]
    others = [f"{title}, no history" for title in titles]
    lines = [["data set", "model", *titles, *others, f"NDCG@10 minus {report['baseline']}"]]
    for dataset, found in report["datasets"].items():
        name = dataset
        for row in wanted or report["rows"]:
            if not _belongs(report, dataset, row):
                continue
            cells = [_cell(found, p, row, m) for p in _PROTOCOLS for m in METRICS]
            lines.append([name, row, *cells, _difference(found, row)])
            name = ""
    return aligned_table(lines)


def _belongs(report: dict, dataset: str, row: str) -> bool:
    """Whether a row is one of a data set: it may be meant for others alone. One that failed is."""
    sets = report["datasets"].items()
    on = [name for name, found in sets if any(row in rows for rows in found["metrics"].values())]
    failed = any(run.startswith(f"{row} on {dataset},") for run in report.get("failed", ()))
    return dataset in on or failed or not on


def _cell(found: dict, protocol: str, row: str, metric: str) -> str:
    values = found["metrics"].get(protocol, {}).get(row, {}).get(metric)
    if values is None:
        return "-"
    mean = f"{values['mean']:.4f}"
    return mean if len(values["seeds"]) == 1 else f"{mean} ± {values['deviation']:.4f}"


def _difference(found: dict, row: str) -> str:
    d = found["differences"].get("with_history", {}).get(row, {}).get("ndcg@10")
    if d is None:
        return ""
    mean, low, high = (f"{round(d[key], 4) + 0.0:+.4f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}] {d['verdict']}"


def filled(text: str) -> str:
    """A page with the tables of its studies as their reports have them."""

    def block(match: re.Match) -> str:
        file = STUDIES / match[1] / "report.json"
        report = json.loads(file.read_text(encoding="utf-8"))
        rows = match[2].partition(" of: ")[2].removesuffix(" -->\n")
        wanted = [row.strip() for row in rows.split(" | ")] if rows else None
        return f"{match[1]}{match[2]}{table(report, wanted)}\n"

    return _BLOCK.sub(block, text)


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            with atomic_write(page) as temporary:
                temporary.write_text(filled(text), encoding="utf-8")
            print(f"{page.name}: tables written anew")


if __name__ == "__main__":
    main()
