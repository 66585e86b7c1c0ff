"""Metrics by how often the target item occurs in training: cold start and tail beside the whole."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_gr.config.eval_buckets import bucket_names
from recbole_gr.distributed.sharding import gather_lists
from recbole_gr.sid.counting import counts_of

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction
    from recbole.evaluator.base_metric import AbstractMetric
    from recbole.evaluator.collector import Collector
    from recbole.evaluator.evaluator import Evaluator

_RANKED, _SCORED = {"rec.topk"}, {"rec.score", "data.label"}


class ItemBuckets:
    """Collects an evaluation apart by the training frequency of the target items.

    Ranking: a row counts in each bucket that holds one of its targets, with these targets alone;
    the ranked list is that of the whole catalogue. Labelled evaluation (AUC, LogLoss): a row counts
    in the bucket of its item.

    Args:
        edges: see :func:`check_edges`.
        counts: LongTensor ``[n_items]``, training interactions of each item.
        config: read for ``topk``, ``ITEM_ID_FIELD`` and ``LABEL_FIELD``.
    """

    def __init__(self, edges: Sequence[int], counts: Tensor, config: Config):
        self.names = bucket_names(edges)
        self._bucket = torch.bucketize(counts, torch.tensor(edges[1:]), right=True)  # [n_items]
        self._config = config
        self._hits: list[Tensor] = []
        self._positives: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._of_row: list[Tensor] = []

    def add_ranked(self, items: Tensor, positive_u: Tensor, positive_i: Tensor) -> None:
        """A batch of ranked items ``[B, k]`` and its targets as pairs of row and item id."""
        self._bucket = self._bucket.to(items.device)  # once
        bucket = self._bucket[positive_i]  # [P]
        found = (items[positive_u] == positive_i.unsqueeze(1)).int()  # [P, k]
        place = positive_u * len(self.names) + bucket
        hits = found.new_zeros(len(items) * len(self.names), items.shape[1])
        self._hits.append(hits.index_add_(0, place, found).view(len(items), len(self.names), -1))
        n_positive = counts_of(place, len(hits))
        self._positives.append(n_positive.view(len(items), len(self.names)))

    def add(
        self, scores: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """A batch as RecBole collects it: scores ``[B, n_items]``, or ``[B]`` with labels."""
        if scores.dim() == 2:
            items = torch.topk(scores, max(self._config["topk"]), dim=1).indices
            self.add_ranked(items, positive_u.to(items.device), positive_i.to(items.device))
            return
        items = interaction[self._config["ITEM_ID_FIELD"]]
        self._scores.append(scores.detach())
        self._labels.append(interaction[self._config["LABEL_FIELD"]].to(scores.device))
        self._bucket = self._bucket.to(items.device)
        self._of_row.append(self._bucket[items].to(scores.device))

    def gather(self) -> None:
        """Bring what several processes have collected together on rank 0."""
        self._hits, self._positives, self._scores, self._labels, self._of_row = gather_lists(
            self._hits, self._positives, self._scores, self._labels, self._of_row
        )

    def results(self, evaluator: Evaluator) -> dict:
        """Per bucket ``targets`` and the metrics that the collected lists or scores allow.

        A metric without a value (an empty bucket; AUC of labels that are all alike) is None.
        """
        ranked = bool(self._hits)
        if not ranked and not self._scores:
            return {}
        kind = _RANKED if ranked else _SCORED
        metrics = [m for m in evaluator.metric_class.values() if set(m.metric_need) <= kind]
        parts = self._ranked_parts() if ranked else self._scored_parts()
        return {name: measured(metrics, *part) for name, part in zip(self.names, parts)}

    def _ranked_parts(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        hits, positives = torch.cat(self._hits), torch.cat(self._positives)
        for number in range(len(self.names)):
            rows = positives[:, number] > 0
            n_positive = positives[rows, number].unsqueeze(1).int()
            topk = torch.cat([hits[rows, number], n_positive], 1)
            yield int(n_positive.sum()), {"rec.topk": topk}

    def _scored_parts(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        scores, labels = torch.cat(self._scores), torch.cat(self._labels)
        bucket = torch.cat(self._of_row)
        for number in range(len(self.names)):
            rows = (bucket == number).nonzero().squeeze(1)
            n_rows = len(rows)
            if n_rows == 1:  # RecBole's means need two, and are the same of a row taken twice
                rows = rows.repeat(2)
            yield n_rows, {"rec.score": scores[rows], "data.label": labels[rows]}


def measured(
    metrics: Sequence[AbstractMetric], n_targets: int, values: Mapping[str, Tensor]
) -> dict[str, float | None]:
    """``targets`` and the metrics of what RecBole's collector would have collected, ``values`` by
    its names; a metric without a value is None."""
    struct = DataStruct()
    for name, value in values.items():
        struct.set(name, value.cpu())
    labels = values.get("data.label")
    one_class = labels is not None and len(labels.unique()) < 2
    figures: dict[str, float | None] = {"targets": n_targets}
    for metric in metrics:
        if n_targets == 0 or (one_class and type(metric).__name__ == "AUC"):
            continue
        for name, value in metric.calculate_metric(struct).items():
            figures[name] = float(value) if math.isfinite(value) else None
    return figures


@contextlib.contextmanager
def collecting(collector: Collector, others: Sequence[Any]) -> Iterator[None]:
    """RecBole's collector hands every batch of the block to ``others`` too, by their ``add``."""
    if not others:
        yield
        return
    collect = collector.eval_batch_collect

    def all_of_them(
        scores: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        collect(scores, interaction, positive_u, positive_i)
        for other in others:
            other.add(scores, interaction, positive_u, positive_i)

    collector.eval_batch_collect = all_of_them
    try:
        yield
    finally:
        del collector.eval_batch_collect
