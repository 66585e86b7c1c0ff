"""Which items of a walk have other SIDs at its end than at its beginning, as links to them."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from recbole_gr.report.page import details, paragraph

if TYPE_CHECKING:
    from recbole_gr.pages.walk import Walk

MOST = 50  # items that are linked


def sid_changes(walk: Walk) -> list[str]:
    """A sentence with how many items changed, and the most used of them, folded.

    Args:
        walk: with its SIDs of before and after; items that were not there from the beginning are
            not counted.

    Returns:
        list[str]: parts of a page; none without two versions of as many codes.
    """
    if len(walk.versions) < 2:
        return []
    (begin, first), *_, (end, last) = walk.versions.items()
    if first.shape != last.shape:
        return []
    there = (first >= 0).all(1) & (last >= 0).all(1)
    moved = np.flatnonzero(there & (first != last).any(1))
    tree = [name for name, codes in walk.versions.items() if np.array_equal(codes, walk.codes)]
    shown = f"; the tree is that of {tree[-1]}" if tree else ""
    told = paragraph(
        f"{walk.name}: {len(moved):,} of {there.sum():,} items changed their SIDs from {begin} to "
        f"{end}{shown}."
    )
    if not len(moved):
        return [told]
    used = walk.counts[moved] if walk.counts is not None else np.zeros(len(moved))
    rows = moved[np.argsort(-used, kind="stable")[:MOST]]
    items = "".join(
        f'<li><a dir=auto href="#item={quote(walk.tokens[row], safe="")}">'
        f"{html.escape((walk.titles[row] or walk.tokens[row])[:90])}</a> "
        f"<small>{_sid(first[row])} \u2192 {_sid(last[row])}</small></li>"
        for row in rows.tolist()
    )
    which = f"The {len(rows)} most used of them" if len(rows) < len(moved) else "These items"
    return [told, details(which, f"<ol class=groups>{items}</ol>")]


def _sid(codes: np.ndarray) -> str:
    return ", ".join(map(str, codes.tolist()))
