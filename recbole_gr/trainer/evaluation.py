"""Evaluation of ranked lists: RecBole's metrics of generated items, no dense score matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from torch import Tensor

from recbole_gr.distributed.sharding import gather_lists
from recbole_gr.generation.beam_search import NEVER, Beams
from recbole_gr.sid.counting import counts_of

if TYPE_CHECKING:
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.evaluator.collector import DataStruct
    from recbole.evaluator.register import Register

    from recbole_gr.sid.trie import SIDTrie

RANKED_LIST = {"rec.topk", "rec.items"}  # what RecBole's collector can be given from a ranked list


class RankedLists:
    """Collects the ranked lists of a pass over the evaluation data.

    RecBole's collector takes ``[B, n_items]`` scores and keeps two things of them for its top-k
    metrics: which of the first ``k`` places hold a positive item, and how many positives a user
    has. Both follow from the list of items alone.

    Beside them it counts what is particular to SIDs: the share of beams that end on no item
    (``invalid_beams``, 0 unless so much history is excluded that fewer items than beams are left)
    and recall when the SID counts instead of the item (``sid_recall@k``, which an item sharing its
    SID passes too easily).
    """

    def __init__(self, trie: SIDTrie, topk: Sequence[int]):
        self.trie, self.topk, self.k = trie, sorted(topk), max(topk)
        self.hits: list[Tensor] = []
        self.n_positive: list[Tensor] = []
        self.items: list[Tensor] = []
        self.invalid: list[Tensor] = []
        self.sid_hits: list[Tensor] = []
        self.n_beams = 0

    def add(self, beams: Beams, items: Tensor, positive_u: Tensor, positive_i: Tensor) -> None:
        """One batch: its beams, the items ``[B, k]`` that the model ranks by them, and its
        positives as pairs of row and item id."""
        n_users = len(items)
        found = (items[positive_u] == positive_i.unsqueeze(1)).int()  # [P, k]
        hits = items.new_zeros(items.shape, dtype=torch.int)
        self.hits.append(hits.index_add(0, positive_u, found))
        self.n_positive.append(counts_of(positive_u, n_users).unsqueeze(1))
        self.items.append(items)
        self.invalid.append((beams.scores == NEVER).sum())
        self.n_beams += beams.scores.numel()
        leaf = self.trie.item_paths()[-1][positive_i].long()  # [P, m] leaves of the positives
        same = beams.nodes[positive_u].unsqueeze(2) == leaf.clamp_min(0).unsqueeze(1)
        self.sid_hits.append((same & (leaf >= 0).unsqueeze(1)).any(2)[:, : self.k])

    def gather(self) -> None:
        """Bring what several processes have collected together on rank 0."""
        n_beams = [torch.tensor(self.n_beams)]
        self.hits, self.n_positive, self.items, self.invalid, self.sid_hits, n_beams = gather_lists(
            self.hits, self.n_positive, self.items, self.invalid, self.sid_hits, n_beams
        )
        self.n_beams = sum(map(int, n_beams))

    def into(self, data_struct: DataStruct) -> None:
        """Give RecBole's metrics what they read: ``rec.topk`` and ``rec.items``."""
        if not self.hits:  # not rank 0
            return
        topk = torch.cat([torch.cat(self.hits), torch.cat(self.n_positive).int()], dim=1)
        data_struct.set("rec.topk", topk)
        data_struct.set("rec.items", torch.cat(self.items))

    def figures(self) -> dict[str, float]:
        """``invalid_beams`` (share of all beams) and ``sid_recall@k`` for each k."""
        sid_hits = torch.cat(self.sid_hits)
        invalid = float(torch.stack(self.invalid).sum())
        figures = {"invalid_beams": invalid / self.n_beams}
        for k in self.topk:
            figures[f"sid_recall@{k}"] = round(float(sid_hits[:, :k].any(1).float().mean()), 4)
        return figures


def from_ranked_lists(eval_data: AbstractDataLoader, register: Register) -> bool:
    """Whether the configured metrics can be computed from ranked lists of this loader."""
    needed = {key for key in _COLLECTED if register.need(key)}
    return isinstance(eval_data, FullSortEvalDataLoader) and needed <= RANKED_LIST


_COLLECTED = ("rec.items", "rec.topk", "rec.meanrank", "rec.score", "data.label")


def sample_users(loader: FullSortEvalDataLoader, n_users: int, seed: int) -> FullSortEvalDataLoader:
    """A full-ranking loader over ``n_users`` rows of another, drawn by ``seed``."""
    dataset = loader._dataset
    if n_users <= 0 or n_users >= len(dataset):
        return loader
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(dataset), generator=generator)[:n_users].sort().values
    part = dataset.copy(dataset.inter_feat[rows])
    return type(loader)(loader.config, part, loader._sampler, shuffle=False)
