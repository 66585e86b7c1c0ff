"""One picture of a SID table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from recbole_gr.quality.measures import quality_report
from recbole_gr.report.figure import legend, panels
from recbole_gr.report.table import write_files
from recbole_gr.sid.formats import level_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from recbole_gr.quality.measures import QualityReport
    from recbole_gr.sid.table import SIDTable


def plot_quality(table: SIDTable, path: str | Path, report: QualityReport | None = None) -> None:
    """Draw how evenly codes are used, how prefixes branch and, where some do, how many items share
    a SID.

    Args:
        table: :class:`~recbole_gr.sid.table.SIDTable`.
        path: PNG file to write.
        report: the table's :class:`~recbole_gr.quality.measures.QualityReport`, if already made.
    """
    report = report or quality_report(table)
    names = [level_name(level) for level in range(table.n_levels)]
    shared = report.collision_rate > 0
    figure, places = panels(3 + shared, size=(5.5, 4.2), across=2 if shared else 3)
    usage, level_use, branching = places[:3]

    for level, (name, size) in enumerate(zip(names, table.sizes)):
        counts = torch.bincount(table.codes[1:, level].cpu(), minlength=size)
        counts = counts.sort(descending=True).values
        ranks = torch.linspace(0, 1, size) if size > 1 else torch.zeros(1)
        usage.plot(ranks.tolist(), counts.tolist(), label=f"level {name}, {size} codes")
    usage.set(title="Items per code", xlabel="rank of the code / codebook size", ylabel="items")
    usage.set_yscale("symlog")
    legend(usage)

    positions = range(table.n_levels)
    shares = [level.perplexity / level.size for level in report.levels]
    used = [level.utilisation for level in report.levels]
    level_use.bar([p - 0.2 for p in positions], used, 0.4, label="used codes")
    level_use.bar([p + 0.2 for p in positions], shares, 0.4, label="perplexity")
    level_use.set(title="Codebook use", ylabel="share of the codebook", ylim=(0, 1.05))
    level_use.set_xticks(list(positions), names)
    legend(level_use)

    depths = [prefix.depth for prefix in report.prefixes]
    branching.plot(depths, [p.distinct for p in report.prefixes], "o-", label="distinct prefixes")
    branching.plot(depths, [p.largest for p in report.prefixes], "s--", label="items in largest")
    branching.axhline(report.n_items, color="grey", linewidth=0.8, label="items")
    branching.set(title="Prefixes", xlabel="levels", yscale="log")
    branching.set_xticks(depths)
    legend(branching)

    if shared:
        _draw_sharing(places[3], report)
    write_files(Path(path).parent, Path(path).stem, figure=figure)


def _draw_sharing(panel: Axes, report: QualityReport) -> None:
    """How many SIDs belong to one item, to two..."""
    sizes = sorted(report.group_sizes)[:20]
    panel.bar(list(map(str, sizes)), [report.group_sizes[size] for size in sizes])
    panel.set(
        title=f"Sharing: {report.collision_rate:.2%} of items share their SID",
        xlabel="items on one SID",
        ylabel="SIDs",
        yscale="log",
        ylim=(0.5, None),  # a single SID is a bar, too
    )
