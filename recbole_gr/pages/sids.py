"""The page of SID tables: a walk through their trees, items and neighbours; and SIDs as CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recbole_gr.pages.agreement import agreement, prefix_parts
from recbole_gr.pages.changes import sid_changes
from recbole_gr.pages.packing import packed
from recbole_gr.pages.parts import (
    SID_PAGE,
    copyable,
    hash_table,
    record_parts,
    settings_section,
    typed,
)
from recbole_gr.pages.walk import Walk
from recbole_gr.quality.measures import quality_report
from recbole_gr.report import charts
from recbole_gr.report.page import Section, chart, panels, paragraph, table, write_page
from recbole_gr.report.table import Column
from recbole_gr.report.tokenizers import COLUMNS
from recbole_gr.sid.formats import level_name
from recbole_gr.sid.table import sid_keys
from recbole_gr.storage.files import atomic_write
from recbole_gr.storage.json_files import load_json

if TYPE_CHECKING:
    from recbole_gr.sid.table import SIDTable

WALK_FILE, CSV_FILE = "walk.npz", "sids.csv"
RECORD_FILE = "provenance.json"  # of a table: what made it, and its figures
_SCRIPTS = ("pages/walk_data.js", "pages/walk_view.js", "pages/walk_item.js", "pages/walk.js")
_AGREEMENT = (
    Column("tokenizers"),
    Column("codes"),
    Column("adjusted Rand index", "{:.3f}"),
    Column("NMI", "{:.3f}"),
    Column("pairs kept", "{:.1%}"),
)
_ABOUT_AGREEMENT = (
    "Whether two tokenizers put the same items on one prefix of so many codes. Adjusted Rand "
    "index: pairs of items that both put together, 0 by chance, 1 where all is the same. NMI: "
    "mutual information over the mean of the two entropies; many small prefixes raise it by "
    "themselves. Pairs kept: of two items on one prefix of the first tokenizer, how often they are "
    "on one of the second."
)


def write_sid_page(
    walks: Sequence[Walk | str | Path],
    path: str | Path,
    title: str = "",
    records: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page of one table of SIDs, or of several of the same items.

    Args:
        walks: or the files that hold them; of more than two tables the page shows any two.
        path: of the page.
        title: "" takes the names of the tables.
        records: what made each table and its `figures`, as `provenance.json` has it.

    Returns:
        pathlib.Path: of the page.

    Raises:
        ConfigError: a file is no walk, or they are of other items.
    """
    given = _named_apart([walk if isinstance(walk, Walk) else Walk.load(walk) for walk in walks])
    names = ", ".join(walk.name for walk in given)
    n, levels = len(given[0].tokens), given[0].codes.shape[1]
    subtitle = f"{n:,} items; " + (names if title else f"SIDs of {levels} codes")
    style = (resources.files("recbole_gr") / "pages/walk.css").read_text(encoding="utf-8")
    changes = [part for walk in given for part in sid_changes(walk)]
    walk_parts = [f"<style>{style}</style>", *changes, "<div id=walk></div>", *packed(given)]
    sections = [
        Section("Walk", walk_parts),
        Section("Levels and collisions", [_use(given), "<div id=walk-collisions></div>"]),
        Section("Agreement", _agreement(given)),
        *(_record_sections([walk.name for walk in given], records) if records else ()),
    ]
    return write_page(path, title or f"SIDs of {names}", sections, subtitle, _SCRIPTS)


def write_page_of_walks(
    folder: str | Path,
    parts: Sequence[str] = (),
    to: str | os.PathLike[str] | None = None,
) -> Path | None:
    """Write `sids.html` of the walks that lie in a folder: that of a table, of the models of a run,
    of the ways of a run over periods, or of the tokenizers of a comparison, in their folders.

    Args:
        folder: where they lie.
        parts: the folders of the tokenizers; by default all that are there.
        to: the folder of the page, if it is not to lie there.

    Returns:
        pathlib.Path: of the page; None where there is no walk. Walks of other items than the
        largest, as of a way that ends in an earlier period, are left out.

    Raises:
        ConfigError: a file is no walk.
    """
    folder = Path(folder)
    if parts:
        files = [file for part in parts if (file := folder / part / WALK_FILE).is_file()]
    else:
        own = sorted([*folder.glob(WALK_FILE), *folder.glob("walk-*.npz")])
        files = own or sorted(folder.glob(f"*/{WALK_FILE}"))
    walks = {file: Walk.load(file) for file in files}
    items = max((set(walk.tokens) for walk in walks.values()), key=len, default=set())
    shown = {file: walk for file, walk in walks.items() if set(walk.tokens) == items}
    beside = [file.with_name(RECORD_FILE) for file in shown if file.name == WALK_FILE]
    records = [load_json(file) for file in beside if file.is_file()]
    records = records if len(records) == len(shown) else []
    if not shown:
        return None
    return write_sid_page([*shown.values()], Path(to or folder, SID_PAGE), "", records)


