"""SID changes of items against the drift of their neighbourhood: by item, decile and picture.

Source: DACT (arXiv 2603.29705); its published tables give the change rates by decile of
collaborative drift that a test holds this to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats

from recbole_gr.errors import ConfigError
from recbole_gr.report.charts import COLOURS
from recbole_gr.report.figure import legend, panels
from recbole_gr.report.table import write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_BINS = 10
LEAST_DRIFT = 0.01  # median 1 - cosine below which nothing has drifted that would tell items apart


def collaborative_drift(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """1 - cosine of each item's collaborative vectors of two periods.

    Args:
        before, now: float tensors ``[n, e]``, equal rows being the same item.

    Returns:
        float64 tensor ``[n]`` in [0, 2]; NaN where a vector is zero, as of items that the
        collaborative model does not know.
    """
    before, now = before.double(), now.double()
    lengths = before.norm(dim=1) * now.norm(dim=1)  # zero divides to NaN
    return 1 - ((before * now).sum(1) / lengths).clamp(-1, 1)


def change_by_decile(
    values: torch.Tensor,
    changed: torch.Tensor,
    n_bins: int = N_BINS,
    confidence: torch.Tensor | None = None,
) -> list[dict[str, float]]:
    """Share of changed items in equally large groups of falling values.

    Args:
        values: float tensor ``[n]``; items with NaN are left out.
        changed: BoolTensor ``[n]``.
        n_bins: groups, fewer if there are fewer items; their sizes differ by one at most. Of equal
            values the item of the lower row comes first.
        confidence: float tensor ``[n]``; None where there is none.

    Returns:
        list[dict]: for each group, the highest values first, ``items``, ``highest``, ``lowest``,
        ``change_rate`` and, where it is given, the mean ``confidence``.
    """
    value, moved = values.double().cpu().numpy(), changed.cpu().numpy().astype(bool)
    rows = np.flatnonzero(~np.isnan(value))
    rows = rows[np.argsort(-value[rows], kind="stable")]
    groups = [g for g in np.array_split(rows, max(1, min(n_bins, len(rows)))) if len(g)]
    found = [
        {
            "items": len(group),
            "highest": float(value[group[0]]),
            "lowest": float(value[group[-1]]),
            "change_rate": float(moved[group].mean()),
        }
        for group in groups
    ]
    if confidence is not None:
        sure = confidence.double().cpu().numpy()
        for figures, group in zip(found, groups):
            figures["confidence"] = float(sure[group].mean())
    return found


def rank_correlation(first: torch.Tensor, second: torch.Tensor) -> float | None:
    """Spearman's correlation of two tensors ``[n]``, rows with NaN left out; None where one of
    them is constant or fewer than two rows are left."""
    both = torch.stack([first.double().cpu(), second.double().cpu()])
    pairs = both[:, ~both.isnan().any(0)].numpy()
    if pairs.shape[1] < 2 or (pairs == pairs[:, :1]).all(1).any():
        return None
    return float(stats.spearmanr(*pairs).statistic)


def drift_report(
    folder: Path,
    item_tokens: Sequence[str],
    before: torch.Tensor,
    now: torch.Tensor,
    changed: torch.Tensor,
    confidence: torch.Tensor | None = None,
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Write ``drift.csv`` (a row per item), ``drift.json`` and ``drift.png`` (by decile).

    The items are those that were there before, ``n`` rows of everything: a longer ``now`` is cut,
    as new items are numbered last.

    Args:
        folder (pathlib.Path): made if missing.
        item_tokens (Sequence[str]): ``[n]`` names.
        before, now: collaborative vectors ``[n, e]`` and ``[N >= n, e]`` of the last period and
            this one.
        changed: BoolTensor ``[n]``, whether the final SID is another.
        confidence: float tensor ``[n]`` or longer, of DACT's ``drift_confidence``; None for
            tokenizers without it.

    Returns:
        tuple: figures ``n_items``, ``change_rate``, ``without_vector`` (items whose drift is not
        defined), ``median_drift`` (1 - cosine; None where no item has one), ``by_cf_drift`` and
        ``by_confidence`` (lists of :func:`change_by_decile`; the latter is None without
        confidence), ``confidence_and_drift`` (their :func:`rank_correlation`) and
        ``confidence_deviation`` (over items); and the paths by "csv", "json", "png". A warning says
        where hardly any vector has moved.

    Raises:
        ConfigError: numbers of items or dimensions that do not fit.
    """
    n = len(item_tokens)
    short = len(now) < n or (confidence is not None and len(confidence) < n)
    if len(before) != n or len(changed) != n or before.shape[1:] != now.shape[1:] or short:
        raise ConfigError(
            f"drift report of {n} items: vectors {list(before.shape)} before and "
            f"{list(now.shape)} now, {len(changed)} flags and "
            f"{'no' if confidence is None else len(confidence)} confidences do not fit; give one "
            "row for each item of the last period"
        )
    drift = collaborative_drift(before.cpu(), now[:n].cpu())
    changed = changed.cpu().bool()
    columns = {"item": map(str, item_tokens), "cf_drift": map(_cell, drift.tolist())}
    if confidence is not None:
        confidence = confidence[:n].detach().cpu().double()
        columns["drift_confidence"] = map(_cell, confidence.tolist())
    columns["changed"] = map(int, changed)
    figures = {
        "n_items": n,
        "change_rate": float(changed.double().mean()) if n else 0.0,
        "without_vector": int(torch.isnan(drift).sum()),
        "median_drift": _finite(float(drift.nanmedian())) if n else None,
        "by_cf_drift": change_by_decile(drift, changed, confidence=confidence),
        "by_confidence": None if confidence is None else change_by_decile(confidence, changed),
    }
    if confidence is not None:
        figures["confidence_and_drift"] = rank_correlation(confidence, drift)
        figures["confidence_deviation"] = float(confidence.std()) if n > 1 else 0.0
    _say(folder, figures)
    picture, rows = plot_drift(figures), [tuple(columns), *zip(*columns.values())]
    return figures, write_files(folder, "drift", rows=rows, data=figures, figure=picture)


