"""The table of a continual run: periods and methods, with churn and what they cost."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from recbole_gr.data.ties import tied_text
from recbole_gr.report.table import aligned_table, csv_text
from recbole_gr.storage.files import atomic_write

_METRICS = ("recall", "hit", "ndcg", "precision", "map", "mrr")  # in this order


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
    files = {kind: Path(folder, f"continual.{kind}") for kind in ("md", "csv", "json", "png")}
    columns, rows = continual_table(results)
    table = aligned_table([columns, *([_text(cell) for cell in row] for row in rows)])
    with atomic_write(files["md"]) as tmp:
        page = f"# Periods and methods\n\n{table}\n\n{_LEGEND}\n{_ties(results)}"
        tmp.write_text(page, encoding="utf-8")
    with atomic_write(files["csv"]) as tmp:
        tmp.write_text(csv_text([columns, *rows]), encoding="utf-8")
    with atomic_write(files["json"]) as tmp:
        tmp.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    with atomic_write(files["png"]) as tmp:
        plot_continual(results, tmp)
    return {kind: str(path) for kind, path in files.items()}, table


_LEGEND = (
    "Method: tokenizer/recommender, or the recommender alone for models without SIDs. Period 0 is "
    "shared. Churn: share of old items whose codes changed by the new tokenizer (raw) and whose "
    "SIDs changed after reassignment (final), any level and level by level, the suffix last. "
    "Seconds of training."
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


def continual_table(results: list[dict[str, Any]]) -> tuple[list[str], list[list]]:
    """One row a period and method, then the mean of each method over the later periods.

    Returns:
        tuple[list[str], list[list]]: column names and rows; None where there is no such figure.
    """
    names = _metric_names(results)
    columns = ["period", "model", "method", *map(_title, names), "churn raw", "churn final",
               "raw by level", "final by level", "tokenizer s", "recommender s"]  # fmt: skip
    rows = [[str(result["period"]), *_row(result, names)] for result in _first_period(results)]
    later = [result for result in results if result["period"]]
    rows += [[str(result["period"]), *_row(result, names)] for result in later]
    if len({result["period"] for result in later}) > 1:
        for key in dict.fromkeys((r["model"], r["method"]) for r in later):
            same = [_row(r, names) for r in later if (r["model"], r["method"]) == key]
            rows.append(["mean", *key, *(_mean(cells) for cells in list(zip(*same))[2:])])
    return columns, rows


def _first_period(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shared first period once a model."""
    seen: dict[str, dict[str, Any]] = {}
    for result in results:
        if result["period"] == 0:
            seen.setdefault(result["model"], {**result, "method": "start"})
    return list(seen.values())


def _row(result: dict[str, Any], names: Sequence[str]) -> list:
    churn = result["churn"] or {}
    test = result["test_result"]
    return [
        result["model"], result["method"], *(test.get(name) for name in names),
        churn.get("raw_any"), churn.get("final_any"), _levels(churn.get("raw")),
        _levels(churn.get("final")), result["tokenizer_seconds"], result["recommender_seconds"],
    ]  # fmt: skip


def _levels(shares: Sequence[float] | None) -> str | None:
    return None if shares is None else " ".join(f"{share:.3f}" for share in shares)


def _mean(cells: Sequence[object]) -> float | None:
    numbers = [cell for cell in cells if isinstance(cell, float)]
    return mean(numbers) if len(numbers) == len(cells) else None


def _metric_names(results: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for result in results for name in result["test_result"])

    def place(name: str) -> tuple[int, int]:
        kind, _, cut = name.partition("@")
        order = _METRICS.index(kind) if kind in _METRICS else len(_METRICS)
        return (order, int(cut) if cut.isdigit() else 0)

    return sorted(names, key=place)


def _title(name: str) -> str:
    kind, at, cut = name.partition("@")
    return (kind.upper() if kind in ("ndcg", "mrr", "map") else kind.capitalize()) + at + cut


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.1f}" if cell >= 2 else f"{cell:.4f}"
    return str(cell)


def plot_continual(results: list[dict[str, Any]], path: Path) -> None:
    """NDCG (or the first metric) of each method over the periods, and churn, as PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = _metric_names(results)
    metric = next((name for name in reversed(names) if name.startswith("ndcg")), names[0])
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    later = [result for result in results if result["period"]] or results
    for model, method in dict.fromkeys((r["model"], r["method"]) for r in later):
        own = [r for r in later if (r["model"], r["method"]) == (model, method)]
        values = [r["test_result"][metric] for r in own]
        left.plot([r["period"] for r in own], values, marker="o", label=f"{model} {method}")
    left.set(xlabel="period", ylabel=_title(metric), title="Test of the period")
    left.legend(fontsize="small")
    for how in dict.fromkeys(r["tokenizer"] for r in later if r["churn"]):
        churns = {r["period"]: r["churn"] for r in later if r["tokenizer"] == how and r["churn"]}
        for kind, line in (("raw_any", ":"), ("final_any", "-")):
            shares = [churn[kind] for churn in churns.values()]
            label = f"{how}, {kind.partition('_')[0]}"
            right.plot(list(churns), shares, line, marker="o", label=label)
    right.set(xlabel="period", ylabel="share of old items", title="Churn", ylim=(0, 1))
    if right.lines:
        right.legend(fontsize="small")
    for axes in (left, right):
        axes.set_xticks(sorted({result["period"] for result in later}))
    figure.savefig(path, dpi=120)
