"""Figures that tell whether a SID table is fit for use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from recbole_gr.sid.suffix import is_suffix
from recbole_gr.sid.table import SIDTable, sid_keys
from recbole_gr.storage.json_files import save_json


@dataclass
class LevelQuality:
    """How the items use one level's codebook.

    Attributes:
        size: codes in the codebook.
        used: codes that at least one item has.
        utilisation: ``used / size``.
        entropy: of the items' codes, in bits; at most ``log2(size)``.
        perplexity: ``2 ** entropy``, the number of equally frequent codes of the same entropy.
        most_frequent: items that have the most frequent code.
    """

    size: int
    used: int
    utilisation: float
    entropy: float
    perplexity: float
    most_frequent: int


@dataclass
class PrefixQuality:
    """How well the first ``depth`` levels tell items apart.

    Attributes:
        depth: levels in the prefix, from 1.
        distinct: different prefixes among the items.
        mean_items: items per distinct prefix.
        largest: items of the most frequent prefix.
        mean_children: distinct prefixes of this depth per distinct prefix one level shorter.
    """

    depth: int
    distinct: int
    mean_items: float
    largest: int
    mean_children: float


@dataclass
class QualityReport:
    """Quality of a SID table; plain numbers.

    Attributes:
        n_items: items (no padding item).
        n_levels, sizes: shape of the SIDs.
        distinct: different SIDs.
        collision_rate: share of items whose SID belongs to at least one other item too.
        duplicate_rate: ``1 - distinct / n_items``, which the logs of LC-Rec and LETTER call
            collision rate. Two items on one SID count twice above and once here.
        largest_group: items on the most crowded SID.
        gini: Gini coefficient of the items per SID, see :func:`gini`.
        unique_rate: share of items that their SID alone identifies, ``1 - collision_rate``.
        items_per_sid: ``n_items / distinct``, which R3-VAE calls collision rate.
        group_sizes: how many SIDs belong to exactly m items, ``{m: count}``.
        levels: one :class:`LevelQuality` per level.
        prefixes: one :class:`PrefixQuality` per depth, the last one being whole SIDs.
        before_policy: :func:`collision_figures` of the tokenizer's codes before the collision
            policy; empty if not known.
        content_levels: levels that come from content, without the suffix of a collision policy;
            where the table does not say, without a last level that only numbers items.
        distinct_content: different content vectors; 0 if not known.
        semantics: SC and PD, see :func:`~recbole_gr.quality.semantics.semantic_figures`.
        neighbours: share of an item's ``k`` nearest neighbours with its prefix, per depth:
            ``content`` (cosine), ``cooccurrence`` (in training sequences), and ``chance``, the
            share of all pairs. Of ``queries`` items.
        popularity: ``head``, the fifth of the items with most training interactions, and ``tail``.
        meta: where the SIDs come from.

    The last four but ``meta`` are empty where content or interactions are not at hand.
    """

    n_items: int
    n_levels: int
    sizes: list[int]
    distinct: int
    collision_rate: float
    duplicate_rate: float
    largest_group: int
    gini: float
    unique_rate: float
    items_per_sid: float
    group_sizes: dict[int, int]
    levels: list[LevelQuality]
    prefixes: list[PrefixQuality]
    before_policy: dict[str, Any] = field(default_factory=dict)
    content_levels: int = 0
    distinct_content: int = 0
    semantics: dict[str, Any] = field(default_factory=dict)
    neighbours: dict[str, Any] = field(default_factory=dict)
    popularity: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as nested dictionaries and lists of plain numbers."""
        return asdict(self)

    @classmethod
    def of_dict(cls, kept: dict[str, Any]) -> QualityReport:
        """The way back from :meth:`to_dict`, also where it was kept as JSON."""
        levels = [LevelQuality(**level) for level in kept["levels"]]
        prefixes = [PrefixQuality(**prefix) for prefix in kept["prefixes"]]
        groups = {int(size): count for size, count in kept["group_sizes"].items()}
        return cls(**{**kept, "levels": levels, "prefixes": prefixes, "group_sizes": groups})

    def to_json(self, path: str | Path) -> None:
        """Write the report as JSON."""
        save_json(path, self.to_dict())

    def to_text(self) -> str:
        """The report as a few lines for a log or a terminal."""
        from recbole_gr.quality.report_text import report_text

        return report_text(self)


