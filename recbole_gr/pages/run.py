"""The page of a run: metrics with intervals, learning curves, buckets, settings, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_gr.config.command_lines import export_command, recommend_command
from recbole_gr.errors import ConfigError
from recbole_gr.pages.parts import (
    bucket_parts,
    copyable,
    hash_table,
    interval_panels,
    metric_table,
    record_parts,
    settings_section,
    typed,
    walk_section,
)
from recbole_gr.report import charts
from recbole_gr.report.comparison import comparison_table
from recbole_gr.report.metrics import metric_title
from recbole_gr.report.page import Section, chart, panels, paragraph, table, write_page
from recbole_gr.report.ranks import metric_of
from recbole_gr.report.redistribution import FLOOR, heat_map
from recbole_gr.sid.formats import level_name
from recbole_gr.storage.json_files import load_json
from recbole_gr.storage.manifest import NAME
from recbole_gr.untrusted.archives import load_npz

if TYPE_CHECKING:
    import os

SOURCE = "results.json"


def write_run_page(
    folder: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> Path:
    """Write `results.html` from `results.json`, and what else lies beside it.

    Args:
        folder: of the report of a run.
        to: the folder of the page, if it is not to lie there.

    Returns:
        pathlib.Path: of the page.

    Raises:
        ConfigError: the JSON cannot be read, or holds no run.
    """
    folder = Path(folder)
    results = load_json(folder / SOURCE)
    if not results:
        raise ConfigError(f"'{folder / SOURCE}' holds no run")
    manifest = load_json(folder / NAME) if (folder / NAME).is_file() else {}
    names = _names(results)
    dataset = ", ".join(dict.fromkeys(str(result.get("dataset")) for result in results))
    sections = [
        _test(results, names),
        _learning(results, names),
        _buckets(results, names, folder),
        _redistribution(results, names),
        walk_section(folder),
        settings_section(dict(zip(names, results))),
        _provenance(manifest, results, names),
        _commands(manifest, results, names, folder),
    ]
    return write_page(
        Path(to or folder, "results.html"),
        f"{', '.join(names)} on {dataset}",
        sections,
        folder.name,
    )


def _names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of models, numbered where one stands twice."""
    models = [str(result["model"]) for result in results]
    return [
        name if models.count(name) == 1 else f"{name} ({models[:number].count(name) + 1})"
        for number, name in enumerate(models)
    ]


def _test(results: Sequence[dict[str, Any]], names: Sequence[str]) -> Section:
    measured = {
        name: (r.get("test_result") or {}, (r.get("test_interval") or {}).get("metrics") or {})
        for name, r in zip(names, results)
    }
    columns, rows = comparison_table([{**r, "model": n} for n, r in zip(names, results)])
    users = [r["test_interval"]["users"] for r in results if r.get("test_interval")]
    sure = f"Intervals are 95 % over {users[0]:,} users, of one training each." if users else ""
    parts = [*interval_panels(measured), table(columns, rows), paragraph(sure) if sure else ""]
    other = {
        n: r["test_result_without_history"]
        for n, r in zip(names, results)
        if r.get("test_result_without_history")
    }
    if other:
        parts.append(paragraph("With the history of each user left out of the ranking:"))
        parts.append(metric_table(other))
    return Section("Test", parts)


