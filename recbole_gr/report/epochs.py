"""The figures of each epoch, as curves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from recbole_gr.report.figure import legend, panels
from recbole_gr.report.metrics import metric_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_epochs(figures: list[dict[str, Any]], title: str) -> Figure:
    """Curves over the epochs, one panel a topic and one curve a name.

    A dotted line marks where a stage begins. A figure that some epochs lack leaves a gap there.

    Args:
        figures (list[dict]): per epoch `epoch` (int), `stage` (str) and `figures`, a dict of topics
            that each map names to numbers, such as `{"loss": {"u2t": 2.1, "csa": 0.4}}`.
        title (str): such as the name of the model.
    """
    topics: dict[str, dict[str, None]] = {}
    for entry in figures:
        for topic, values in entry["figures"].items():
            topics.setdefault(topic, {}).update(dict.fromkeys(values))
    figure, places = panels(len(topics))
    epochs = [entry["epoch"] for entry in figures]
    begins = [
        (entry["epoch"], entry["stage"])
        for before, entry in zip([{"stage": None}, *figures], figures)
        if entry["stage"] != before["stage"]
    ]
    for panel, (topic, names) in zip(places, topics.items()):
        for name in names:
            curve = [entry["figures"].get(topic, {}).get(name, math.nan) for entry in figures]
            panel.plot(epochs, curve, marker=".", label=metric_title(name))
        for epoch, _ in begins[1:]:
            panel.axvline(epoch - 0.5, color="grey", linestyle=":", linewidth=1)
        panel.set(title=topic, xlabel="epoch")
        legend(panel)
        panel.grid(alpha=0.3)
    stages = ", then ".join(f"{stage} from epoch {epoch}" for epoch, stage in begins)
    figure.suptitle(f"{title}: {stages}")
    return figure
