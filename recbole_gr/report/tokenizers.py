"""Several tokenizers side by side: one table, one figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_gr.report.table import aligned_table, csv_text
from recbole_gr.storage.files import atomic_write

if TYPE_CHECKING:
    from recbole_gr.quality.measures import QualityReport

# Column title, format, and whether a smaller value is better (None: neither is).
COLUMNS = {
    "distinct": ("distinct SIDs", "{:.2%}", False),
    "collision": ("items sharing", "{:.2%}", True),
    "gini": ("Gini", "{:.3f}", True),
    "utilisation": ("utilisation", "{:.1%}", False),
    "perplexity": ("perplexity", "{:.1f}", False),
    "sc": ("SC", "{:.3f}", False),
    "sc_content": ("SC content", "{:.3f}", False),
    "pd": ("PD", "{:.3f}", True),
    "neighbours": ("neighbours", "{:.2%}", False),
    "seconds": ("seconds", "{:.1f}", None),
    "peak": ("peak MiB", "{:,.0f}", None),
}


def comparison_row(report: QualityReport) -> dict[str, float | None]:
    """The figures of ``COLUMNS`` from a QualityReport; None where a figure is not known.

    All are of the levels before a collision policy. Utilisation is that of the level with the
    least, perplexity the mean over levels, neighbours the share of content neighbours with the same
    first code. Seconds and peak memory are those of the fit.
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
    return {
        "distinct": before["distinct"] / report.n_items,
        "collision": before["collision_rate"],
        "gini": before.get("gini"),
        "utilisation": min(level.utilisation for level in levels),
        "perplexity": sum(level.perplexity for level in levels) / len(levels),
        "sc": report.semantics.get("sc"),
        "sc_content": report.semantics.get("sc_content"),
        "pd": report.semantics.get("pd"),
        "neighbours": near[0] if near else None,
        "seconds": fit.get("seconds"),
        "peak": None if peak is None else peak / 2**20,
    }


def comparison_table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """A markdown table of rows by tokenizer name; the best of each figure is bold."""
    lines = [["tokenizer", *(title for title, _, _ in COLUMNS.values())]]
    lines += [[name] for name in rows]
    for key, (_, form, smaller) in COLUMNS.items():
        known = [value for row in rows.values() if (value := row[key]) is not None]
        best = (min if smaller else max)(known) if known and smaller is not None else None
        for line, row in zip(lines[1:], rows.values()):
            cell = "-" if row[key] is None else form.format(row[key])
            line.append(f"**{cell}**" if len(rows) > 1 and best == row[key] else cell)
    return aligned_table(lines)


def write_comparison(
    folder: str | Path, title: str, rows: Mapping[str, Mapping[str, float | None]]
) -> list[Path]:
    """Write ``comparison.md``, ``.csv``, ``.json`` and ``.png``; returns their paths."""
    paths = [Path(folder, f"comparison.{kind}") for kind in ("md", "csv", "json", "png")]
    lines = [[name, *(row[key] for key in COLUMNS)] for name, row in rows.items()]
    texts = [
        f"# {title}\n\n{comparison_table(rows)}\n",
        csv_text([["tokenizer", *COLUMNS], *lines]),
        json.dumps(rows, indent=2) + "\n",
    ]
    for path, content in zip(paths, texts):
        with atomic_write(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    with atomic_write(paths[-1]) as temporary:
        plot_comparison(temporary, title, rows)
    return paths


def plot_comparison(
    path: str | Path, title: str, rows: Mapping[str, Mapping[str, float | None]]
) -> None:
    """One panel a figure, one bar a tokenizer, as PNG at ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(3, 4).flat)
    for panel, (key, (label, form, _)) in zip(panels, COLUMNS.items()):
        values = [row[key] for row in rows.values()]
        heights = [0.0 if value is None else value for value in values]
        colours = [f"C{number % 10}" for number in range(len(rows))]
        bars = panel.bar(range(len(rows)), heights, color=colours)
        panel.bar_label(
            bars, ["-" if v is None else form.format(v) for v in values], fontsize="small"
        )
        panel.set_xticks(range(len(rows)), rows, fontsize="small")
        panel.set_title(label)
        panel.margins(y=0.15)
    for panel in panels[len(COLUMNS) :]:
        panel.set_axis_off()
    figure.suptitle(title)
    figure.savefig(path, dpi=110, format="png")