def _learning(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Section:
    lines = {
        name: tuple(zip(*result["valid_curve"]))
        for name, result in zip(names, results)
        if len(result.get("valid_curve") or []) > 1
    }
    metric = next((str(r["config"]["valid_metric"]) for r in results if r.get("config")), "score")
    plots = []
    if lines:
        title = f"validation {metric_title(metric.lower())}"
        plots.append(chart(charts.curves(lines, title)))  # type: ignore[arg-type]
    same: list[str] = []
    for name, result in zip(names, results):
        own = name if len(results) > 1 else ""
        drawn, constant = _topics(own, result.get("epoch_figures") or [])
        plots, same = plots + drawn, same + constant
    told = [paragraph("The same in all epochs. " + "; ".join(same) + ".")] if same else []
    return Section("Learning", ([panels(plots)] if plots else []) + told)


def _topics(name: str, figures: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """A figure a topic of what a model measures each epoch, with a line where a stage begins; and
    in words what never changes."""
    topics: dict[str, dict[str, None]] = {}
    for entry in figures:
        for topic, values in entry["figures"].items():
            topics.setdefault(topic, {}).update(dict.fromkeys(values))
    epochs = [entry["epoch"] for entry in figures]
    begins = [
        now["epoch"] - 0.5
        for last, now in zip(figures, figures[1:])
        if now["stage"] != last["stage"]
    ]
    plots, constant = [], []
    topics.pop("validation", None)  # stands in the figure of all models
    for topic, keys in topics.items():
        lines = {
            metric_title(key): (epochs, [e["figures"].get(topic, {}).get(key) for e in figures])
            for key in keys
        }
        title = f"{name}: {topic}" if name else topic
        if all(len(set(values) - {None}) < 2 for _, values in lines.values()):
            shown = (
                f"{key} {next((v for v in values if v is not None), math.nan):.4g}"
                for key, (_, values) in lines.items()
            )
            constant.append(f"{title}: {', '.join(shown)}")
        else:
            plots.append(chart(charts.curves(lines, title, marks=begins)))
    return plots, constant


def _buckets(results: Sequence[Mapping[str, Any]], names: Sequence[str], folder: Path) -> Section:
    lines = [
        (name, bucket, figures["targets"], {k: v for k, v in figures.items() if k != "targets"})
        for name, result in zip(names, results)
        for bucket, figures in (result.get("test_buckets") or {}).items()
    ]
    parts = bucket_parts(lines, "interactions of the target in training")
    ties = [
        (name, *tie)
        for name, result in zip(names, results)
        for tie in _by_ties(folder / f"ranks-{result['model']}.npz")
    ]
    if len(set(names)) == len({r["model"] for r in results}):  # of two of a name one file is left
        parts += bucket_parts(ties, "time of the target")
    return Section("Which targets are found", parts)


def _by_ties(path: Path) -> list[tuple[str, int, dict[str, float]]]:
    """Recall@10 and NDCG@10 of targets that are tied in time with the event before, and of others;
    nothing where no target is tied, or nothing is known."""
    if not path.is_file():
        return []
    try:
        ranks = load_npz(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"'{path}' cannot be read: {error}; remove it") from error
    key = next((name for name in ("with_history", "without_history") if name in ranks), None)
    if key is None or "tied" not in ranks or not ranks["tied"].any():
        return []
    tied, found = ranks["tied"], []
    values = {metric: metric_of(ranks[key], metric) for metric in ("recall@10", "ndcg@10")}
    for name, rows in (("as that of the event before", tied), ("later", ~tied)):
        if rows.any():
            means = {metric: float(value[rows].mean()) for metric, value in values.items()}
            found.append((name, int(rows.sum()), means))
    return found


def _redistribution(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Section:
    parts = []
    for name, result in zip(names, results):
        for item in result.get("redistribution") or []:
            picture = heat_map(item)
            levels = [level_name(level) for level in range(len(picture))]
            best = [int(np.nanargmax(row)) for row in picture]
            title = f"{name}, item {item['item']}: SID {item['sid']}, most probable {best}"
            figure = charts.heat_map(
                picture.tolist(),
                levels,
                title,
                (FLOOR, 0),
                item["sid"],
                "SID of stage 1",
                "log10 p",
            )
            parts.append(chart(figure, 120 + 34 * len(levels)))
    return Section("Redistribution of single items", parts)


def _provenance(
    manifest: Mapping[str, Any], results: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Section:
    parts = record_parts(manifest)
    files: dict[str, Any] = {}
    for run in manifest.get("runs", []):
        files |= run.get("data") or {}
    for name, result in zip(names, results):
        if result.get("sid_digest"):
            files[f"SIDs of {name}"] = result["sid_digest"]
    return Section("Provenance", [*parts, hash_table(files)])


def _commands(
    manifest: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    folder: Path,
) -> Section:
    made = manifest.get("command")
    commands: dict[str, str | None] = {
        "The run": typed(made) if made else None,
        "Run it again and compare": f"recbole-gr verify {folder / NAME}" if made else None,
    }
    for name, result in zip(names, results):
        checkpoint = result.get("checkpoint")
        ask = recommend_command(checkpoint, result.get("example"))
        commands[f"Recommend with {name}"] = ask
        if checkpoint and ask and result.get("sid_digest"):
            commands[f"Export {name}"] = export_command(checkpoint)
    return Section("Commands", copyable(commands))
