"""The levels of a beam search as plain data: prefixes kept and dropped, items and probability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recbole_gr.generation.beam_search import NEVER, ExcludedPrefixes, Extension
from recbole_gr.sid.trie import SIDTrie

BEAM, HISTORY = "beam", "history"  # why a prefix was dropped
EXAMPLES = 3  # items that are named of a prefix


class Level(NamedTuple):
    """What one level did to one user, on the CPU: a row for each prefix that could follow (``[N]``,
    most probable first), and the rows of those that were kept (``[W]``, best first)."""

    node: Tensor
    prefix: list[tuple[int, ...]]
    parent: Tensor  # the beam that it extends
    log_prob: Tensor
    code_log_prob: Tensor  # of the last code, given those before it
    excluded: Tensor  # bool: no item below it may be returned
    kept: Tensor
    mass: float  # probability of the beams that were extended

    def dropped(self) -> Tensor:
        """The rows that were not kept, most probable first."""
        left = torch.ones(len(self.node), dtype=torch.bool)
        left[self.kept] = False
        return left.nonzero().squeeze(1)

    def threshold(self) -> float | None:
        """Log-probability of the last beam, where others would have needed more; else None."""
        dropped = self.dropped()
        full = len(self.kept) and not bool(self.excluded[dropped].all())
        return float(self.log_prob[self.kept[-1]]) if full else None

    def fate(self, row: int) -> tuple[str | None, float | None]:
        """Why the prefix of a row was dropped (None: it was kept), and, below the last beam, by how
        much of its log-probability."""
        if bool((self.kept == row).any()):
            return None, None
        last = self.threshold()
        if last is None or self.excluded[row]:
            return HISTORY, None
        return BEAM, last - float(self.log_prob[row])


class Levels:
    """Watches the beam search of one user and tells what became of every prefix.

    Args:
        trie: what the search goes along.
        excluded: ``[1, H]`` items that may not be returned, or None.
        frequency: ``[n_items + 1]`` by which the examples of a prefix are chosen.
        names: the plain data that stand for item ids.
    """

    def __init__(
        self,
        trie: SIDTrie,
        excluded: Tensor | None,
        frequency: Tensor,
        names: Callable[[Iterable[int]], list[Any]],
    ):
        self.levels: list[Level] = []
        self._trie, self._frequency, self._names = trie, frequency, names
        self._excluded = None if excluded is None else ExcludedPrefixes(trie, excluded)
        self._gone = torch.zeros(trie.n_items + 1, dtype=torch.bool)
        if excluded is not None:
            self._gone[excluded.flatten().cpu()] = True

    def __call__(self, extension: Extension) -> None:
        """Take in one level; the ``observe`` of a search."""
        level, nodes, scores = extension.level, extension.nodes[0], extension.scores[0]
        parent, place = (scores > NEVER).nonzero(as_tuple=True)
        order = scores[parent, place].argsort(descending=True, stable=True)
        parent, place = parent[order], place[order]
        code, node = self._trie.follow(level, nodes[parent], place)
        gone = torch.zeros(len(node), dtype=torch.bool)
        if self._excluded is not None:
            gone = self._excluded.contains(level, node.unsqueeze(0))[0].cpu()
        log_prob = scores[parent, place].double().cpu()
        node, parent = node.cpu(), parent.cpu()
        row_of = torch.zeros(self._trie.n_nodes[level + 1], dtype=torch.long)
        row_of[node] = torch.arange(len(node))
        kept = row_of[extension.kept[0][extension.kept[0] >= 0].cpu()]

        before, prefixes = torch.zeros(1, dtype=torch.double), [()]
        if self.levels:
            last = self.levels[-1]
            before = last.log_prob[last.kept]
            prefixes = [last.prefix[row] for row in last.kept.tolist()]
        prefix = [(*prefixes[p], c) for p, c in zip(parent.tolist(), code.tolist())]
        own, mass = log_prob - before[parent], float(before.exp().sum())
        self.levels.append(Level(node, prefix, parent, log_prob, own, gone, kept, mass))

    def leaves(self) -> list[int]:
        """The leaves of the beams, best first."""
        last = self.levels[-1]
        return last.node[last.kept].tolist()

    def code_log_probs(self, beam: int) -> list[float]:
        """Log-probability of each code of a finished beam, given those before it."""
        found: list[float] = []
        for level in reversed(self.levels):
            row = level.kept[beam]
            found.insert(0, float(level.code_log_prob[row]))
            beam = int(level.parent[row])
        return found

    def described(self, ranks: Mapping[int, list[int]], n_dropped: int | None) -> list[dict]:
        """Plain data of every level, as :func:`recbole_gr.serving.explain.explain` documents them.

        Args:
            ranks: of the items of the answer, by the finished beam that they come from.
            n_dropped: how many dropped prefixes are listed, the best for each reason; None: all.
        """
        below = self._ranks_below(ranks)
        reached = torch.ones(self._trie.n_items + 1, dtype=torch.bool)
        reached[0] = False
        result = []
        for number, level in enumerate(self.levels):
            paths = self._trie.item_paths()[number].cpu()
            after = reached & torch.isin(paths, level.node[level.kept].int()).any(1)
            lost, dropped = reached & ~after, level.dropped()
            excluded = level.excluded[dropped]
            kept = [self._prefix(level, row, paths) for row in level.kept.tolist()]
            for beam, (entry, ranks_below) in enumerate(zip(kept, below[number])):
                entry["children"] = self._n_children(number, beam)
                entry["ranks"] = sorted(set(ranks_below))
            out = []
            for row in _first_of_each(dropped, excluded, n_dropped):
                why, missed = level.fate(row)
                out.append({**self._prefix(level, row, paths), "why": why, "missed_by": missed})
            result.append(
                {
                    "level": number + 1,
                    "codebook_size": self._trie.sizes[number],
                    "candidates": len(level.node),
                    "kept": kept,
                    "threshold": level.threshold(),
                    "dropped": out,
                    "n_dropped": {BEAM: int((~excluded).sum()), HISTORY: int(excluded.sum())},
                    "items": {
                        "before": int(reached.sum()),
                        "kept": int(after.sum()),
                        BEAM: int((lost & ~self._gone).sum()),
                        HISTORY: int((lost & self._gone).sum()),
                    },
                    "probability": _masses(level, dropped, excluded),
                }
            )
            reached = after
        return result

    def followed(self, item: int) -> list[dict]:
        """What became of each SID of an item: its prefixes level by level, down to where one was
        dropped, with their places among the prefixes of the level."""
        result = []
        for which in range(self._trie.most_sids):
            steps: list[dict] = []
            for number, level in enumerate(self.levels):
                node = int(self._trie.item_paths()[number][item, which])
                row = (level.node == node).nonzero().flatten().tolist() if node >= 0 else []
                if not row:
                    break
                why, missed = level.fate(row[0])
                steps.append(
                    {
                        "prefix": list(level.prefix[row[0]]),
                        "log_prob": float(level.log_prob[row[0]]),
                        "code_log_prob": float(level.code_log_prob[row[0]]),
                        "place": row[0] + 1,
                        "of": len(level.node),
                        "dropped": why,
                        "missed_by": missed,
                    }
                )
            if steps:
                result.append({"steps": steps})
        return result

    def _prefix(self, level: Level, row: int, paths: Tensor) -> dict[str, Any]:
        below = (paths == level.node[row]).any(1).nonzero().squeeze(1)
        order = self._frequency[below].argsort(descending=True, stable=True)[:EXAMPLES]
        log_prob = level.log_prob[row]
        return {
            "prefix": list(level.prefix[row]),
            "parent": int(level.parent[row]),
            "log_prob": float(log_prob),
            "probability": float(log_prob.exp()),
            "code_log_prob": float(level.code_log_prob[row]),
            "items": len(below),
            "examples": self._names(below[order].tolist()),
        }

    def _n_children(self, number: int, beam: int) -> int | None:
        """Beams of the next level that extend a beam of this one; None at the last level."""
        if number + 1 == len(self.levels):
            return None
        following = self.levels[number + 1]
        return int((following.parent[following.kept] == beam).sum())

    def _ranks_below(self, ranks: Mapping[int, list[int]]) -> list[list[list[int]]]:
        """By level and beam, the ranks of the items of the answer that lie below it."""
        result: list[list[list[int]]] = [[[] for _ in level.kept] for level in self.levels]
        for beam, found in ranks.items():
            for number in reversed(range(len(self.levels))):
                result[number][beam] += found
                level = self.levels[number]
                beam = int(level.parent[level.kept[beam]])
        return result


def _first_of_each(dropped: Tensor, excluded: Tensor, n: int | None) -> list[int]:
    """The first `n` rows that are excluded and those that are not, in their order."""
    if n is None:
        return dropped.tolist()
    place = torch.where(excluded, excluded.cumsum(0), (~excluded).cumsum(0))
    return dropped[place <= n].tolist()


def _masses(level: Level, dropped: Tensor, excluded: Tensor) -> dict[str, float]:
    """Where the probability of the beams went; what follows no code of the catalogue is lost where
    it is not renormalised."""
    probability = level.log_prob.exp()
    rest = level.mass - float(probability.sum())
    return {
        "before": level.mass,
        "kept": float(probability[level.kept].sum()),
        BEAM: float(probability[dropped[~excluded]].sum()),
        HISTORY: float(probability[dropped[excluded]].sum()),
        "no_item": max(0.0, rest),
    }
