"""The quality report of a SID table with what content and training interactions say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from recbole_gr.quality.measures import collision_figures, quality_report
from recbole_gr.quality.neighbours import (
    chance_overlap,
    content_neighbours,
    cooccurrence_neighbours,
    prefix_overlap,
)
from recbole_gr.quality.semantics import distinct_rows, semantic_figures
from recbole_gr.sid.table import sid_keys

if TYPE_CHECKING:
    from recbole_gr.quality.measures import QualityReport
    from recbole_gr.sid.table import SIDTable
    from recbole_gr.tokenizer.base import Tokenizer

HEAD_SHARE = 0.2  # of the items, the most popular ones first


@dataclass(frozen=True)
class Behaviour:
    """What training interactions tell of the items 1, 2, ... (row = item id - 1).

    Attributes:
        counts: LongTensor ``[n]``, training interactions of each item.
        pairs: LongTensor ``[P, 2]``, rows that stand next to each other in a training sequence;
            None where there are no sequences.
    """

    counts: torch.Tensor
    pairs: torch.Tensor | None = None


def assess(
    table: SIDTable,
    content: torch.Tensor,
    tokenizer: Tokenizer | None = None,
    behaviour: Behaviour | None = None,
    neighbours: int = 10,
    queries: int = 2000,
    seed: int = 0,
) -> QualityReport:
    """Quality of a SID table with all that is known about its items.

    Figures about content and popularity are of the levels before a collision suffix, which numbers
    items without regard to their content.

    Args:
        table: :class:`~recbole_gr.sid.table.SIDTable`.
        content: float tensor ``[n_items, d]``; row 0 is padding and not read.
        tokenizer: that made the table, for its codewords; None takes them from the content.
        behaviour: :class:`Behaviour`, or None where no interactions are known.
        neighbours: per item, in the overlap figures; 0 leaves these out.
        queries: items drawn (by ``seed``) for them.

    Returns:
        QualityReport
    """
    report = quality_report(table)
    levels, items = report.content_levels, content[1:].cpu()
    if tokenizer is not None:  # a table kept by an earlier version does not say so itself
        levels = min(levels, len(tokenizer.sizes))
    codes, sizes = table.codes[1:, :levels].cpu(), table.sizes[:levels]
    books = quantized = None
    if tokenizer is not None and tokenizer.codewords() is not None:
        books, quantized = tokenizer.codewords(), tokenizer.quantized
    return replace(
        report,
        content_levels=levels,
        distinct_content=distinct_rows(items),
        semantics=semantic_figures(codes, sizes, items, books, quantized),
        neighbours=_overlaps(codes, items, behaviour, neighbours, queries, seed),
        popularity=_head_and_tail(codes, sizes, behaviour),
    )


def _overlaps(
    codes: torch.Tensor,
    content: torch.Tensor,
    behaviour: Behaviour | None,
    k: int,
    n_queries: int,
    seed: int,
) -> dict[str, Any]:
    k = min(k, len(codes) - 1)
    if not k or not n_queries:
        return {}
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randperm(len(codes), generator=generator)[:n_queries].sort().values
    figures = {
        "k": k,
        "queries": len(queries),
        "content": prefix_overlap(codes, queries, content_neighbours(content, queries, k)),
        "chance": chance_overlap(codes),
    }
    if behaviour is not None and behaviour.pairs is not None:
        near = cooccurrence_neighbours(behaviour.pairs, len(codes), queries, k)
        figures["cooccurrence"] = prefix_overlap(codes, queries, near)
    return figures


def _head_and_tail(
    codes: torch.Tensor, sizes: Sequence[int], behaviour: Behaviour | None
) -> dict[str, Any]:
    """Sharing among the most popular fifth of the items and among the others."""
    if behaviour is None:
        return {}
    counts = behaviour.counts
    order = counts.argsort(descending=True, stable=True)
    n_head = max(1, round(HEAD_SHARE * len(order)))
    _, sid, sharing = torch.unique(
        sid_keys(codes, sizes), return_inverse=True, return_counts=True
    )
    group_size = sharing[sid]  # items on each item's SID, whichever part they are in
    figures = {}
    for name, rows in (("head", order[:n_head]), ("tail", order[n_head:])):
        if not len(rows):
            continue
        figures[name] = {
            "items": len(rows),
            "interactions": float(counts[rows].sum()) / max(1, int(counts.sum())),
            "unseen": int((counts[rows] == 0).sum()),
            "unique_rate": float((group_size[rows] == 1).double().mean()),
            "mean_group": float(group_size[rows].double().mean()),
            "distinct_rate": collision_figures(codes[rows], sizes)["distinct"] / len(rows),
        }
    return figures
