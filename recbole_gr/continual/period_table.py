"""The table of a continual run: periods and methods, with churn and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from recbole_gr.data.ties import tied_text
from recbole_gr.report.charts import COLOURS
from recbole_gr.report.comparison import with_interval
from recbole_gr.report.figure import interval_rows, legend, panels
from recbole_gr.report.metrics import metric_columns, metric_title
from recbole_gr.report.table import Column, table_text, write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEAD = (Column("period"), Column("model"), Column("method"))
_TAIL = (
    Column("churn raw", "{:.4f}"), Column("raw to served", "{:.4f}"),
    Column("churn final", "{:.4f}"),
    Column("raw by level"), Column("final by level"),
    Column("tokenizer s", "{:.3g}"), Column("recommender s", "{:.3g}"),
)  # fmt: skip


def write_continual_report(
    results: list[dict[str, Any]], folder: Path
) -> tuple[dict[str, str], str]:
    """Write `continual.md`, `.csv`, `.json` and `.png` into `folder`.

    Args:
        results (list[dict]): of `recbole_gr.continual.runner.ContinualRun`, in its order.
        folder (pathlib.Path): made if missing; files of an earlier call are replaced.

    Returns:
        tuple: paths by "md", "csv", "json", "png", and the table as markdown.
    """
    columns, rows = continual_table(results)
    table = table_text(columns, rows, mark_best=False)
    files = write_files(
        folder,
        "continual",
        md=f"# Periods and methods\n\n{table}\n\n{_LEGEND}\n{_ties(results)}",
        rows=[[column.title for column in columns], *rows],
        data=results,
        figure=plot_continual(results),
    )
    return {kind: str(path) for kind, path in files.items()}, table


_LEGEND = (
    "Method: tokenizer/recommender, or the recommender alone for models without SIDs. Period 0 is "
    "shared. Churn: share of old items that changed, at any level and level by level, the suffix "
    "last. Raw: codes of the tokenizer, before Sinkhorn and suffixes, against those of the one of "
    "the period before; raw to served: the same codes against the SIDs served so far, of which "
    "Sinkhorn has moved some in the first period, so that a frozen tokenizer has some here too; "
    "final: SIDs served now against those served so far. Seconds of training."
)


def _ties(results: list[dict[str, Any]]) -> str:
    """How many test targets of each period are tied in time, a line each."""
    lines: dict[str, None] = {}
    for result in results:
        targets = result.get("test_targets") or {}
        if targets.get("tied") is not None:
            text = tied_text(targets["tied"], targets["count"])
            lines[f"- period {result['period']}: {text}"] = None
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def continual_table(results: list[dict[str, Any]]) -> tuple[list[Column], list[list]]:
    """One row a period and method, then the mean of each method over the later periods.

    Returns:
        tuple[list[Column], list[list]]: columns and rows; None where there is no such figure.
    """
    names = metric_columns(result["test_result"] for result in results)
    rows = [[str(result["period"]), *_row(result, names)] for result in _first_period(results)]
    later = [result for result in results if result["period"]]
    rows += [[str(result["period"]), *_row(result, names)] for result in later]
    if len({result["period"] for result in later}) > 1:
        for key in dict.fromkeys((r["model"], r["method"]) for r in later):
            same = [_row(r, names) for r in later if (r["model"], r["method"]) == key]
            rows.append(["mean", *key, *(_mean(cells) for cells in list(zip(*same))[2:])])
    return [*_HEAD, *names.values(), *_TAIL], rows


def _first_period(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shared first period once a model."""
    seen: dict[str, dict[str, Any]] = {}
    for result in results:
        if result["period"] == 0:
            seen.setdefault(result["model"], {**result, "method": "start"})
    return list(seen.values())


def _row(result: dict[str, Any], names: Iterable[str]) -> list:
    churn = result["churn"] or {}
    test = result["test_result"]
    return [
        result["model"], result["method"], *(test.get(name) for name in names),
        *(churn.get(kind) for kind in ("raw_any", "served_any", "final_any")),
        _levels(churn.get("raw")), _levels(churn.get("final")),
        result["tokenizer_seconds"], result["recommender_seconds"],
    ]  # fmt: skip


def _levels(shares: Sequence[float] | None) -> str | None:
    return None if shares is None else " ".join(f"{share:.3f}" for share in shares)


def _mean(cells: Sequence[object]) -> float | None:
    numbers = [cell for cell in cells if isinstance(cell, float)]
    return mean(numbers) if len(numbers) == len(cells) else None


def plot_continual(results: list[dict[str, Any]]) -> Figure:
    """NDCG (or the last metric) of each method in each period with its interval over users, so that
    methods that are alike stand beside each other; and churn."""
    names = list(metric_columns(result["test_result"] for result in results))
    metric = next((name for name in reversed(names) if name.startswith("ndcg")), names[-1])
    later = [result for result in results if result["period"]] or results
    periods = sorted({result["period"] for result in later})
    methods = list(dict.fromkeys((r["model"], r["method"]) for r in later))
    own = {(r["model"], r["method"], r["period"]): with_interval(r, metric) for r in later}
    height = max(4.2, 1.5 + 0.16 * len(methods) * len(periods))
    figure, (left, right) = panels(2, size=(6.5, height))
    groups = {f"period {p}": [own.get((*method, p)) for method in methods] for p in periods}
    one = len({model for model, _ in methods}) == 1
    interval_rows(left, [m if one else f"{model} {m}" for model, m in methods], groups)
    left.set(xlabel=metric_title(metric), title="Test of the period, 95 % over users")
    legend(left, across=4)
    hows = list(dict.fromkeys(r["tokenizer"] for r in later if r["churn"]))
    for how in hows:
        colour = COLOURS[hows.index(how) % len(COLOURS)]
        churns = {r["period"]: r["churn"] for r in later if r["tokenizer"] == how and r["churn"]}
        for kind, line in (("raw_any", ":"), ("final_any", "-")):
            shares = [churn[kind] for churn in churns.values()]
            label = f"{how}, {kind.partition('_')[0]}"
            right.plot(list(churns), shares, line, color=colour, marker="o", label=label)
    right.set(xlabel="period", ylabel="share of old items", title="Churn", ylim=(0, 1))
    right.set_xticks(periods)
    right.grid(alpha=0.3)
    legend(right)
    return figure
