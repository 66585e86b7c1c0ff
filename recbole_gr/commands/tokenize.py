"""The command `tokenize`: SIDs learned, or given ones judged, without training a recommender.

    python -m recbole_gr.tokenize --dataset=ml-100k --tokenizer=RKMeans --output=sids/
    python -m recbole_gr.tokenize --dataset=ml-100k --sid_file=sids/sid.json --output=check/
    python -m recbole_gr.tokenize --dataset=ml-100k --tokenizer=R3VAE,RQVAE,RKMeans,OPQ
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.config.arguments import Arguments
from recbole_gr.config.help import tokenizers_help
from recbole_gr.terminal.command_line import run_command
from recbole_gr.terminal.log import say

if TYPE_CHECKING:
    from recbole_gr.config import Config
    from recbole_gr.quality.measures import QualityReport
    from recbole_gr.sid.table import SIDTable

ARGUMENTS = Arguments(
    "tokenize",
    "--dataset=NAME [--tokenizer=NAME[,NAME...]] [--output=DIR] [--key=value ...]",
    "--dataset=ml-100k --tokenizer=R3VAE --output=sids/",
    """\
Learns semantic IDs from the item content of a RecBole data set and writes them to DIR as sid.json,
sid.npy, sid.npz and sids.csv, with a quality report as report.txt, report.json and report.png and a
page to walk through them, sids.html. With --sid_file=FILE it reads that file's SIDs instead of
learning any. Several tokenizers are compared in one table and one figure (comparison.md, .csv,
.json and .png) and stand beside each other in one sids.html, each with a folder of its own below
DIR.""",
    settings=("run", "data", "periods", "tokenizer"),
    models=None,
    lists=(tokenizers_help,),
)
ARGUMENTS.mention_data()
ARGUMENTS.add(
    "output", "DIR", "without it sids/<dataset>-<tokenizer>, of several sids/<dataset>-comparison"
)

OTHER_OUTPUT = "give another --output"


def tokenize(
    dataset: str | None = None,
    output: str | Path | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    cmd_args: list[str] | None = None,
) -> tuple[SIDTable, QualityReport, list[Path]]:
    """Learn or read the SIDs of a data set and write them with a quality report.

    Args:
        dataset: data set name; None takes the configuration's.
        output: folder for the files; None takes ``sids/<dataset>-<tokenizer>``.
        config_file_list, config_dict, cmd_args: as for :func:`recbole_gr.run_recbole_gr`.

    Returns:
        tuple: SIDTable, QualityReport, and the list of files written.

    Raises:
        ConfigError: something in the configuration or the files cannot be used.
    """
    from recbole_gr.config import Config

    # Any generative model does: SIDs depend on data and tokenizer alone.
    config = Config("TIGER", dataset, config_file_list, config_dict, cmd_args)
    return _tokenize(config, output)


def compare_tokenizers(
    tokenizers: Sequence[str],
    dataset: str | None = None,
    output: str | Path | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    cmd_args: list[str] | None = None,
) -> tuple[dict[str, QualityReport], str, list[Path]]:
    """Learn SIDs with several tokenizers and compare their quality, time and memory.

    Keys that only some of the tokenizers know go to these.

    Args:
        tokenizers: names.
        dataset: data set name; None takes the configuration's.
        output: folder; None takes ``sids/<dataset>-comparison``.
        config_file_list, config_dict, cmd_args: as for :func:`recbole_gr.run_recbole_gr`.

    Returns:
        tuple: the reports by tokenizer, the comparison as a markdown table, and the files written.

    Raises:
        ConfigError: something in the configuration or the files cannot be used; nothing is learned
            then.
    """
    from recbole_gr.config import Config
    from recbole_gr.errors import ConfigError
    from recbole_gr.pages.sids import write_page_of_walks
    from recbole_gr.registry import get_tokenizer
    from recbole_gr.report.tokenizers import comparison_row, comparison_table, write_comparison
    from recbole_gr.storage import memory
    from recbole_gr.storage.run_files import held

    if len(set(tokenizers)) < len(tokenizers):
        raise ConfigError(f"--tokenizer names one twice: {','.join(tokenizers)}")
    for name in tokenizers:
        get_tokenizer(name)
    rest = [a for a in cmd_args or [] if not a.startswith("--tokenizer=")]
    configs = [
        Config(
            "TIGER",
            dataset,
            config_file_list,
            config_dict,
            [*rest, f"--tokenizer={name}"],
            other_tokenizers=tokenizers,
        )
        for name in tokenizers
    ]
    if configs[0]["sid_file"]:
        raise ConfigError("sid_file is one table; give one tokenizer, or no sid_file")
    folder = Path(output or Path("sids") / f"{configs[0]['dataset']}-comparison")
    reports, files = {}, []
    with held(folder, OTHER_OUTPUT):
        for name, config in zip(tokenizers, configs):
            memory.reset_peak()
            _, reports[name], written = _tokenize(config, folder / name.replace(":", "-"))
            files += written
        parts = [name.replace(":", "-") for name in tokenizers]
        if page := write_page_of_walks(folder, parts):
            files.append(page)
        rows = {name: comparison_row(report) for name, report in reports.items()}
        title = f"Tokenizers on {configs[0]['dataset']}"
        return reports, comparison_table(rows), [*write_comparison(folder, title, rows), *files]


def _tokenize(
    config: Config, output: str | Path | None
) -> tuple[SIDTable, QualityReport, list[Path]]:
    from recbole_gr.storage.files import require_writable
    from recbole_gr.storage.run_files import held

    output = Path(output or Path("sids") / f"{config['dataset']}-{_name(config)}")
    require_writable(output, OTHER_OUTPUT)
    with held(output, OTHER_OUTPUT):
        return _tokenize_into(output, config)


def _tokenize_into(output: Path, config: Config) -> tuple[SIDTable, QualityReport, list[Path]]:
    from recbole_gr.data.prepare import training_split
    from recbole_gr.pages.sids import CSV_FILE, write_sids_csv, write_walk
    from recbole_gr.pages.walk import MOST_ITEMS
    from recbole_gr.pipeline.item_sids import learned_sids, walk_of
    from recbole_gr.pipeline.sids import write_sids
    from recbole_gr.quality.gate import collapse_reasons, verdict

    train = training_split(config)
    sids = learned_sids(config, train)
    table, report, tokens = sids.table, sids.report, sids.content.item_tokens
    reasons = collapse_reasons(report, config["sid_min_distinct"], config["sid_min_utilisation"])
    if reasons:  # judging is what this command is for, so it never stops
        logging.getLogger().warning(verdict(config, report, reasons))
    files = write_sids(output, config, table, report, tokens)
    files.append(write_sids_csv(table, tokens, output / CSV_FILE))
    files.append(_write_record(output, config, table, report, collapsed=bool(reasons)))
    if table.n_items > MOST_ITEMS:
        say("No page of the SIDs is written: it holds up to %d items", MOST_ITEMS)
        return table, report, files
    return table, report, files + write_walk(output, walk_of(config, train, sids, _name(config)))


def _write_record(
    output: Path, config: Config, table: SIDTable, report: QualityReport, collapsed: bool
) -> Path:
    """Write what made a table, its figures and the command that trains with it."""
    from recbole_gr.config.command_lines import training_command
    from recbole_gr.pages.sids import RECORD_FILE
    from recbole_gr.report.tokenizers import comparison_row
    from recbole_gr.storage.checkpoint import plain_config
    from recbole_gr.storage.manifest import data_hashes, write_record

    given = config.external_config_dict
    arguments = [f"--{key}={value}" for key, value in given.items()]
    options = {"sid_file": str(output / "sid.npz"), "sid_gate": "warn" if collapsed else None}
    content = {
        "config": plain_config(config), "given": sorted(given), "data": data_hashes(config),
        "sid_digest": table.digest(), "figures": comparison_row(report),
        "train": training_command(arguments, config, **options),
    }  # fmt: skip
    return Path(write_record(output, content, RECORD_FILE))


def _name(config: Config) -> str:
    """What the SIDs are called: the file that they come from, or the tokenizer."""
    return Path(config["sid_file"]).stem if config["sid_file"] else config["tokenizer"]


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, 2 where something given cannot be used."""
    return run_command(_run, ARGUMENTS, argv)


