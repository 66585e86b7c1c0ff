"""Atomic files with item text from raw public files.

python -m recbole_gr.data.convert --format=movielens --archive=ml-1m.zip --dataset=ml-1m
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.convert.kcore import DUPLICATES
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.terminal.command_line import run_command
from recbole_gr.terminal.log import say

if TYPE_CHECKING:
    from recbole_gr.convert.raw_lines import LineFile
    from recbole_gr.convert.reader import Entities, Reader

FORMS = ("delimiter", "encoding", "date_format", "decimal")  # how a table is written
SOURCES = {
    "amazon2014": (("reviews",), ("metadata",)),
    "amazon2018": (("reviews",), ("metadata",)),
    "amazon2023": (("reviews",), ("metadata",)),
    "movielens": (("archive",), ()),
    "table": (("interactions", "columns"), ("items", "item_columns", *FORMS)),
}

ARGUMENTS = Arguments(
    "convert",
    "--format=FORMAT --dataset=NAME [--output=DIR] SOURCES [--key=value ...]",
    "--format=movielens --archive=ml-1m.zip --dataset=ml-1m",
    """\
Writes DIR/NAME/NAME.inter and, where the sources have them, NAME.item and NAME.user, to be used
with --data_path=DIR --dataset=NAME. Files may be gzipped. FORMAT and its SOURCES:
  amazon2014, amazon2018, amazon2023   --reviews=FILE [--metadata=FILE]
  movielens                --archive=ZIP_OR_FOLDER   (100k, 1m, 10m, 20m, 25m, 32m, latest)
  table                    --interactions=FILE --columns=user_id:COL,item_id:COL[,timestamp:COL]
                           [,rating:COL] [--items=FILE [--item_columns=item_id:COL,title:COL,...]]
The same command given again goes on after the last part that is complete.""",
)
ARGUMENTS.add("format", "FORMAT", "of the sources", " | ".join(SOURCES))
ARGUMENTS.add("dataset", "NAME", "of the data set")
ARGUMENTS.add("output", "DIR", "its parent folder", default="dataset")
ARGUMENTS.add("reviews", "FILE", "of Amazon")
ARGUMENTS.add("metadata", "FILE", "of Amazon's items")
ARGUMENTS.add("archive", "FILE", "of MovieLens, or its folder")
ARGUMENTS.add("interactions", "FILE", "a table")
ARGUMENTS.add("columns", "FIELD:COLUMN[,...]", "of the interactions")
ARGUMENTS.add("items", "FILE", "a table")
ARGUMENTS.add("item_columns", "FIELD:COLUMN[,...]", "of the items")
ARGUMENTS.add(
    "delimiter", "NAME", "of a table: semicolon, tab, comma, pipe, space, or the character itself; "
    "without it and the next ones the files themselves tell",
)  # fmt: skip
ARGUMENTS.add("encoding", "cp1252", "as Python names it; else UTF-8, or UTF-16 by its beginning")
ARGUMENTS.add("decimal", ",", "or . : the decimal mark of columns that can be read with both")
ARGUMENTS.add("date_format", "%d.%m.%Y", "of times, as Python's strptime has it; or s, ms, us, ns")
ARGUMENTS.add(
    "k_core", "N", "only users and items with N interactions, until all left have as many",
    "int >= 1",
)  # fmt: skip
ARGUMENTS.add(
    "duplicates", "keep", "one interaction for each user and item, by time, or all of them",
    " | ".join(DUPLICATES), default="keep",
)  # fmt: skip
ARGUMENTS.add(
    "max_broken", "SHARE", "of lines that may be broken (counted, reported and skipped)",
    "0 <= float <= 1", default=0.01,
)  # fmt: skip
ARGUMENTS.add(
    "allow_truncated", "True", "take a gzip file that ends too early as far as it goes", "bool",
    default=False,
)  # fmt: skip
ARGUMENTS.add("force", "True", "replace files that are there", "bool", default=False)
ARGUMENTS.add("show_progress", "False", "no bars", "bool", default=True)
# What every format takes.
DEFAULTS = {"output": "dataset", **{name: key.default for name, key in ARGUMENTS.keys.items()}}
del DEFAULTS["format"]


def convert(
    format: str, dataset: str, **options: Any
) -> tuple[list[Path], dict[str, dict[str, int]]]:
    """Convert raw files to the atomic files of a data set.

    Args:
        format (str): `amazon2014`, `amazon2018`, `amazon2023`, `movielens` or `table`.
        dataset (str): name of the data set.
        **options: the arguments of the command line, see `ARGUMENTS`.

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
    given = {
        key: ARGUMENTS.keys[key].checked(value) if key in ARGUMENTS.keys else value
        for key, value in given.items()
        if value not in (None, "")
    }
    kind = given.get("format")
    if kind is None:
        raise ConfigError(f"--format is missing; it is one of {list(SOURCES)}")
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
    name = options["dataset"]
    if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set('/\\"\t\n'):
        raise ConfigError(f"--dataset={name!r} is no name for a folder and files")
    _check_forms(options)


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
    from recbole_gr.convert.delimited import Table
    from recbole_gr.convert.movielens import MovieLens
    from recbole_gr.convert.raw_lines import LineFile

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


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 where something given cannot be used."""
    return run_command(_run, ARGUMENTS, argv)


def _run(own: dict[str, Any], others: list[str]) -> int:
    from recbole_gr.config.command_lines import command_after_conversion
    from recbole_gr.config.parsing import parse_arguments
    from recbole_gr.data.atomic import read_header

    try:
        given = own | parse_arguments(others)  # the others no format has
        files, figures = convert(given.pop("format", ""), given.pop("dataset", ""), **given)
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
