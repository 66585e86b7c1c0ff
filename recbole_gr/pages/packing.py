"""The data of a walk through SIDs as a browser unpacks them: small at once, the rest when asked.

Numbers are kept byte by byte of equal weight (all lowest bytes of an array first), which
compresses well. What single items have (names, titles, neighbours) lies in blocks of ``BLOCK``
items in the order of the first table's SIDs, so that a prefix needs few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recbole_gr.errors import ConfigError
from recbole_gr.pages.walk import WHOLE
from recbole_gr.quality.neighbours import EXACT
from recbole_gr.report.page import data_script, packed_script
from recbole_gr.sid.table import sid_keys

if TYPE_CHECKING:
    from recbole_gr.pages.walk import Walk

BLOCK = 4096  # items


def packed(walks: Sequence[Walk]) -> list[str]:
    """Elements of a page that hold the data.

    Args:
        walks: of the same items, which are taken from the first; the tables from each.

    Raises:
        ConfigError: they are of other items.
    """
    first, n = walks[0], len(walks[0].tokens)
    order = sid_keys(first.table.codes[1:], first.sizes).argsort(stable=True).numpy()
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    core, tables, elements = Block(), [], []
    for number, walk in enumerate(walks):
        rows = _rows(first, walk)[order]
        for codes in walk.codes[rows].T:
            core.add(codes)
        for of_level in walk.cohesion:
            core.add(of_level.astype(np.int64) + WHOLE)
        versions = Block()
        for codes in walk.versions.values():
            for column in codes[rows].T:
                versions.add(column + 1)
        tables.append({
            "name": walk.name, "sizes": walk.sizes, "content": walk.content_levels,
            "cohesion": len(walk.cohesion),
            "versions": [[name, codes.shape[1]] for name, codes in walk.versions.items()],
            "parts": versions.parts,
        })  # fmt: skip
        elements.append(packed_script(versions.data, f"walk-versions-{number}"))
    if first.counts is not None:
        core.add(first.counts[order])
    parts = []
    for begin in range(0, n, BLOCK):
        rows, number = order[begin : begin + BLOCK], begin // BLOCK
        texts = [[words[row] for row in rows] for words in (first.tokens, first.titles)]
        elements.append(packed_script(texts, f"walk-texts-{number}"))
        near = Block()
        for items, strengths, shift in _neighbours(first):
            near.add(np.where(items[rows] < 0, 0, place[items[rows]] + 1).ravel())
            near.add(strengths[rows].ravel() + shift)
        parts.append(near.parts)
        elements.append(packed_script(near.data, f"walk-near-{number}"))
    given = {"content": first.near, "histories": first.beside}
    about = {
        "n": n, "block": BLOCK, "whole": WHOLE, "tables": tables, "parts": core.parts,
        "counts": first.counts is not None, "neighbours": parts,
        "exact": n <= EXACT, "near": [name for name, items in given.items() if items is not None],
    }  # fmt: skip
    return [data_script(about, "walk-about"), packed_script(core.data, "walk-core"), *elements]


class Block:
    """Arrays of integers from 0 on behind each other.

    Attributes:
        parts: of each the number of values, and of bytes of one value.
        data: the bytes of all.
    """

    def __init__(self) -> None:
        self.parts: list[list[int]] = []
        self.data = b""

    def add(self, values: np.ndarray) -> None:
        """Append an array ``[n]``."""
        most = int(values.max()) if len(values) else 0
        width = max(1, (most.bit_length() + 7) // 8)
        planes = values.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].T
        self.parts.append([len(values), width])
        self.data += planes.tobytes()


def _neighbours(walk: Walk) -> list[tuple[np.ndarray, np.ndarray, int]]:
    given = [(walk.near, walk.cosine, WHOLE), (walk.beside, walk.times, 0)]
    return [(n, s, shift) for n, s, shift in given if n is not None and s is not None]


def _rows(first: Walk, other: Walk) -> np.ndarray:
    """Rows of the items of ``first`` in ``other``."""
    if first.tokens == other.tokens:
        return np.arange(len(first.tokens))
    rows = dict(zip(other.tokens, range(len(other.tokens))))
    if rows.keys() != set(first.tokens):
        raise ConfigError(
            f"the SIDs of {first.name} and {other.name} are of other items and cannot stand beside "
            "each other; write each one's page by itself"
        )
    return np.array([rows[token] for token in first.tokens])
