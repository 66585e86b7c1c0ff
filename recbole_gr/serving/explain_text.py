"""An explained answer as text of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from math import exp
from typing import Any

from recbole_gr.serving.levels import BEAM, HISTORY

WIDTH = 100
FIRST = 5  # beams of a level that are listed in any case; of the others those below an answer
FEW = 6  # levels whose codes have a column each
LEGEND = """\
prefix: the codes of a SID so far. log p: natural logarithm of its probability p. p code: that of \
its last code given those before. items: how many have such a SID; the most frequent are named. \
next: beams that extend it at the next level. answer: ranks of recommended items below it. x: \
dropped, by how much log p was missed, or because the history is left out."""
OF_SCORES = {
    "level": "level 1, 2...: log p of each code of the SID given those before; {all} add up to it.",
    "digit": "digit 1, 2...: log p of each code of the SID, whatever the others.",
    "codes": "codes: sum of log p of the codes of the SID, each whatever the others; lowest: the "
    "most improbable ones, by digit.",
    "catalogue": "catalogue: minus the log of what all SIDs of the catalogue have together.",
    "share": "share: log of the part that an item has of a SID that several have.",
    "items": "items: what stands beside the SID adds, a softmax over items or a pointer.",
    "of SID": "of SID: log p of one of several SIDs, which make the score together.",
}


def explained(explanation: dict[str, Any]) -> str:
    """The text of what :func:`recbole_gr.serving.explain.explain` gives; ends in a newline."""
    levels = explanation["levels"]
    parts = [_head(explanation), *(_level(level, len(levels)) for level in levels)]
    if levels:
        parts.append(_wrapped([LEGEND], " "))
    parts += [_answer(explanation), *(_why(entry, explanation) for entry in explanation["why"])]
    return "\n\n".join(parts) + "\n"


def _head(explanation: dict[str, Any]) -> str:
    history, n_read = explanation["history"], explanation["n_read"]
    settings, user = explanation["settings"], explanation["user"]
    who = "history" if user is None else f"user {user}"
    read = f", the last {n_read} of them read" if n_read < len(history) else ""
    if explanation["levels"]:
        over = "the codes that lead to an item" if settings["renormalise"] else "the whole codebook"
        how = f"at most {settings['beam_size']} beams, probabilities over {over}"
    else:
        how = f"all {explanation['n_items']} items are scored: no search, so nothing is dropped"
    left = "out" if settings["exclude_history"] else "in"
    return "\n".join(
        [
            f"{who}: {len(history)} items{read}; the last ones, latest first:",
            _wrapped(map(_name, history[:-6:-1]), "; ", "  "),
            _wrapped([f"{explanation['model']}: {how}; the history left {left}"], " "),
        ]
    )


def _level(level: dict[str, Any], n_levels: int) -> str:
    items, mass, kept = level["items"], level["probability"], level["kept"]
    shown = [beam for place, beam in enumerate(kept) if place < FIRST or beam["ranks"]]
    rest = [beam for place, beam in enumerate(kept) if place >= FIRST and not beam["ranks"]]
    rows = [["", "prefix", "log p", "p", "p code", "items", "next", "answer"]]
    for beam in shown:
        following = "" if beam["children"] is None else str(beam["children"])
        rows.append(["", *_figures(beam), following, " ".join(map(str, beam["ranks"]))])
    for prefix in level["dropped"]:
        missed = f"by {prefix['missed_by']:.4f}" if prefix["why"] == BEAM else prefix["why"]
        rows.append(["x", *_figures(prefix), "", missed])
    if level["level"] == n_levels:  # nothing comes after it
        rows = [[*row[:6], row[7]] for row in rows]
    table = _columns(rows, left=(1, len(rows[0]) - 1), widest=22)
    start = max(map(len, table)) + 2
    found = ["; ".join(map(_title, x["examples"])) for x in [*shown, *level["dropped"]]]
    lines = [
        shortened(f"{line:<{start}}{titles}", WIDTH)
        for line, titles in zip(table, ["most frequent", *found])
    ]
    between = []
    if rest:
        total = sum(beam["probability"] for beam in rest)
        between.append(
            f"  and {len(rest)} more beams without an item of the answer, p {total:.4f} together"
        )
    number = level["n_dropped"]
    if number[BEAM]:
        between.append(
            f"  dropped {number[BEAM]} below the last beam (log p {level['threshold']:.4f}): "
            f"p {mass[BEAM]:.4f} and {items[BEAM]} items lost"
        )
    if number[HISTORY]:
        between.append(
            f"  dropped {number[HISTORY]} with nothing but items of the history: "
            f"p {mass[HISTORY]:.4f}"
        )
    if mass["no_item"] >= 0.00005:
        between.append(f"  p {mass['no_item']:.4f} lost to codes that lead to no item")
    head = (
        f"level {level['level']} of {n_levels}: {level['candidates']} prefixes could follow, "
        f"{len(kept)} kept; {items['kept']} of {items['before']} items still in reach"
    )
    n_kept = 1 + len(shown)
    return "\n".join([head, *lines[:n_kept], *between, *lines[n_kept:]])


def _figures(prefix: dict[str, Any]) -> list[str]:
    return [
        _sid(prefix["prefix"]), f"{prefix['log_prob']:.4f}", f"{prefix['probability']:.4f}",
        f"{exp(prefix['code_log_prob']):.4f}", str(prefix["items"]),
    ]  # fmt: skip


def _answer(explanation: dict[str, Any]) -> str:
    items = explanation["items"]
    if not items:
        return "answer: none; the beams hold no item that may be returned, raise beam_size"
    sources = [source for item in items for source in item["sources"]]
    terms = _terms(items, sources)
    short = all(len(source["sid"]) <= FEW for source in sources)  # a long one tells nothing
    titled = any(item.get("title") for item in items)
    head = [*(title for title, _ in terms), *["SID"] * short, "item", *["title"] * titled]
    rows = [["rank", "score", *head]]
    for item in items:
        start = [str(item["rank"]), f"{item['score']:.4f}"]
        named = [item["item"], *[_title(item)] * titled]
        for source in item["sources"]:
            cells = [form(item, source) for _, form in terms]
            rows.append([*start, *cells, *[_sid(source["sid"])] * short, *named])
            start, named = ["", ""], [""] * len(named)  # further SIDs of the same item
        if item["filled"]:
            rows.append([*start, *[""] * len(terms), *["none"] * short, *named])
    left = [place for place, title in enumerate(rows[0]) if title in ("SID", "title")]
    lines = [shortened(line, WIDTH) for line in _columns(rows, left)]
    found = {title.rstrip(" 0123456789") for title, _ in terms}
    added = "items" in found
    legend = [f"score: {'what items are ranked by' if added else 'log-probability of the item'}."]
    if any(item["filled"] for item in items):
        legend.append("none: no beam ends on the item, which fills a place by its popularity.")
    every = "the columns" if len(found) > 1 else "they"
    legend += [text.format(all=every) for title, text in OF_SCORES.items() if title in found]
    after = [f"{_name(item)} {item['score']:.4f}" for item in explanation["next"]]
    parts = ["\n".join(["answer", *lines]), _wrapped([" ".join(legend)], " ")]
    if explanation["removed"]:
        taken = "; ".join(map(_name, explanation["removed"]))
        on_beam = "on a beam, but " if explanation["levels"] else ""
        parts.append(_wrapped([f"{on_beam}left out with the history: {taken}"], " "))
    if after:
        parts.append(_wrapped([f"would follow: {'; '.join(after)}"], " "))
    return "\n\n".join(parts)


def _terms(items: Sequence[dict], sources: Sequence[dict]) -> list[tuple[str, Any]]:
    """Titles of the terms that there are, and what makes the cell of one of an item's SIDs."""
    terms: list[tuple[str, Any]] = []
    if any(len(item["sources"]) > 1 for item in items):
        terms.append(("of SID", lambda item, source: _number(source["log_prob"])))
    codes = [source["code_log_probs"] for source in sources]
    parallel = any(source["normaliser"] is not None for source in sources)
    if codes and None not in codes:
        n_levels, word = len(codes[0]), "digit" if parallel else "level"
        if n_levels <= FEW:
            terms += [
                (f"{word} {n + 1}", lambda item, source, n=n: _number(source["code_log_probs"][n]))
                for n in range(n_levels)
            ]
        else:
            terms.append(("codes", lambda item, source: _number(sum(source["code_log_probs"]))))
            terms.append(("lowest", lambda item, source: _lowest(source["code_log_probs"])))
    if parallel:
        terms.append(("catalogue", lambda item, source: _number(source["normaliser"])))
    if any(source["log_share"] for source in sources):
        terms.append(("share", lambda item, source: _number(source["log_share"])))
    if any(item["added"] is not None for item in items):
        terms.append(("items", lambda item, source: _number(item["added"])))
    return terms


