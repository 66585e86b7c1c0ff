"""Atomic files with item text from raw public files.

python -m recbole_gr.data.convert --format=movielens --archive=ml-1m.zip --dataset=ml-1m
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.config.parsing import parse_switch
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.terminal.command_line import run_command
from recbole_gr.terminal.log import say

if TYPE_CHECKING:
    from recbole_gr.convert.lines import LineFile
    from recbole_gr.convert.reader import Entities, Reader

USAGE = """\
usage: python -m recbole_gr.data.convert --format=FORMAT --dataset=NAME [--output=DIR] SOURCES
                                         [--key=value ...]

Writes DIR/NAME/NAME.inter and, where the sources have them, NAME.item and NAME.user (DIR: dataset),
to be used with --data_path=DIR --dataset=NAME. Files may be gzipped. FORMAT and its SOURCES:
  amazon2014, amazon2018, amazon2023   --reviews=FILE [--metadata=FILE]
  movielens                --archive=ZIP_OR_FOLDER   (100k, 1m, 10m, 20m, 25m, 32m, latest)
  table                    --interactions=FILE --columns=user_id:COL,item_id:COL[,timestamp:COL]
                           [,rating:COL] [--items=FILE [--item_columns=item_id:COL,title:COL,...]]
Keys of table, where the files themselves do not tell:
  --delimiter=semicolon    or tab, comma, pipe, space, or the character itself
  --encoding=cp1252        as Python names it; without it UTF-8, or UTF-16 by its beginning
  --decimal=,              or . : the decimal mark of columns that can be read with both
  --date_format=%d.%m.%Y   of the times, as Python's strptime has it; or s, ms, us, ns since 1970
Keys:
  --k_core=N               only users and items with N interactions, until all left have as many
  --duplicates=keep        or first, last: one interaction for each user and item, by time
  --max_broken=0.01        share of lines that may be broken (counted, reported and skipped)
  --allow_truncated=True   take a gzip file that ends too early as far as it goes
  --force=True             replace files that are there
  --show_progress=False    no bars
