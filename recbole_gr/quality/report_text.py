"""The quality report in lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_gr.sid.formats import level_name

if TYPE_CHECKING:
    from recbole_gr.quality.measures import QualityReport


def report_text(report: QualityReport) -> str:
    """A :class:`~recbole_gr.quality.measures.QualityReport` for a log or a terminal."""
    lines = [
        f"SID quality: {report.n_items} items, {report.distinct} distinct SIDs, "
        f"{report.n_levels} levels {tuple(report.sizes)}",
        f"  items that share their SID: {report.collision_rate:.2%}   "
        f"1 - distinct/items: {report.duplicate_rate:.2%}   "
        f"largest group: {report.largest_group}   Gini: {report.gini:.3f}",
    ]
    if report.before_policy:
        before = report.before_policy
        line = (
            f"  before the collision policy: {before['collision_rate']:.2%}   "
            f"{before['duplicate_rate']:.2%}   largest group: {before['largest_group']}"
        )
        lines.append(line + (f"   Gini: {before['gini']:.3f}" if "gini" in before else ""))
    if report.content_levels == 1 and report.prefixes[0].mean_items < 2:
        lines.append("  one level with a code for nearly every item: it works like item ids")
    lines.append(
        "  level   size   used  utilisation  entropy  perplexity |"
        "  prefixes  items each  largest  children each"
    )
    for number, (level, prefix) in enumerate(zip(report.levels, report.prefixes)):
        lines.append(
            f"  {level_name(number):>5} {level.size:>6} {level.used:>6} "
            f"{level.utilisation:>12.1%} {level.entropy:>8.2f} {level.perplexity:>11.1f} |"
            f"{prefix.distinct:>10} {prefix.mean_items:>11.2f} {prefix.largest:>8} "
            f"{prefix.mean_children:>14.2f}"
        )
    return "\n".join([*lines, *_semantics(report), *_neighbours(report), *_popularity(report)])


def _semantics(report: QualityReport) -> list[str]:
    if not report.semantics:
        return []
    figures, own = report.semantics, report.semantics.get("own")
    lines = [("by content", figures, {"sc": "SC", "sc_content": "SC of the content", "pd": "PD"})]
    if own:
        lines.append(("by the tokenizer's own vectors", own, {"sc": "SC", "pd": "PD"}))
    return [
        "  "
        + "   ".join(
            f"{title} {_number(part[name])} ({' '.join(map(_number, part[f'{name}_levels']))})"
            for name, title in names.items()
        )
        + f"   [{of}]"
        for of, part, names in lines
    ]


def _neighbours(report: QualityReport) -> list[str]:
    if not report.neighbours:
        return []
    figures = report.neighbours
    parts = [
        f"{name} {' '.join(_share(value) for value in figures[name])}"
        for name in ("content", "cooccurrence", "chance")
        if name in figures
    ]
    return [f"  of {figures['k']} neighbours share the prefix: {'   '.join(parts)}"]


def _popularity(report: QualityReport) -> list[str]:
    return [
        f"  {name}: {part['items']} items, {part['interactions']:.1%} of the training "
        f"interactions, {part['unseen']} without any; {part['unique_rate']:.1%} alone on their "
        f"SID, {part['mean_group']:.2f} items on it on average"
        for name, part in report.popularity.items()
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