def _lowest(codes: Sequence[float]) -> str:
    lowest = sorted(range(len(codes)), key=codes.__getitem__)[:2]
    return ", ".join(f"{place + 1}: {codes[place]:.2f}" for place in lowest)


def _why(entry: dict[str, Any], explanation: dict[str, Any]) -> str:
    rank, items = entry["rank"], explanation["items"]
    left_out = "; left out as an item of the history" if entry["left_out"] else ""
    lines = [f"why {_name(entry)}: " + (f"rank {rank}" if rank else f"not in the answer{left_out}")]
    if entry["place"] is not None:
        last = f"; rank {items[-1]['rank']} has {items[-1]['score']:.4f}" if items else ""
        without = "scored without a search: " if explanation["levels"] else "score "
        lines.append(
            f"  {without}{entry['score']:.4f}, place {entry['place']} of "
            f"{explanation['n_items']}{last}"
        )
    rows = []
    for sid in entry["sids"]:
        for step in sid["steps"]:
            what = {None: "kept", BEAM: "dropped", HISTORY: "dropped with the history"}
            missed = "" if step["missed_by"] is None else f"missed by {step['missed_by']:.4f}"
            rows.append([_sid(step["prefix"]), what[step["dropped"]],
                         f"log p {step['log_prob']:.4f}",
                         f"place {step['place']} of {step['of']}", missed])  # fmt: skip
    if rows:
        lines += [f"  {line}" for line in _columns(rows, range(5))]
    if explanation["levels"] and entry["sources"] and not (rank or left_out):
        lines.append(f"  a beam ends on it; it comes after rank {explanation['settings']['k']}")
    for source in [] if explanation["levels"] else entry["sources"]:
        cells = [f"{title} {form(entry, source)}" for title, form in _terms([entry], [source])]
        lines.append(_wrapped([f"SID {_sid(source['sid'])}", *cells], "; ", "  "))
    return "\n".join(lines)


def _columns(
    rows: Sequence[Sequence[str]], left: Collection[int] = (), widest: int = WIDTH
) -> list[str]:
    """Lines of equal columns, those of `left` to the left and the others to the right."""
    widths = [min(widest, max(map(len, column))) for column in zip(*rows)]
    return [
        "  ".join(
            shortened(cell, width).ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _number(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # + 0.0 turns -0.0 into 0.0


def _sid(codes: Iterable[int]) -> str:
    return "-".join(map(str, codes))


def _title(item: dict[str, Any]) -> str:
    return item.get("title") or item["item"]


def _name(item: dict[str, Any]) -> str:
    return f"{item['item']} {item['title']}" if item.get("title") else item["item"]


def shortened(text: str, width: int) -> str:
    """At most `width` characters, without blanks at the end; "..." where something is left out."""
    text = text.rstrip()
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."


def _wrapped(parts: Iterable[str], between: str, indent: str = "") -> str:
    return textwrap.fill(
        between.join(parts), WIDTH, initial_indent=indent, subsequent_indent=indent or "  "
    )
