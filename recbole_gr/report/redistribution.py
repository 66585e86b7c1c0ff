"""The spread of single items over the codes of each level, as heat-maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_gr.report.figure import panels
from recbole_gr.sid.formats import level_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = -4.0  # log10 of a probability; smaller ones look the same (the scale of IntRR's figure)


def heat_map(item: Mapping[str, Any]) -> np.ndarray:
    """`[L, V]` log10 of the probabilities, at least `FLOOR`; NaN where a level has fewer codes."""
    widest = max(map(len, item["probability"]))
    picture = np.full((len(item["probability"]), widest), np.nan)
    for row, probability in zip(picture, item["probability"]):
        row[: len(probability)] = np.log10(np.maximum(probability, 10**FLOOR))
    return picture


def plot_redistribution(items: list[dict[str, Any]], title: str) -> Figure:
    """One heat-map an item, levels by codes; crosses mark the Stage-1 SID.

    Args:
        items (list[dict]): per item `item` (str), `sid` (list[int]) and `probability`, for each
            level the probability of every code.
        title (str): such as the name of the model.
    """
    figure, places = panels(len(items), size=(11.0, 2.4), across=1)
    for panel, item in zip(places, items):
        picture = heat_map(item)
        image = panel.imshow(
            picture, aspect="auto", vmin=FLOOR, vmax=0, cmap="viridis", interpolation="nearest"
        )
        panel.plot(item["sid"], range(len(picture)), "rx", label="Stage-1 SID")
        best = [int(np.argmax(level)) for level in item["probability"]]
        panel.set_title(f"item {item['item']}: SID {item['sid']}, most probable {best}")
        panel.set_yticks(range(len(picture)), [level_name(level) for level in range(len(picture))])
        panel.set(ylabel="level", xlabel="code")
    places[0].legend(fontsize="small", loc="upper right")
    figure.colorbar(image, ax=places, label="log10 probability")
    figure.suptitle(title)
    return figure
