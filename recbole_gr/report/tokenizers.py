"""Several tokenizers side by side: one table, one figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_gr.report.figure import panels
from recbole_gr.report.table import Column, table_text, write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recbole_gr.quality.measures import QualityReport

COLUMNS = {
    "distinct": Column("distinct SIDs", "{:.2%}", False),
    "collision": Column("items sharing", "{:.2%}", True),
    "gini": Column("Gini", "{:.3f}", True),
    "utilisation": Column("utilisation", "{:.1%}", False),
    "perplexity": Column("perplexity", "{:.1f}", False),
    "sc": Column("SC", "{:.3f}", False),
    "sc_content": Column("SC content", "{:.3f}", False),
    "pd": Column("PD", "{:.3f}", True),
    "own_sc": Column("own SC", "{:.3f}"),
    "own_pd": Column("own PD", "{:.3f}"),
    "neighbours": Column("neighbours", "{:.2%}", False),
    "seconds": Column("seconds", "{:.1f}"),
    "peak": Column("peak MiB", "{:,.0f}"),
}


def comparison_row(report: QualityReport) -> dict[str, float | None]:
    """The figures of ``COLUMNS`` from a QualityReport; None where a figure is not known.

    All are of the levels before a collision policy. Utilisation is that of the level with the
    least, perplexity the mean over levels, neighbours the share of content neighbours with the same
    first code. SC and PD are by content, one definition for all; ``own_sc`` and ``own_pd`` are by
    each tokenizer's own vectors and compare nothing (:mod:`recbole_gr.quality.semantics`). Seconds
    and peak memory are those of the fit.
    """
    levels = report.levels[: report.content_levels]
    before = report.before_policy or {
        "distinct": report.distinct,
        "collision_rate": report.collision_rate,
        "gini": report.gini,
    }
    fit = report.meta.get("fit", {})
    peak = fit.get("peak_memory_bytes")
    near = report.neighbours.get("content")
    own = report.semantics.get("own") or {}
    return {
        "distinct": before["distinct"] / report.n_items,
        "collision": before["collision_rate"],
        "gini": before.get("gini"),
        "utilisation": min(level.utilisation for level in levels),
        "perplexity": sum(level.perplexity for level in levels) / len(levels),
        "sc": report.semantics.get("sc"),
        "sc_content": report.semantics.get("sc_content"),
        "pd": report.semantics.get("pd"),
        "own_sc": own.get("sc"),
        "own_pd": own.get("pd"),
        "neighbours": near[0] if near else None,
        "seconds": fit.get("seconds"),
        "peak": None if peak is None else peak / 2**20,
    }


def comparison_table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """A markdown table of rows by tokenizer name; the best of each figure is bold."""
    values = [[name, *map(row.get, COLUMNS)] for name, row in rows.items()]
    return table_text([Column("tokenizer"), *COLUMNS.values()], values)


def write_comparison(
    folder: str | Path, title: str, rows: Mapping[str, Mapping[str, float | None]]
) -> list[Path]:
    """Write ``comparison.md``, ``.csv``, ``.json`` and ``.png``; returns their paths."""
    lines = [[name, *map(row.get, COLUMNS)] for name, row in rows.items()]
    files = write_files(
        folder,
        "comparison",
        md=f"# {title}\n\n{comparison_table(rows)}\n",
        rows=[["tokenizer", *COLUMNS], *lines],
        data=rows,
        figure=plot_comparison(title, rows),
    )
    return list(files.values())


def plot_comparison(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """One panel a figure of ``COLUMNS``, one bar a tokenizer."""
    figure, places = panels(len(COLUMNS), size=(3.5, 2.33), across=4)
    for panel, (key, column) in zip(places, COLUMNS.items()):
        values = [row[key] for row in rows.values()]
        heights = [0.0 if value is None else value for value in values]
        colours = [f"C{number % 10}" for number in range(len(rows))]
        bars = panel.bar(range(len(rows)), heights, color=colours)
        panel.bar_label(bars, [column.text(value) for value in values], fontsize="small")
        panel.set_xticks(range(len(rows)), rows, fontsize="small")
        panel.set_title(column.title)
        panel.margins(y=0.15)
    figure.suptitle(title)
    return figure
