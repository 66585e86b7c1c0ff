"""What other SIDs do to a recommender that stays as it was: by period, and by how many changed.

DACT's first claim is that a tokenizer can follow the data without ruining a recommender that knows
the SIDs of before. A recommender that is never trained again shows that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from recbole_gr.continual.methods import FROZEN
from recbole_gr.report.figure import legend, panels
from recbole_gr.report.metrics import metric_columns, metric_title
from recbole_gr.report.table import write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = ("model", "tokenizer", "period", "runs", "metric", "value", "changed since period 0")


def disruption(results: Sequence[dict[str, Any]], metric: str = "") -> list[dict[str, Any]]:
    """Test metric of recommenders that stay as after period 0, by tokenizer and period.

    Args:
        results: of runs over periods, those of several seeds among them.
        metric: its name in `test_result`; by default NDCG of the largest cut-off.

    Returns:
        list[dict]: ``model``, ``tokenizer``, ``period``, ``runs`` (how many the rest is the mean
        of), ``metric``, ``value`` and ``changed``: the share of the items of period 0 that have
        other SIDs now.
    """
    own = [
        r for r in results if r["period"] and r["recommender"] == FROZEN and r["tokenizer"]
        and r["churn"] and "since_start" in r["churn"]
    ]  # fmt: skip
    names = list(metric_columns(r["test_result"] for r in own))
    metric = metric or next((n for n in reversed(names) if n.startswith("ndcg")), "")
    metric = metric or (names[0] if names else "")
    places = dict.fromkeys((r["model"], r["tokenizer"], r["period"]) for r in own)
    points = []
    for model, tokenizer, period in places:
        same = [
            r for r in own
            if (r["model"], r["tokenizer"], r["period"]) == (model, tokenizer, period)
            and r["test_result"].get(metric) is not None
        ]  # fmt: skip
        if same:
            value = mean(r["test_result"][metric] for r in same)
            changed = mean(r["churn"]["since_start"] for r in same)
            points.append(
                dict(model=model, tokenizer=tokenizer, period=period, runs=len(same), metric=metric,
                     value=value, changed=changed)
            )  # fmt: skip
    return points


def write_disruption(results: Sequence[dict[str, Any]], folder: Path) -> dict[str, str]:
    """Write `disruption.csv` and `disruption.png`; nothing where no recommender stayed while SIDs
    followed in two ways.

    Returns:
        dict: paths by "disruption csv" and "disruption".
    """
    points = disruption(results)
    if len({point["tokenizer"] for point in points}) < 2:
        return {}
    rows = [HEAD, *(tuple(point.values()) for point in points)]
    files = write_files(folder, "disruption", rows=rows, figure=plot_disruption(points))
    return {"disruption csv": str(files["csv"]), "disruption": str(files["png"])}


def plot_disruption(points: Sequence[dict[str, Any]]) -> Figure:
    """The metric over the periods, and against the share of items whose SIDs are others; a row of
    panels a model."""
    models = list(dict.fromkeys(point["model"] for point in points))
    figure, places = panels(2 * len(models), size=(5.5, 4.0), across=2)
    for number, model in enumerate(models):
        over_time, by_churn = places[2 * number : 2 * number + 2]
        own = [point for point in points if point["model"] == model]
        for tokenizer in dict.fromkeys(point["tokenizer"] for point in own):
            line = [point for point in own if point["tokenizer"] == tokenizer]
            periods = [point["period"] for point in line]
            values = [point["value"] for point in line]
            changed = [point["changed"] for point in line]
            (drawn,) = over_time.plot(periods, values, marker="o", label=tokenizer)
            by_churn.plot(
                changed, values, ":", color=drawn.get_color(), marker="o", label=tokenizer
            )
            for period, x, y in zip(periods, changed, values):
                by_churn.annotate(str(period), (x, y), xytext=(4, 4), textcoords="offset points")
        title = f"{model}, never trained after period 0"
        over_time.set(xlabel="period", ylabel=metric_title(own[0]["metric"]), title=title)
        over_time.set_xticks(sorted({point["period"] for point in own}))
        by_churn.set(
            xlabel="share of period 0's items with other SIDs now", xlim=(-0.03, 1.03),
            ylabel=metric_title(own[0]["metric"]), title="The same by changed SIDs (period beside)",
        )  # fmt: skip
        for panel in (over_time, by_churn):
            panel.set_ylim(bottom=0)
            legend(panel)
    return figure
