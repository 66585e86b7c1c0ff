"""Figures of one or more panels, without a display."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
    return figure, places[:n]