The same command given again goes on after the last part that is complete.
"""

FORMS = ("delimiter", "encoding", "date_format", "decimal")  # how a table is written
SOURCES = {
    "amazon2014": (("reviews",), ("metadata",)),
    "amazon2018": (("reviews",), ("metadata",)),
    "amazon2023": (("reviews",), ("metadata",)),
    "movielens": (("archive",), ()),
    "table": (("interactions", "columns"), ("items", "item_columns", *FORMS)),
}
DEFAULTS = {
    "output": "dataset",
    "k_core": None,
    "duplicates": "keep",
    "max_broken": 0.01,
    "allow_truncated": False,
    "force": False,
    "show_progress": True,
}
_TEXTS = ("columns", "item_columns", "format", "dataset", "duplicates")


def convert(
    format: str, dataset: str, **options: Any
) -> tuple[list[Path], dict[str, dict[str, int]]]:
    """Convert raw files to the atomic files of a data set.

    Args:
        format (str): `amazon2014`, `amazon2018`, `amazon2023`, `movielens` or `table`.
        dataset (str): name of the data set.
        **options: the keys of the command line, see `USAGE`.

    Returns:
        tuple[list[pathlib.Path], dict]: the files, and the figures of each by its suffix.

    Raises:
        ConfigError: an option or a file cannot be used, files are there already, or too many lines
            are broken. Files that were there stay as they were.
    """
    from recbole_gr.convert.record import Record, source_of
    from recbole_gr.convert.write import ids_of, write_entities, write_interactions

    options = check_options({"format": format, "dataset": dataset, **options})
    reader = _reader(options)
    folder = Path(options["output"]) / dataset
    record = Record(folder, dataset, options["force"])
    shared = {key: options.get(key) for key in ("format", "columns", "k_core", "duplicates")}
    shared |= {key: options[key] for key in FORMS if key in options}
    sources = [options[key] for key in ("reviews", "interactions") if key in options]
    item_sources = [options[key] for key in ("metadata", "items") if key in options]
    plan = {**shared, "source": source_of(sources or reader.files)}
    item_plan = {
        **plan, "item source": source_of(item_sources), "item_columns": reader.item_columns,
        "item map": options.get("item_columns"),
    }  # fmt: skip
    inter = folder / f"{dataset}.inter"

    def entities(
        lines_of: Callable[[Collection[str]], Entities], field: str, columns: dict[str, str]
    ) -> Callable[[Path], dict[str, int]]:
        def write(path: Path) -> dict[str, int]:
            return write_entities(lines_of, field, columns, ids_of(inter, field), path)

        return write

    parts = [(inter, plan, lambda path: write_interactions(
        reader, path, options["k_core"], options["duplicates"]
    ))]  # fmt: skip
    if reader.item_columns:
        write = entities(reader.items, "item_id", reader.item_columns)
        parts.append((folder / f"{dataset}.item", item_plan, write))
    if reader.user_columns:
        write = entities(reader.users, "user_id", reader.user_columns)
        parts.append((folder / f"{dataset}.user", plan, write))
    done = [record.check(path, part_plan) for path, part_plan, _ in parts]
    for (path, part_plan, write), is_done in zip(parts, done):
        if is_done:
            say("%s is complete already", path)
            continue
        record.begin(path, part_plan)
        record.done(path, part_plan, write(path))
    return [path for path, _, _ in parts], {p.suffix: record.figures(p) for p, _, _ in parts}


def check_options(given: dict[str, Any]) -> dict[str, Any]:
    """All options of a conversion, checked but for the contents of the files.

    Args:
        given (dict): by name; None counts as not given.

    Returns:
        dict: with the defaults, and the sources that were given.

    Raises:
        ConfigError: a key is unknown, missing or has a value that cannot be used.
    """
    given = {key: value for key, value in given.items() if value is not None}
    kind = given.get("format")
    if kind not in SOURCES:
        raise ConfigError(
            f"--format={kind}: not one of {list(SOURCES)}{did_you_mean(kind, SOURCES)}"
        )
    needed, possible = SOURCES[kind]
    known = ("format", "dataset", *needed, *possible, *DEFAULTS)
    for key in given:
        if key not in known:
            raise ConfigError(
                f"--{key}: --format={kind} has no such key{did_you_mean(key, known)}; its keys are "
                f"{list(known)}"
            )
    for key in ("dataset", *needed):
        if key not in given:
            raise ConfigError(f"--{key} is missing; --format={kind} needs {['dataset', *needed]}")
    if "item_columns" in given and "items" not in given:
        raise ConfigError("--item_columns is about the file --items, which is missing")
    options = {**DEFAULTS, **given}
    _check_values(options)
    for key in ("reviews", "metadata", "archive", "interactions", "items"):
        if key in options:
            options[key] = str(options[key])
            exists = os.path.exists if key == "archive" else os.path.isfile
            if not exists(options[key]):
                raise ConfigError(f"--{key}={options[key]}: there is no such file")
    return options


def _check_values(options: dict[str, Any]) -> None:
    from recbole_gr.convert.kcore import DUPLICATES

    name = options["dataset"]
    if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set('/\\"\t\n'):
        raise ConfigError(f"--dataset={name!r} is no name for a folder and files")
    k = options["k_core"]
    if k is not None and (type(k) is not int or k < 1):
        raise ConfigError(f"--k_core={k!r} must be a positive whole number")
    if options["duplicates"] not in DUPLICATES:
        raise ConfigError(f"--duplicates={options['duplicates']} is not one of {list(DUPLICATES)}")
    share = options["max_broken"]
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ConfigError(f"--max_broken={share!r} must be a share between 0 and 1")
    _check_forms(options)
    for key in ("allow_truncated", "force", "show_progress"):
        options[key] = parse_switch(options[key])
        if not isinstance(options[key], bool):
            raise ConfigError(f"--{key}={options[key]!r} must be True or False")


def _check_forms(options: dict[str, Any]) -> None:
    from recbole_gr.convert.amounts import MARKS
    from recbole_gr.convert.dates import check_date_format
    from recbole_gr.convert.dialect import check_delimiter, check_encoding

    checks = {
        "delimiter": check_delimiter, "encoding": check_encoding, "date_format": check_date_format,
    }  # fmt: skip
    for key in FORMS:
        if key in options and not isinstance(options[key], str):
            raise ConfigError(f"--{key}={options[key]!r} must be text")
        if key in options and key in checks:
            checks[key](options[key])
    if options.get("decimal", MARKS[0]) not in MARKS:
        raise ConfigError(f"--decimal={options['decimal']} is not one of {list(MARKS)}")


def _reader(options: dict[str, Any]) -> Reader:
    from recbole_gr.convert.amazon import Amazon
    from recbole_gr.convert.lines import LineFile
    from recbole_gr.convert.movielens import MovieLens
    from recbole_gr.convert.table import Table

    def open_file(path: str | Path, member: str | None = None, encoding: str = "utf-8") -> LineFile:
        return LineFile(
            path,
            member,
            encoding,
            options["max_broken"],
            options["allow_truncated"],
            options["show_progress"],
        )

    if options["format"] == "movielens":
        return MovieLens(open_file, options["archive"])
    if options["format"] == "table":
        items, item_columns = options.get("items"), options.get("item_columns")
        forms = {key: options.get(key) for key in FORMS}
        columns = options["columns"]
        return Table(open_file, options["interactions"], columns, items, item_columns, **forms)
    year = int(options["format"][-4:])
    return Amazon(open_file, year, options["reviews"], options.get("metadata"))


def read_arguments(arguments: list[str]) -> dict[str, Any]:
    """`--key=value` arguments as options; names of files and columns stay text.

    Raises:
        ConfigError: an argument of another form.
    """
    from recbole_gr.config.parsing import parse_arguments

    texts = {key for sources in SOURCES.values() for part in sources for key in part}
    texts |= {*_TEXTS, "output"}
    given = parse_arguments(arguments)
    for argument in arguments:
        key, _, value = argument[2:].partition("=")
        if key in texts:
            given[key] = value or None
    return given


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 where something given cannot be used."""
    return run_command(_run, USAGE, argv, is_setting=False)


def _run(arguments: list[str]) -> int:
    from recbole_gr.config.command_lines import command_after_conversion
    from recbole_gr.data.atomic import read_header

    try:
        given = read_arguments(arguments)
        files, figures = convert(given.pop("format", None), given.pop("dataset", None), **given)
    except OSError as error:
        print(f"error: {error.filename or 'writing'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on after the last complete file.", file=sys.stderr)
        return 130
    for file in files:
        numbers = ", ".join(f"{value} {key}" for key, value in figures[file.suffix].items())
        print(f"{file}: {numbers}")
    columns = read_header(str(files[0]))
    has_items = any(file.suffix == ".item" for file in files)
    print(f"Train on them: {command_after_conversion(files[0], columns, has_items)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
