"""The items at the leaves of a prefix tree and how they share the probability of their SID."""

import torch
from torch import Tensor, nn

from recbole_gr.compat.tracing import exporting

N_CROWDED = 1024  # leaves whose numbers of items are known without a look at the tensors
MODEST = 16  # items per leaf that cost less than to wait for a device


class Leaves(nn.Module):
    """Leaves of a tree of SIDs in flat tensors; base of :class:`~recbole_gr.sid.trie.SIDTrie`.

    Several items may share a leaf and one item may own several leaves. Unless told otherwise
    (:meth:`weigh`) the items of a leaf share its probability equally.

    Attributes:
        n_items: largest item id.
        max_sharing: most items on one leaf.
        most_sids: most leaves of one item.
        one_sid_each: no item owns more than one leaf.
    """

    leaf_start: Tensor
    leaf_item: Tensor
    entry_share: Tensor
    entry_key: Tensor

    def _hold(self, leaf: Tensor, items: Tensor) -> None:
        """Store the pairs ``leaf [N]`` (ascending, from 0 on, none left out) and ``items [N]``
        (ascending within a leaf)."""
        per_leaf = torch.bincount(leaf)
        self.n_items, self.max_sharing = int(items.max()), int(per_leaf.max())
        most = per_leaf.topk(min(len(per_leaf), N_CROWDED)).values
        self._crowded = most.cumsum(0).tolist()
        self.most_sids = int(torch.bincount(items).max())
        self.one_sid_each = self.most_sids == 1
        self.register_buffer("leaf_start", offsets(per_leaf), persistent=False)
        self.register_buffer("leaf_item", items.int(), persistent=False)

    def items(self, leaves: Tensor) -> Tensor:
        """``[..., max_sharing]`` item ids on each leaf, ascending, 0 where there are no more."""
        dead = (leaves < 0).unsqueeze(-1)
        leaves = leaves.clamp_min(0)
        first = self.leaf_start[leaves].unsqueeze(-1)
        last = self.leaf_start[leaves + 1].unsqueeze(-1)
        row = first + torch.arange(self.max_sharing, device=leaves.device, dtype=first.dtype)
        missing = dead | (row >= last)
        item = self.leaf_item[row.clamp_max(len(self.leaf_item) - 1).long()].long()
        return item.masked_fill(missing, 0)

    def sharing(self, leaves: Tensor) -> Tensor:
        """``[...]`` how many items share each leaf; 0 on a dead one."""
        start = self.leaf_start
        count = start[leaves.clamp_min(0) + 1] - start[leaves.clamp_min(0)]
        return count.masked_fill(leaves < 0, 0).long()

    def weigh(self, weights: Tensor) -> None:
        """Let the items of a SID share its probability by weight instead of equally.

        Args:
            weights: ``[N]`` positive, in the order of :meth:`entries`.
        """
        leaf, _ = self.entries()
        total = weights.new_zeros(len(self.leaf_start) - 1).index_add(0, leaf, weights)
        self.register_buffer("entry_share", (weights / total[leaf]).log(), persistent=False)

    def spread(self, leaves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All items on the leaves of each row, side by side and without gaps.

        Padding every leaf to the most crowded one would make one popular SID slow for all.

        Args:
            leaves: ``[B, W]``, -1 dead.

        Returns:
            ``(items, log_share, column)``, all ``[B, M]``: item ids (0 where a row has fewer than
            ``M``), log P(item | SID) and the column of ``leaves`` that each comes from.
        """
        counts = self.sharing(leaves)
        ends = counts.cumsum(1)
        width = self.most_items(leaves.shape[1])
        modest = leaves.device.type != "cpu" and width <= MODEST * leaves.shape[1]
        # In a graph the shape may not depend on what is found, and a look at a device is waited
        # for; on a CPU it costs nothing, and a few crowded leaves would make every row wide.
        if not (exporting() or modest):
            width = max(1, int(ends[:, -1].max()))
        place = torch.arange(width, device=leaves.device)
        place = place.expand(leaves.shape[0], -1).contiguous()
        column = torch.searchsorted(ends, place, right=True)
        missing = column == leaves.shape[1]
        column = column.masked_fill(missing, 0)
        first = self.leaf_start[leaves.clamp_min(0)].long() - (ends - counts)
        row = (first.gather(1, column) + place).masked_fill(missing, 0)
        items = self.leaf_item[row].long().masked_fill(missing, 0)
        return items, self.entry_log_share(row), column

    def log_share_of(self, leaves: Tensor, items: Tensor) -> Tensor:
        """``[...]`` log P(item | SID) of each item on its leaf; -inf where it is not on it."""
        if not hasattr(self, "entry_key"):  # built when first asked for, and kept
            leaf, item = self.entries()
            self.register_buffer("entry_key", leaf * (self.n_items + 1) + item, persistent=False)
        key = leaves * (self.n_items + 1) + items
        row = torch.searchsorted(self.entry_key, key).clamp_max(len(self.entry_key) - 1)
        there = (self.entry_key[row] == key) & (leaves >= 0)
        return self.entry_log_share(row).masked_fill(~there, float("-inf"))

    def entry_log_share(self, rows: Tensor | None = None) -> Tensor:
        """log P(item | SID) of every (SID, item) pair ``[N]``, in the order of :meth:`entries`, or
        of some ``rows [...]`` of them."""
        if hasattr(self, "entry_share"):
            return self.entry_share if rows is None else self.entry_share[rows]
        if rows is None:
            return -self.sharing(self.entries()[0]).log()
        leaf = torch.searchsorted(self.leaf_start, rows.int(), right=True) - 1
        return -self.sharing(leaf).log()

    def entries(self) -> tuple[Tensor, Tensor]:
        """``(leaf [N], item [N])`` of every (SID, item) pair, in the order of the sorted SIDs."""
        counts = (self.leaf_start[1:] - self.leaf_start[:-1]).long()
        return run_numbers(counts, len(self.leaf_item)), self.leaf_item.long()

    def most_items(self, n_leaves: int) -> int:
        """The most items that ``n_leaves`` different leaves can hold."""
        known = self._crowded[:n_leaves]
        n_others = min(n_leaves, len(self.leaf_start) - 1) - len(known)
        fewest = known[-1] - known[-2] if len(known) > 1 else known[-1]
        return known[-1] + n_others * fewest


def run_numbers(counts: Tensor, total: int) -> Tensor:
    """``[total]`` the number of each run, as often as ``counts [n]`` says; ``total`` is their sum
    (without it a device would be waited for, and a graph could not be traced)."""
    numbers = torch.arange(len(counts), device=counts.device)
    return torch.repeat_interleave(numbers, counts, output_size=total)


def offsets(counts: Tensor) -> Tensor:
    """``[n + 1]`` where each of ``n`` runs of ``counts`` elements starts, and the end."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
