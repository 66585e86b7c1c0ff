"""What a trainer notes of each epoch, as JSON and as curves."""

import json
import math
from pathlib import Path
from typing import Any

from recbole_gr.storage.files import atomic_write

_COLUMNS = 3


def write_epochs(figures: list[dict[str, Any]], folder: Path, model: str) -> tuple[Path, Path]:
    """Write `epochs-<model>.json` and `epochs-<model>.png` into `folder`.

    Args:
        figures (list[dict]): per epoch `epoch` (int), `stage` (str) and `figures`, a dict of topics
            that each map names to numbers, such as `{"loss": {"u2t": 2.1, "csa": 0.4}}`.
        folder (pathlib.Path): made if missing.
        model (str): name of the model.

    Returns:
        tuple[pathlib.Path, pathlib.Path]: the two files.
    """
    data, picture = folder / f"epochs-{model}.json", folder / f"epochs-{model}.png"
    with atomic_write(data) as tmp:
        tmp.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    with atomic_write(picture) as tmp:
        plot_epochs(figures, tmp, model)
    return data, picture


def plot_epochs(figures: list[dict[str, Any]], path: Path, title: str) -> None:
    """Curves over the epochs, one panel a topic and one curve a name, as PNG at `path`.

    A dotted line marks where a stage begins. A figure that some epochs lack leaves a gap there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    topics: dict[str, dict[str, None]] = {}
    for entry in figures:
        for topic, values in entry["figures"].items():
            topics.setdefault(topic, dict.fromkeys(values)).update(dict.fromkeys(values))
    rows = max(1, math.ceil(len(topics) / _COLUMNS))
    figure = Figure(figsize=(4.5 * _COLUMNS, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    epochs = [entry["epoch"] for entry in figures]
    begins = [
        (entry["epoch"], entry["stage"])
        for before, entry in zip([{"stage": None}, *figures], figures)
        if entry["stage"] != before["stage"]
    ]
    for panel, (topic, names) in zip(panels, topics.items()):
        for name in names:
            curve = [entry["figures"].get(topic, {}).get(name, math.nan) for entry in figures]
            panel.plot(epochs, curve, marker=".", label=name)
        for epoch, _ in begins[1:]:
            panel.axvline(epoch - 0.5, color="grey", linestyle=":", linewidth=1)
        panel.set(title=topic, xlabel="epoch")
        panel.legend(fontsize="small")
        panel.grid(alpha=0.3)
    for panel in list(panels):  # those that are left over
        panel.set_axis_off()
    stages = ", then ".join(f"{stage} from epoch {epoch}" for epoch, stage in begins)
    figure.suptitle(f"{title}: {stages}")
    figure.savefig(path, dpi=110, format="png")