def _run(own: dict[str, Any], rest: list[str]) -> int:
    output, names = own.get("output"), _tokenizers(rest)
    if len(names) > 1:
        reports, table, files = compare_tokenizers(names, output=output, cmd_args=rest)
        print(table)
    else:
        _, report, files = tokenize(output=output, cmd_args=rest)
        reports = {names[0] if names else "": report}
        print(report.to_text())
    print("Written: " + ", ".join(map(str, files)))
    print(_next(rest, reports, files))
    return 0


def _next(arguments: list[str], reports: Mapping[str, QualityReport], files: list[Path]) -> str:
    """The command that trains on the SIDs, of several tokenizers those that collide least."""
    from recbole_gr.config import Config
    from recbole_gr.config.command_lines import training_command
    from recbole_gr.quality.gate import collapse_reasons

    tables = [file for file in files if file.name == "sid.npz"]
    best = min(range(len(tables)), key=lambda n: list(reports.values())[n].collision_rate)
    name = list(reports)[best]
    rest = [a for a in arguments if not a.startswith("--tokenizer=")]
    own = [f"--tokenizer={name}"] * bool(name)
    config = Config("TIGER", None, None, None, rest + own, other_tokenizers=list(reports))
    limits = config["sid_min_distinct"], config["sid_min_utilisation"]
    collapsed = collapse_reasons(reports[name], *limits)
    options = {"sid_file": str(tables[best]), "sid_gate": "warn" if collapsed else None}
    command = training_command(rest + own, config, **options)
    return f"Train {'with them all the same' if collapsed else 'with them'}: {command}"


def _tokenizers(arguments: list[str]) -> list[str]:
    """The names of ``--tokenizer=A,B``, from the command line or its configuration files."""
    from recbole_gr.config.user_settings import UserSettings

    names = str(UserSettings.read(cmd_args=arguments).get("tokenizer") or "")
    return [part.strip() for part in names.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
