"""How single items are spread over the codes of each level, as JSON and as heat-maps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_gr.sid.formats import level_name
from recbole_gr.storage.files import atomic_write

FLOOR = -4.0  # log10 of a probability; smaller ones look the same (the scale of IntRR's figure)


def write_redistribution(
    items: list[dict[str, Any]], folder: Path, model: str
) -> tuple[Path, Path]:
    """Write `redistribution-<model>.json` and `redistribution-<model>.png` into `folder`.

    Args:
        items (list[dict]): per item `item` (str), `sid` (list[int]) and `probability`, for each
            level the probability of every code.
        folder (pathlib.Path): made if missing.
        model (str): name of the model.

    Returns:
        tuple[pathlib.Path, pathlib.Path]: the two files.
    """
    data, picture = (folder / f"redistribution-{model}.{kind}" for kind in ("json", "png"))
    with atomic_write(data) as tmp:
        tmp.write_text(json.dumps(items) + "\n", encoding="utf-8")
    with atomic_write(picture) as tmp:
        plot_redistribution(items, tmp)
    return data, picture


def heat_map(item: Mapping[str, Any]) -> np.ndarray:
    """`[L, V]` log10 of the probabilities, at least `FLOOR`; NaN where a level has fewer codes."""
    widest = max(map(len, item["probability"]))
    picture = np.full((len(item["probability"]), widest), np.nan)
    for row, probability in zip(picture, item["probability"]):
        row[: len(probability)] = np.log10(np.maximum(probability, 10**FLOOR))
    return picture


def plot_redistribution(items: list[dict[str, Any]], path: Path) -> None:
    """One heat-map an item, levels by codes, as PNG at `path`; crosses mark the Stage-1 SID."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.8 + 2.0 * len(items)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(items), 1, squeeze=False)[:, 0]
    for panel, item in zip(panels, items):
        picture = heat_map(item)
        image = panel.imshow(
            picture, aspect="auto", vmin=FLOOR, vmax=0, cmap="viridis", interpolation="nearest"
        )
        panel.plot(item["sid"], range(len(picture)), "rx", label="Stage-1 SID")
        best = [int(np.argmax(level)) for level in item["probability"]]
        panel.set_title(f"item {item['item']}: SID {item['sid']}, most probable {best}")
        panel.set_yticks(range(len(picture)), [level_name(level) for level in range(len(picture))])
        panel.set(ylabel="level", xlabel="code")
    panels[0].legend(fontsize="small", loc="upper right")
    figure.colorbar(image, ax=list(panels), label="log10 probability")
    figure.savefig(path, dpi=110, format="png")
