"""The first and the last lines of a run: its data, its results, and the command that uses it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from recbole_gr.config.command_lines import example_in_file, recommend_command
from recbole_gr.report.metrics import cut_off, metric_title

if TYPE_CHECKING:
    from recbole_gr.config import Config


def opening_line(config: Config, dataset: Any, n_targets: int, log: str | None) -> str:
    """What a run is about: `SASRec on ml-100k: 943 users, 1,682 items, 97,171 training targets`.

    Args:
        config: of the run.
        dataset: as it was read.
        n_targets: to train on.
        log: the log file, which has the settings.
    """
    counts = {"users": dataset.uid_field, "items": dataset.iid_field}
    parts = [f"{dataset.num(field) - 1:,} {name}" for name, field in counts.items() if field]
    parts.append(f"{n_targets:,} training targets")
    where = f"; settings in {os.path.relpath(log)}" if log else ""
    return f"{config['model']} on {config['dataset']}: {', '.join(parts)}{where}"


def interval_text(result: Mapping[str, Any], most: int = 2) -> str:
    """`Recall@10 0.1092 [0.0896, 0.1288], NDCG@10 0.0521 [0.0421, 0.0621] (95 % over 943 users)`:
    the first metrics of the largest cut-off.

    Args:
        result: as `run_recbole_gr` returns it for one model.
        most: metrics to name.
    """
    test = result.get("test_result") or {}
    interval = result.get("test_interval") or {}
    shown = []
    for name in sorted(test, key=cut_off, reverse=True)[:most]:  # of equal ones in their order
        ends = interval["metrics"].get(name) if interval else None
        sure = f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
        shown.append(f"{metric_title(name)} {test[name]:.4f}{sure}")
    return ", ".join(shown) + (f" (95 % over {interval['users']:,} users)" if interval else "")


def outcome_lines(result: Mapping[str, Any]) -> list[str]:
    """What came out of the run of one model, and how to ask it."""
    epoch = result.get("best_epoch")
    best = "" if epoch is None or epoch < 0 else f"best epoch {epoch}, "
    lines = [f"{result['model']}: {best}test {interval_text(result)}"]
    if result.get("checkpoint"):
        lines.append(f"  checkpoint: {result['checkpoint']}")
    asked = recommend_command(result.get("checkpoint"), result.get("example"))
    if asked:
        lines.append(f"  recommend:  {asked}")
    return lines


def closing_lines(outcome: Mapping[str, Any], arguments: Iterable[str] = ()) -> list[str]:
    """The last lines of a run: those of each model, and where the report is.

    Of a run over periods they are those of the last one, with the method that validated best.

    Args:
        outcome: as `run_recbole_gr` returns it.
        arguments: of the command line.
    """
    results = outcome.get("results", [outcome])
    if "period" in results[0]:
        last = [r for r in results if r["period"] == results[-1]["period"]]
        named = [{**r, "model": f"Period {r['period']}, {r['model']} {r['method']}"} for r in last]
        scores = [r.get("best_valid_score") for r in last]
        known = [number for number, score in enumerate(scores) if score is not None]
        best = max(known, key=lambda number: scores[number], default=0)
        lines = [outcome_lines(r)[0] for r in named[:best] + named[best + 1 :]]
        example = example_in_file(last[best].get("example"), arguments)
        lines += outcome_lines({**named[best], "example": example})
    else:
        lines = [line for result in results for line in outcome_lines(result)]
    return [*lines, f"Report: {outcome['files']['md']} and beside it."]