def quality_report(table: SIDTable) -> QualityReport:
    """Quality of a SID table, shared SIDs or not; one sort and a few passes over the items.

    Args:
        table: :class:`~recbole_gr.sid.table.SIDTable`.

    Returns:
        QualityReport
    """
    codes, sizes = table.codes[1:].cpu(), table.sizes
    n_items = len(codes)
    levels = [_level_quality(codes[:, level], size) for level, size in enumerate(sizes)]

    ordered = codes[sid_keys(codes, sizes).argsort()]
    # In sorted order a prefix starts where any of its codes differs from the row above.
    starts = torch.zeros(n_items, dtype=torch.bool)
    starts[0] = True
    prefixes, shorter = [], 1
    for depth in range(1, table.n_levels + 1):
        column = ordered[:, depth - 1]
        starts[1:] |= column[1:] != column[:-1]
        groups = _run_lengths(starts)
        prefixes.append(
            PrefixQuality(
                depth=depth,
                distinct=len(groups),
                mean_items=n_items / len(groups),
                largest=int(groups.max()),
                mean_children=len(groups) / shorter,
            )
        )
        shorter = len(groups)
    meta = dict(table.meta)
    meta.pop("report", None)  # as it was when the table was learned
    # A table from elsewhere does not say that its last level is a suffix.
    suffix = "tokenizer" not in meta and "content_levels" not in meta and is_suffix(codes, sizes)
    content = min(meta.pop("content_levels", table.n_levels - suffix), table.n_levels)
    before = meta.pop("before_policy", {})
    if not before and content < table.n_levels:
        before = collision_figures(codes[:, :content], sizes[:content])
    return QualityReport(
        n_items=n_items,
        n_levels=table.n_levels,
        sizes=list(sizes),
        group_sizes=dict(zip(*_tally(groups))),
        levels=levels,
        prefixes=prefixes,
        before_policy=before,
        content_levels=content,
        meta=meta,
        unique_rate=int((groups == 1).sum()) / n_items,
        items_per_sid=n_items / len(groups),
        **_collisions(groups, n_items),
    )


def collision_figures(codes: torch.Tensor, sizes: Sequence[int]) -> dict[str, Any]:
    """``distinct``, ``collision_rate``, ``duplicate_rate``, ``largest_group`` and ``gini`` of codes
    ``[N, L]``.

    The definitions are those of :class:`QualityReport`.
    """
    counts = torch.unique(sid_keys(codes, sizes), return_counts=True)[1]
    return _collisions(counts, len(codes))


def _collisions(groups: torch.Tensor, n_items: int) -> dict[str, Any]:
    return {
        "distinct": len(groups),
        "collision_rate": int(groups[groups > 1].sum()) / n_items,
        "duplicate_rate": 1 - len(groups) / n_items,
        "largest_group": int(groups.max()),
        "gini": gini(groups),
    }


def gini(counts: torch.Tensor) -> float:
    """Gini coefficient of counts ``[m]``: 0 where all are equal, towards 1 where one has all.

    With counts in ascending order ``2 sum_q q f_q / (m sum f) - (m + 1) / m`` (PRQ-KMeans; R3-VAE
    reports the figure without a formula).
    """
    ordered = counts.double().sort().values
    n = len(ordered)
    rank = torch.arange(1, n + 1, dtype=torch.float64, device=ordered.device)
    return float(2 * (rank * ordered).sum() / (n * ordered.sum()) - (n + 1) / n)


def _level_quality(codes: torch.Tensor, size: int) -> LevelQuality:
    counts = torch.bincount(codes, minlength=size).double()
    share = counts[counts > 0] / counts.sum()
    entropy = float(-(share * share.log2()).sum())
    used = len(share)
    return LevelQuality(
        size=size,
        used=used,
        utilisation=used / size,
        entropy=abs(entropy),  # a single code gives -0.0
        perplexity=2**entropy,
        most_frequent=int(counts.max()),
    )


def _run_lengths(starts: torch.Tensor) -> torch.Tensor:
    positions = starts.nonzero().squeeze(1)
    return torch.cat([positions, torch.tensor([len(starts)])]).diff()


def _tally(groups: torch.Tensor) -> tuple[list[int], list[int]]:
    sizes, counts = torch.unique(groups, return_counts=True)
    return sizes.tolist(), counts.tolist()
