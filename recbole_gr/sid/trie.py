"""The prefix tree of all SIDs, held in flat tensors.

SIDs are sorted once; the distinct prefixes of length ``l + 1`` are numbered in sorted order, so the
position of an edge in its level's array *is* the number of the child it leads to. Per level only
the code on each edge and the start of each node's children are stored (compressed sparse rows), and
the lowest item below each node to break ties: about 20 bytes per item. Levels whose nodes have many
children also get a dense table, where one gather returns the mask and the next node together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_gr.sid.counting import counts_of
from recbole_gr.sid.leaves import Leaves, offsets, run_numbers
from recbole_gr.sid.order import first_of_prefix, sort_sids

if TYPE_CHECKING:
    from recbole_gr.sid.table import SIDTable

DEAD = -1  # the node of a beam that has left the catalogue


class SIDTrie(Leaves):
    """All SIDs of a catalogue as a tree of tensors; lives on the device, never loops in Python.

    Nodes of depth ``l`` (prefixes of ``l`` codes) are numbered ``0 .. n_nodes[l] - 1`` in the
    lexicographic order of their prefixes; depth 0 is the root, depth ``L`` the leaves. Several
    items may share a leaf and one item may own several leaves.

    Attributes:
        sizes: codebook size of each level.
        n_nodes: number of nodes of each depth, ``L + 1`` numbers.
        width: largest number of children of a node, per level.
    """

    open_line: Tensor

    def __init__(
        self, codes: Tensor, items: Tensor, sizes: Sequence[int], dense_limit: int = 64 << 20
    ) -> None:
        """
        Args:
            codes: ``[N, L]`` SIDs, ``codes[:, l]`` in ``[0, sizes[l])``.
            items: ``[N]`` the item of each row, at least 1 (0 is padding).
            sizes: codebook size of each level.
            dense_limit: most bytes that one level's dense table may take.
        """
        super().__init__()
        codes, items = codes.long(), items.long()
        self.sizes = tuple(int(size) for size in sizes)
        _check(codes, items, self.sizes)
        codes, items = sort_sids(codes, items, self.sizes)
        new = first_of_prefix(codes)  # [N, L] row opens a new prefix of length l + 1
        n_rows, n_levels = codes.shape
        self.n_levels = n_levels
        self.n_nodes, self.width, self._dense_levels = [1], [], []

        parent_of_row = torch.zeros(n_rows, dtype=torch.long)
        for level in range(n_levels):
            first = new[:, level]
            parents, edge = parent_of_row[first], codes[first, level]
            counts = torch.bincount(parents, minlength=self.n_nodes[-1])
            n_edges, size = len(edge), self.sizes[level]
            self.width.append(int(counts.max()))
            self._store("start", level, offsets(counts))
            edge_code = edge.to(torch.int16 if size <= 1 << 15 else torch.int32)
            self._store("code", level, _padded(edge_code, self.width[-1]))
            dense = _wants_dense(self.n_nodes[-1], size, self.width[-1], dense_limit)
            self._dense_levels.append(dense)
            if dense:
                table = torch.full((self.n_nodes[-1], size), DEAD, dtype=torch.int32)
                table[parents, edge] = torch.arange(n_edges, dtype=torch.int32)
                self._store("dense", level, table)
            self.n_nodes.append(n_edges)
            parent_of_row = first.cumsum(0) - 1

        line = torch.zeros(2 * max(self.width))
        line[max(self.width) :] = float("-inf")
        self.register_buffer("open_line", line, persistent=False)
        self._hold(parent_of_row, items)
        self._store_lowest_items()

    @classmethod
    def from_table(cls, table: SIDTable, dense_limit: int = 64 << 20) -> SIDTrie:
        """The tree of a :class:`~recbole_gr.sid.table.SIDTable` (row 0 is padding and left out)."""
        items = torch.arange(1, len(table.codes))
        return cls(table.codes[1:].cpu(), items, table.sizes, dense_limit)

    @classmethod
    def flat(cls, table: SIDTable) -> SIDTrie:
        """A tree of one level whose codes are the numbers of the distinct SIDs in lexicographic
        order: the leaves of :meth:`from_table` alone, for models that score whole SIDs."""
        leaf, counts = table.groups()
        return cls(leaf.unsqueeze(1).cpu(), torch.arange(1, len(table.codes)), (len(counts),))

    def options(self, level: int, nodes: Tensor) -> tuple[Tensor | None, Tensor]:
        """The codes that may extend ``nodes`` of depth ``level``, in places ``0 .. K - 1``.

        Args:
            nodes: ``[...]`` node numbers of depth ``level``; -1 marks a dead beam.

        Returns:
            ``(codes, closed)``, both ``[..., K]``: the code of each place, and -inf where it leads
            to no item (and then holds any code), else 0. At a dense level ``codes`` is None and
            place ``k`` is code ``k`` (``K = sizes[level]``); else ``K = width[level]``.
        """
        alive = nodes >= 0
        nodes = nodes.clamp_min(0)
        if self._dense_levels[level]:
            child = self._get("dense", level)[nodes]
            open_ = (child >= 0) & alive.unsqueeze(-1)
            return None, torch.where(open_, self.open_line[0], self.open_line[-1])
        start = self._get("start", level)
        n_open = (start[nodes + 1] - start[nodes]) * alive
        # Copied in runs from a line of zeros and then -inf: a comparison for every place and a
        # masked fill would take longer than all the rest.
        closed = _runs(self.open_line, len(self.open_line) // 2 - n_open, self.width[level])
        return self._children(self._get("code", level), level, nodes).long(), closed

    def follow(self, level: int, nodes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Where each of the ``places [...]`` of :meth:`options` leads from its node.

        Args:
            nodes: ``[...]`` alive nodes of depth ``level``; ``places`` are open in them.

        Returns:
            ``(codes, child)``, both ``[...]``.
        """
        if self._dense_levels[level]:
            return places, self._get("dense", level)[nodes, places].long()
        child = (self._get("start", level)[nodes] + places).long()
        return self._get("code", level)[child].long(), child

    def children_mask(self, level: int, nodes: Tensor) -> Tensor:
        """``[..., sizes[level]]`` bool: the codes that may follow ``nodes``."""
        codes, closed = self.options(level, nodes)
        if codes is None:
            return closed == 0
        shape = (*nodes.shape, self.sizes[level] + 1)
        mask = torch.zeros(shape, dtype=torch.bool, device=nodes.device)
        codes = codes.masked_fill(closed < 0, self.sizes[level])  # a column that is cut off again
        return mask.scatter_(-1, codes, True)[..., :-1]

    def advance(
        self,
        level: int,
        nodes: Tensor,
        codes: Tensor,
        options: tuple[Tensor | None, Tensor] | None = None,
    ) -> Tensor:
        """``[...]`` the nodes reached from ``nodes`` by ``codes``; -1 where no item is.

        ``options``, where they are at hand, are those of the nodes (see :meth:`options`).
        """
        codes = codes.unsqueeze(-1)
        allowed, closed = self.options(level, nodes) if options is None else options
        if allowed is None:
            place, hit = codes, closed.gather(-1, codes) == 0
        else:
            hit = (allowed == codes) & (closed == 0)
            place = hit.long().argmax(-1, keepdim=True)
        _, child = self.follow(level, nodes.clamp_min(0), place.squeeze(-1))
        return child.masked_fill(~hit.any(-1), DEAD)

    def root(self, batch: int) -> Tensor:
        """``[batch, 1]`` the root for each user."""
        return torch.zeros(batch, 1, dtype=torch.long, device=self.leaf_item.device)

    def lowest_items(self, level: int, nodes: Tensor) -> Tensor:
        """``[..., K]`` the lowest item id below each place of :meth:`options`, which breaks ties;
        any id where there is none."""
        nodes = nodes.clamp_min(0)
        last = level == self.n_levels - 1
        if not last and not self._dense_levels[level]:
            return self._children(self._get("lowest", level), level, nodes)
        if self._dense_levels[level]:
            child = self._get("dense", level)[nodes].clamp_min(0)
        else:
            first = self._get("start", level)[nodes].unsqueeze(-1)
            child = first + torch.arange(self.width[level], device=nodes.device)
            child = child.clamp_max(self.n_nodes[-1] - 1)
        if not last:
            return self._get("lowest", level)[child]
        return self.leaf_item[self.leaf_start[child].long()]  # items ascend within a leaf

    def parents(self, level: int) -> Tensor:
        """``[n_nodes[level + 1]]`` the parent of every node of depth ``level + 1``."""
        start = self._get("start", level).long()
        return run_numbers(start[1:] - start[:-1], self.n_nodes[level + 1])

    def edge_codes(self, level: int) -> Tensor:
        """``[n_nodes[level + 1]]`` the code on the edge into every node of depth ``level + 1``."""
        return self._get("code", level)[: self.n_nodes[level + 1]].long()

    def item_paths(self) -> list[Tensor]:
        """Per level, ``[n_items + 1, m]`` the nodes of depth ``level + 1`` above each item's
        leaves (``m`` the most SIDs of one item), -1 where there are no more. Built when first
        asked for and kept: a catalogue that never excludes items does not pay for it."""
        if not hasattr(self, "path_0"):
            leaf, item = self.entries()
            owned = counts_of(item, self.n_items + 1)
            order = item.argsort(stable=True)
            rank = torch.arange(len(item), device=item.device)
            rank = rank - (owned.cumsum(0) - owned)[item[order]]
            path = torch.full((self.n_items + 1, self.most_sids), DEAD, device=item.device)
            path[item[order], rank] = leaf[order]
            for level in reversed(range(self.n_levels)):
                self._store("path", level, path.int())
                path = self.parents(level)[path.clamp_min(0)].masked_fill(path < 0, DEAD)
        return [self._get("path", level) for level in range(self.n_levels)]

    def n_below(self) -> list[Tensor]:
        """Per level, ``[n_nodes[level + 1]]`` the (SID, item) pairs below each node; kept too."""
        if not hasattr(self, "below_0"):
            below = (self.leaf_start[1:] - self.leaf_start[:-1]).long()
            for level in reversed(range(self.n_levels)):
                self._store("below", level, below.int())
                above = below.new_zeros(self.n_nodes[level])
                below = above.index_add(0, self.parents(level), below)
        return [self._get("below", level) for level in range(self.n_levels)]

    def memory_bytes(self) -> int:
        """Bytes of all tensors of the tree."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def extra_repr(self) -> str:
        return f"nodes={self.n_nodes}, width={self.width}, dense={self._dense_levels}"

    def _store(self, name: str, level: int, tensor: Tensor) -> None:
        self.register_buffer(f"{name}_{level}", tensor, persistent=False)

    def _get(self, name: str, level: int) -> Tensor:
        return getattr(self, f"{name}_{level}")

    def _children(self, values: Tensor, level: int, nodes: Tensor) -> Tensor:
        """``[..., width[level]]`` values of the edges from each node's first one on; ``values`` is
        padded, so there are always so many."""
        return _runs(values, self._get("start", level)[nodes], self.width[level])

    def _store_lowest_items(self) -> None:
        # Bottom up: a node's lowest item is the lowest of its children's.
        lowest = self.leaf_item[self.leaf_start[:-1].long()]
        for level in reversed(range(1, self.n_levels)):
            above = torch.full((self.n_nodes[level],), torch.iinfo(torch.int32).max).int()
            lowest = above.scatter_reduce(0, self.parents(level), lowest, "amin")
            self._store("lowest", level - 1, _padded(lowest, self.width[level - 1]))


def _check(codes: Tensor, items: Tensor, sizes: tuple[int, ...]) -> None:
    if codes.ndim != 2 or len(codes) == 0 or codes.shape[1] != len(sizes):
        raise ValueError(f"SIDs of shape {tuple(codes.shape)} do not fit {len(sizes)} levels")
    if len(items) != len(codes) or int(items.min()) < 1:
        raise ValueError("every SID needs an item id of at least 1")
    if bool((codes < 0).any()) or bool((codes >= torch.tensor(sizes)).any()):
        raise ValueError(f"a SID holds a code outside the codebook sizes {sizes}")


def _padded(values: Tensor, width: int) -> Tensor:
    """Zeros at the end, so that ``width`` values can be read from any place."""
    return torch.nn.functional.pad(values, (0, width))


def _runs(values: Tensor, first: Tensor, length: int) -> Tensor:
    """``[..., length]`` the values from each place ``first [...]`` on.

    Rows of a view are copied as runs of memory, many times as fast as a look-up per value.
    """
    rows = values.unfold(0, length, 1)
    return rows.index_select(0, first.flatten()).view(*first.shape, length)


def _wants_dense(n_nodes: int, size: int, width: int, limit: int) -> bool:
    # A dense step reads all codes of the level, a sparse one `width` of them but through three
    # gathers: dense pays only where nodes have about half of all codes as children.
    return n_nodes * size * 4 <= limit and 2 * width >= size
