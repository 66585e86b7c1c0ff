"""Figures of an epoch of PIT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_gr.distributed import processes
from recbole_gr.sid.formats import level_name
from recbole_gr.sid.table import sid_keys

if TYPE_CHECKING:
    from recbole_gr.model.pit.index import BeamIndex

SID_HISTOGRAM = "share of items by SIDs"


class Meter:
    """Weighted means that add up on the device and are read once an epoch."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[Tensor | float, Tensor | float]] = {}

    def add(self, topic: str, name: str, total: Tensor, weight: Tensor | float = 1.0) -> None:
        """Add the scalar ``total`` to the numerator and ``weight`` to the denominator."""
        numerator, denominator = self._sums.get((topic, name), (0.0, 0.0))
        self._sums[topic, name] = (numerator + total.detach().float(), denominator + weight)

    def read(self) -> dict[str, dict[str, float]]:
        """The means since the last reading, over all processes, ``{topic: {name: mean}}``."""
        means: dict[str, dict[str, float]] = {}
        for (topic, name), (numerator, denominator) in self._sums.items():
            total, weight = float(numerator), float(denominator)
            if processes.world_size() > 1:
                both = torch.as_tensor(numerator).new_tensor([total, weight], dtype=torch.float64)
                total, weight = processes.all_reduce_sum(both).tolist()
            means.setdefault(topic, {})[name] = total / max(weight, 1e-12)
        self._sums = {}
        return means


@torch.no_grad()
def index_figures(index: BeamIndex, before: Tensor) -> dict[str, dict[str, float]]:
    """The state of a beam index, as ``{topic: {name: value}}``.

    * codebook entropy: of each level's codes in bits, every item spread over its SIDs by weight;
    * SID churn: share of items whose heaviest SID is not the one ``before`` ``[n_items, L]``;
    * SIDs per item and items per SID: mean and largest;
    * share of items by SIDs: how many have 1, 2, ... SIDs.
    """
    codes, items, weights = index.edges()
    entropy = {}
    for level, size in enumerate(index.sizes):
        mass = weights.new_zeros(size).index_add(0, codes[:, level], weights)
        share = (mass / mass.sum()).clamp_min(1e-20)
        name = f"level {level_name(level)} of {size}"
        entropy[name] = abs(float(-(share * share.log2()).sum()))
    changed = (index.heaviest() != before).any(1)[1:]
    per_item = torch.bincount(items, minlength=index.n_items)[1:]
    per_sid = torch.unique(sid_keys(codes, index.sizes), return_counts=True)[1]
    histogram = torch.bincount(per_item, minlength=index.max_sids + 1)[1:] / len(per_item)
    return {
        "codebook entropy (bits)": entropy,
        "SID churn": {"heaviest SID changed": float(changed.float().mean())},
        "SIDs per item": {
            "mean": float(per_item.float().mean()),
            "largest": float(per_item.max()),
        },
        "items per SID": {"mean": float(per_sid.float().mean()), "largest": float(per_sid.max())},
        SID_HISTOGRAM: {str(n + 1): float(x) for n, x in enumerate(histogram)},
    }
