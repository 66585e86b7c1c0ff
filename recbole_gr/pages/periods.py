"""The page of a run over periods: each method in each period, churn, drift, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr.config.command_lines import recommend_command
from recbole_gr.pages.parts import (
    bucket_parts,
    by_cut_off,
    copyable,
    hash_table,
    record_parts,
    row_height,
    setting_text,
    typed,
    walk_section,
)
from recbole_gr.report import charts
from recbole_gr.report.metrics import metric_columns, metric_title
from recbole_gr.report.page import Section, chart, details, panels, paragraph, table, write_page
from recbole_gr.report.table import Column
from recbole_gr.storage.json_files import load_json
from recbole_gr.storage.manifest import NAME

if TYPE_CHECKING:
    import os

SOURCE = "continual.json"
_CHURN = {
    "raw_any": "codes of the tokenizer against those of the period before",
    "served_any": "codes of the tokenizer against the SIDs served",
    "final_any": "SIDs served against those served before",
}


def write_periods_page(
    folder: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> Path:
    """Write `continual.html` from `continual.json`; returns its path.

    Args:
        folder: of the report of a run over periods.
        to: the folder of the page, if it is not to lie there.

    Raises:
        ConfigError: the JSON cannot be read.
    """
    folder = Path(folder)
    results = load_json(folder / SOURCE)
    manifest = load_json(folder / NAME) if (folder / NAME).is_file() else {}
    made = manifest.get("continual") or {}
    sections = [
        Section("Test of each period", _tests(results)),
        Section("Churn of SIDs", _churn(results)),
        Section("Which targets are found", _buckets(results)),
        Section("Costs", _costs(results)),
        _drift(results),
        walk_section(folder),
        _settings(made),
        Section("Provenance", [*record_parts(manifest), hash_table(made.get("data") or {})]),
        _commands(manifest, results, folder),
    ]
    name = f"Periods of {made['dataset']}" if made.get("dataset") else "Periods"
    return write_page(Path(to or folder, "continual.html"), name, sections, folder.name)


def _methods(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """By method and period the results after the first period, which all methods share; that one
    alone where there is no other."""
    later = [r for r in results if r["period"]] or results
    several = len({r["model"] for r in results}) > 1
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for r in later:
        name = f"{r['model']} {r['method']}" if several else r["method"]
        found.setdefault(name, {})[r["period"]] = r
    return found


def _tests(results: Sequence[Mapping[str, Any]]) -> list[str]:
    methods = _methods(results)
    metrics = metric_columns(r["test_result"] for r in results)
    periods = sorted({period for by_period in methods.values() for period in by_period})
    figures = {}
    for metric in metrics:
        groups = {}
        for period in periods:
            own = [by_period.get(period) or {} for by_period in methods.values()]
            values = [r.get("test_result", {}).get(metric) for r in own]
            known = [(r.get("test_interval") or {}).get("metrics", {}) for r in own]
            ends = [each.get(metric) for each in known]
            groups[f"period {period}"] = (values, ends)
        figure = charts.intervals(list(methods), groups, metric_title(metric))
        size = row_height(len(methods) * max(1, len(groups)) * 2 // 3) + 30
        figures[metric] = chart(figure, size)
    rows = [
        [f"{r['model']} {r['method']}", r["period"], *map(r["test_result"].get, metrics)]
        for r in results
    ]
    head = [Column("method"), Column("period"), *metrics.values()]
    sure = "Intervals are 95 % over users, of one training each; the first period is shared."
    whole = table(head, rows, mark_best=False)
    return [*by_cut_off(figures), paragraph(sure), whole]


def _churn(results: Sequence[Mapping[str, Any]]) -> list[str]:
    tokenizers: dict[str, dict[int, Mapping[str, Any]]] = {}
    for r in results:
        if r.get("churn") and r["period"]:
            tokenizers.setdefault(r["tokenizer"], {})[r["period"]] = r["churn"]
    if not tokenizers:
        return []
    plots = []
    for key, told in _CHURN.items():
        lines = {
            name: (list(churns), [churn.get(key) for churn in churns.values()])
            for name, churns in tokenizers.items()
        }
        if all(share is None for _, shares in lines.values() for share in shares):
            continue
        figure = charts.curves(lines, f"share of old items: {told}", "period")
        figure["layout"]["yaxis"] = {"range": [-0.02, 1.02]}
        plots.append(chart(figure, 280))
    rows = [
        [
            name,
            period,
            *map(churn.get, _CHURN),
            _levels(churn.get("raw")),
            _levels(churn.get("final")),
        ]
        for name, churns in tokenizers.items()
        for period, churn in churns.items()
    ]
    head = [Column("tokenizer"), Column("period")]
    head += [Column(title, "{:.4f}") for title in ("raw", "raw to served", "final")]
    head += [Column("raw by level"), Column("final by level")]
    return [panels(plots), table(head, rows, mark_best=False)]


def _levels(shares: Sequence[float] | None) -> str | None:
    return None if shares is None else " ".join(f"{share:.3f}" for share in shares)


def _buckets(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        (f"period {period}, {name}", bucket, figures["targets"],
         {k: v for k, v in figures.items() if k != "targets"})
        for name, by_period in _methods(results).items() for period, r in by_period.items()
        for bucket, figures in (r.get("test_buckets") or {}).items()
    ]  # fmt: skip
    parts = bucket_parts(
        sorted(lines, key=lambda line: line[0]), "interactions of the target in training"
    )
    return [details("Table", parts[-1])] if parts else []


def _costs(results: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [f"{r['model']} {r['method']}", r["period"], r.get("tokenizer_seconds"),
         r.get("recommender_seconds"), r.get("epochs_run")]
        for r in results
    ]  # fmt: skip
    head = [Column("method"), Column("period"), Column("tokenizer s", "{:.3g}")]
    head += [Column("recommender s", "{:.3g}"), Column("epochs", "{:.0f}")]
    return [table(head, rows, mark_best=False)]


def _drift(results: Sequence[Mapping[str, Any]]) -> Section:
    """Change rates by decile of drift, where a result names them."""
    plots = []
    seen: set[tuple[Any, Any]] = set()
    for r in results:
        drift = r.get("drift") or {}
        place = (r["period"], r.get("tokenizer"))
        if not drift.get("by_cf_drift") or place in seen:
            continue
        seen.add(place)
        rates = [group["change_rate"] for group in drift["by_cf_drift"]]
        names = [str(number + 1) for number in range(len(rates))]
        groups: dict[str, tuple[list[str], list[float | None]]] = {"other SID": (names, rates)}
        sure = [group.get("confidence") for group in drift["by_cf_drift"]]
        if None not in sure:
            groups["drift confidence"] = (names, sure)
        elif not any(rates):
            continue  # as of a tokenizer that is frozen: no item has another SID
        median = drift.get("median_drift")
        told = "none" if median is None else f"{median:.2g}"
        title = f"period {r['period']}, {r.get('tokenizer')}: decile of drift, the highest first"
        figure = charts.bars(groups, f"{title} (median 1 - cosine {told})")
        figure["layout"]["yaxis"] = {"range": [0, 1]}
        plots.append(chart(figure, 260))
    return Section("Changes by collaborative drift", [panels(plots)] if plots else [])


def _settings(made: Mapping[str, Any]) -> Section:
    given = made.get("settings") or {}
    rows = [[key, setting_text(value)] for key, value in given.items()]
    parts = [table([Column("key"), Column("value")], rows, texts=True)] if rows else []
    return Section("Settings given", parts)


def _commands(
    manifest: Mapping[str, Any], results: Sequence[Mapping[str, Any]], folder: Path
) -> Section:
    made = manifest.get("command")
    commands: dict[str, str | None] = {
        "The run, which goes on where it is": typed(made) if made else None,
        "Run it again and compare": f"recbole-gr verify {folder / NAME}" if made else None,
    }
    for name, by_period in _methods(results).items():
        last = by_period[max(by_period)]
        ask = recommend_command(last.get("checkpoint"), last.get("example"))
        commands[f"Recommend after period {last['period']}, {name}"] = ask
    return Section("Commands", copyable(commands))