def write_walk(folder: str | Path, walk: Walk) -> list[Path]:
    """Write ``walk.npz``, which the page can be made of again, and the page, ``sids.html``.

    Returns:
        list: the paths.
    """
    walk.save(Path(folder, WALK_FILE))
    page = write_page_of_walks(folder)
    return [Path(folder, WALK_FILE), *([page] if page else [])]


def write_sids_csv(sids: SIDTable, item_tokens: Sequence[str], path: str | Path) -> Path:
    """Write ``item_id,sid_0,sid_1,...``, a line an item in the order of the SIDs, as tools that
    audit SIDs read them.

    Names of items keep their exact text, whatever a spreadsheet would take it for.

    Args:
        sids: of all items.
        item_tokens: names by item id, padding first.
        path: of the file.
    """
    with atomic_write(path) as temp, open(temp, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item_id", *(f"sid_{level}" for level in range(sids.n_levels))])
        codes = sids.codes[1:].cpu()
        for row in sid_keys(codes, sids.sizes).argsort(stable=True).tolist():
            writer.writerow([item_tokens[row + 1], *codes[row].tolist()])
    return Path(path)


def _named_apart(walks: Sequence[Walk]) -> list[Walk]:
    """The walks under names that differ."""
    names: list[str] = []
    for walk in walks:
        times = sum(name.partition(" (")[0] == walk.name for name in names)
        names.append(f"{walk.name} ({times + 1})" if times else walk.name)
    return [replace(walk, name=name) for walk, name in zip(walks, names)]


def _use(walks: Sequence[Walk]) -> str:
    """How the codes of each level are used, and how many items share one SID, as charts."""
    used, even, groups = {}, {}, {}
    for walk in walks:
        report = quality_report(walk.table)
        levels = [level_name(level) for level in range(report.n_levels)]
        used[walk.name] = levels, [level.utilisation for level in report.levels]
        even[walk.name] = levels, [level.perplexity / level.size for level in report.levels]
        sizes = _group_sizes(walk)
        groups[walk.name] = [str(size) for size in sizes], list(sizes.values())
    suffixed = any(walk.content_levels < len(walk.sizes) for walk in walks)
    note = "Of the levels before the suffix that makes SIDs unique." if suffixed else ""
    shared = charts.bars(groups, "SIDs by the number of their items")
    shared["layout"]["yaxis"] = {"type": "log"}
    every = sorted({int(size) for sizes, _ in groups.values() for size in sizes})
    order = {"categoryorder": "array", "categoryarray": list(map(str, every))}
    shared["layout"]["xaxis"] |= {"title": {"text": "items on one SID"}, **order}
    return panels([
        chart(charts.bars(used, "Codes in use, as a share of the codebook"), 260),
        chart(charts.bars(even, "Perplexity, as a share of the codebook"), 260),
        chart(shared, 260, note),
    ])  # fmt: skip


def _group_sizes(walk: Walk) -> dict[int, int]:
    """How many SIDs, by their levels before a suffix, have 1, 2, ... items."""
    parts = prefix_parts(walk.table.codes[1:, : walk.content_levels])
    sizes = torch.bincount(torch.bincount(parts[-1]))
    return {size: int(sizes[size]) for size in range(1, len(sizes)) if sizes[size]}


def _record_sections(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Figures of quality, settings, provenance and commands of the tables."""
    rows = [[name, *map(record["figures"].get, COLUMNS)] for name, record in zip(names, records)]
    files = {name: value for record in records for name, value in record["data"].items()}
    files |= {f"SIDs of {n}": record["sid_digest"] for n, record in zip(names, records)}
    told = "Before the collision policy; SC and PD by content, own ones by the tokenizer's vectors."
    commands: dict[str, str | None] = {"The command": typed(records[0]["command"])}
    for name, record in zip(names, records):
        commands[f"Train with the SIDs of {name}"] = record["train"]
    return [
        Section("Quality", [table([Column("SIDs"), *COLUMNS.values()], rows), paragraph(told)]),
        settings_section(dict(zip(names, records))),
        Section("Provenance", [*record_parts(records[0]), hash_table(files)]),
        Section("Commands", copyable(commands)),
    ]


def _agreement(walks: Sequence[Walk]) -> list[str]:
    """A table of every two tokenizers by the number of codes; nothing of one."""
    rows: list[list[Any]] = []
    place = {token: row for row, token in enumerate(walks[0].tokens)}
    parts = {}
    for walk in walks:
        codes = walk.table.codes[1:, : walk.content_levels]
        order = torch.tensor([place[token] for token in walk.tokens])
        parts[walk.name] = prefix_parts(torch.empty_like(codes).index_copy_(0, order, codes))
    for first, second in combinations(parts, 2):
        for depth, (one, other) in enumerate(zip(parts[first], parts[second]), 1):
            rows.append([f"{first}, {second}", depth, *agreement(one, other)])
    if not rows:
        return []
    return [paragraph(_ABOUT_AGREEMENT), table(_AGREEMENT, rows, mark_best=False)]
