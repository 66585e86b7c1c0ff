"""The command `report`: the page of a finished run, study, search or run over periods, made again.

python -m recbole_gr report results/ml-100k-TIGER-DATE
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.errors import ConfigError
from recbole_gr.storage.json_files import load_json
from recbole_gr.terminal.command_line import run_command

_Place = str | os.PathLike[str] | None
_Writer = Callable[[Path, _Place], Path | None]

ARGUMENTS = Arguments(
    "report",
    "FOLDER [--to=FOLDER]",
    "results/ml-100k-TIGER-20261126-101500",
    """\
Writes the HTML pages of a run, a study, a run over periods, SID tables (a folder), or a search (its
.json file), from the files that lie there, also of earlier versions. A page is one file that opens
from a disk; nothing is fetched.""",
)
ARGUMENTS.add_file("folder", "of a report, or the .json of a search")
ARGUMENTS.add("to", "FOLDER", "where pages are to lie (default: beside what they are made of)")


def write_pages(
    place: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Write the pages of what lies in a folder.

    Args:
        place: a folder with the report of a run, a study, a run over periods, or SID tables with
            their `walk.npz`; or the JSON of a search.
        to: the folder of the pages; by default they lie beside what they are made of.

    Returns:
        list[pathlib.Path]: of the pages.

    Raises:
        ConfigError: there is no report, or one that cannot be read.
    """
    from recbole_gr.pages.sids import write_page_of_walks

    place = Path(place)
    found: dict[Path, _Writer]
    if not place.exists():
        raise ConfigError(f"there is no '{place}'; give the folder of a report, as a run names it")
    if place.is_file():
        found = {place: _of_search} if place.suffix == ".json" else {}
    else:
        own = {place / name: write for name, write in _kinds().items()}
        found = {file: write for file, write in own.items() if file.is_file()}
    pages = []
    for file, write in found.items():
        try:
            page = write(file, to)
        except ConfigError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise ConfigError(
                f"'{file}', or what lies beside it, is not as a report is written "
                f"({type(error).__name__}: {error}); give one as it was written"
            ) from error
        pages += [page] if page else []
    if place.is_dir() and (walked := write_page_of_walks(place, to=to)):
        pages.append(walked)
    if not pages:
        raise ConfigError(
            f"'{place}' has no report: none of {', '.join(_kinds())} and walk.npz lies there; give "
            "the folder of a run, a study, a run over periods or SIDs, or the .json of a search"
        )
    return pages


def _kinds() -> Mapping[str, _Writer]:
    """What writes the page of each file that a report has."""
    from recbole_gr.pages.periods import SOURCE as PERIODS
    from recbole_gr.pages.periods import write_periods_page
    from recbole_gr.pages.run import SOURCE as RUN
    from recbole_gr.pages.run import write_run_page

    return {
        RUN: lambda file, to: write_run_page(file.parent, to),
        PERIODS: lambda file, to: write_periods_page(file.parent, to),
        "report.json": _of_report,
    }


def _of_report(file: Path, to: _Place) -> Path | None:
    """Of a study; None of a SID table, whose JSON has the same name."""
    from recbole_gr.pages.study import write_study_page

    return write_study_page(file.parent, to) if "study" in load_json(file) else None


def _of_search(file: Path, to: _Place) -> Path:
    from recbole_gr.pages.search import write_search_page

    return write_search_page(file, to)


def main(argv: list[str] | None = None) -> int:
    """Write the pages of a folder, and print their paths.

    Args:
        argv (list[str] | None): arguments without the program's name; None takes `sys.argv`.

    Returns:
        int: 0, or 2 where there is no report.
    """
    return run_command(_run, ARGUMENTS, argv)


def _run(own: dict[str, Any], rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"{rest[0]}: the command takes a folder and nothing else")
    for page in write_pages(own["folder"], own.get("to")):
        print(f"Page: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
