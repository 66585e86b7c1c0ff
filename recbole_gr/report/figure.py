"""Figures of one or more panels, without a display."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recbole_gr.report.charts import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(
    n: int, size: tuple[float, float] = (4.5, 3.0), across: int = 3, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with `n` panels, however many these are.

    Args:
        n: panels, filled row by row.
        size: width and height of a panel, in inches.
        across: most panels of a row.
        **options: as of matplotlib's `Figure.subplots`.

    Returns:
        tuple: the figure, and its panels.
    """
    from matplotlib.figure import Figure

    across = max(1, min(across, n))
    down = max(1, math.ceil(n / across))
    figure = Figure(figsize=(size[0] * across, size[1] * down), layout="constrained")
    places = list(figure.subplots(down, across, squeeze=False, **options).flat)
    for place in places[n:]:
        place.set_axis_off()
    for place in places[:n]:
        place.set_prop_cycle(color=COLOURS)
    return figure, places[:n]


def legend(panel: Axes, across: int = 3) -> None:
    """A legend under a panel, where it covers nothing; none where there is one name or none."""
    names = panel.get_legend_handles_labels()[1]
    if len(names) > 1:
        panel.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False, fontsize="small",
            ncols=min(across, len(names)),
        )  # fmt: skip


def shared_legend(figure: Figure) -> None:
    """One legend of all panels at the foot of a figure, however tall its panels are; none where
    there is one name or none."""
    found: dict[str, Any] = {}
    for panel in figure.axes:
        for handle, name in zip(*panel.get_legend_handles_labels()):
            found.setdefault(name, handle)
    if len(found) > 1:
        figure.legend(
            found.values(), found, loc="outside lower center", frameon=False, fontsize="small",
            ncols=min(4, len(found)),
        )  # fmt: skip


def interval_rows(
    panel: Axes,
    names: Sequence[str],
    groups: Mapping[str, Sequence[tuple[float, float, float] | None]],
) -> None:
    """Values with their intervals, a row a name from the top down; groups stand apart in a row, so
    that none hides another.

    Args:
        panel: to draw into.
        names: of the rows.
        groups: by name value, low and high end of each row; None where there is none.
    """
    for number, (group, found) in enumerate(groups.items()):
        apart = 0.6 * ((number + 0.5) / len(groups) - 0.5)
        own = [(at + apart, *each) for at, each in enumerate(found) if each is not None]
        places, values, lows, highs = zip(*own) if own else ((), (), (), ())
        reach = [
            [value - low for value, low in zip(values, lows)],
            [high - value for value, high in zip(values, highs)],
        ]
        panel.errorbar(
            values, places, xerr=reach, fmt="osD^vP*"[number % 7], capsize=3, label=group
        )
    lines = [textwrap.fill(name, 34) for name in names]
    panel.set_yticks(range(len(names)), lines)
    if any("\n" in line for line in lines):
        panel.tick_params(axis="y", labelsize="small")
    panel.locator_params(axis="x", nbins=5)
    panel.set_ylim(max(1, len(names)) - 0.5, -0.5)
    panel.grid(axis="x", alpha=0.3)