def _say(folder: Path, figures: Mapping[str, Any]) -> None:
    log, median = logging.getLogger(), figures["median_drift"]
    if median is None or median < LEAST_DRIFT:
        log.warning(
            "%s: no collaborative drift: the vector of the median item turned by %s (1 - cosine), "
            "so deciles of drift say nothing; more cf_epochs or a higher "
            "cf_continual_learning_rate move vectors that are trained",
            folder, "nothing" if median is None else f"{median:.2g}",
        )  # fmt: skip
    if "confidence_and_drift" in figures and figures["by_cf_drift"]:
        sure = [group["confidence"] for group in figures["by_cf_drift"]]
        log.info(
            "%s: drift confidence %.3f of the items that drifted most, %.3f of those that drifted "
            "least, deviation %.3f, rank correlation with the drift %s", folder, sure[0], sure[-1],
            figures["confidence_deviation"], _cell(figures["confidence_and_drift"] or 0.0),
        )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: float) -> str | None:
    return f"{value:.6g}" if math.isfinite(value) else None


def plot_drift(figures: Mapping[str, Any]) -> Figure:
    """Change rate by decile of collaborative drift and of drift confidence."""
    titles = {"by_cf_drift": "collaborative drift", "by_confidence": "drift confidence"}
    shown = [key for key in titles if figures[key]] or ["by_cf_drift"]
    figure, places = panels(len(shown), size=(5.5, 4.0), sharey=True)
    for panel, key in zip(places, shown):
        rates = [group["change_rate"] for group in figures[key]]
        panel.bar(range(1, len(rates) + 1), rates)
        panel.axhline(figures["change_rate"], color="grey", linewidth=0.8, label="all old items")
        title = f"By {titles[key]}"
        if key == "by_cf_drift":
            title += _size_of(figures["median_drift"])
        panel.set(title=title, xlabel="decile, the highest first")
        sure = [group.get("confidence") for group in figures[key]]
        if None not in sure and sure:
            line = (range(1, len(sure) + 1), sure)
            panel.plot(*line, color=COLOURS[1], marker="o", label="mean drift confidence")
        panel.set_xticks(range(1, len(rates) + 1))
        legend(panel)
    places[0].set_ylim(0, 1)
    places[0].set_ylabel("share of items with another SID")
    return figure


def _size_of(median: float | None) -> str:
    if median is None:
        return ", of which there is none"
    none = ": no drift" if median < LEAST_DRIFT else ""
    return f" (median 1 - cosine {median:.2g}{none})"
