"""How fast the rows of a study learn: their validation scores by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from recbole_gr.report.figure import legend, panels
from recbole_gr.study.store import Finished

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: By row and seed, epoch and score of each validation.
Curves = dict[str, dict[int, list[list[float]]]]


def curves_of(runs: Mapping[str, Mapping[int, Finished]]) -> Curves:
    """The curves of the runs of a data set; rows that are not validated while they train, and
    those of earlier versions, which did not note them, are left out."""
    found: Curves = {}
    for row, by_seed in runs.items():
        curves = {
            seed: curve
            for seed, kept in by_seed.items()
            if len(curve := kept.result.get("valid_curve") or []) > 1
        }
        if curves:
            found[row] = curves
    return found


def mean_curve(curves: Mapping[int, list[list[float]]]) -> tuple[list[float], list[float]]:
    """Epochs that all seeds validated, and the mean of their scores there."""
    by_seed = [{epoch: score for epoch, score in curve} for curve in curves.values()]
    epochs = sorted(set.intersection(*map(set, by_seed)))
    return epochs, [float(np.mean([scores[epoch] for scores in by_seed])) for epoch in epochs]


def plot_curves(found: Mapping[str, Curves]) -> Figure | None:
    """One panel a data set: a line a row, the mean over seeds, and its seeds as thin ones; None
    where there are no curves."""
    shown = {dataset: curves for dataset, curves in found.items() if curves}
    if not shown:
        return None
    figure, places = panels(len(shown), (6, 4), 2)
    for panel, (dataset, rows) in zip(places, shown.items()):
        for row, curves in rows.items():
            epochs, means = mean_curve(curves)
            (line,) = panel.plot(epochs, means, label=row)
            for curve in curves.values() if len(curves) > 1 else ():
                own = list(zip(*curve))
                panel.plot(own[0], own[1], color=line.get_color(), alpha=0.3, linewidth=0.8)
        panel.set_title(dataset)
        panel.set_xlabel("epoch")
        panel.set_ylabel("validation score while training")
        panel.grid(alpha=0.3)
        legend(panel)
    return figure
