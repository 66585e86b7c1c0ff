"""The beam index: the SIDs of each item, with their weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recbole_gr.sid.table import sid_keys
from recbole_gr.sid.trie import SIDTrie

EMPTY = float("-inf")  # log-probability of a place that holds no SID


class BeamIndex(nn.Module):
    """A weighted graph of items and SIDs that follows training (PIT; all formulas inferred).

    Every item has a fixed number of places, each for one SID with a decayed count of how often it
    was selected and Item-to-Token's log-probability. At :meth:`refresh`, with decay ``rho``, prior
    weight ``kappa`` and threshold ``epsilon``::

        n <- rho n
        E_i <- E_i and the new candidates
        p = softmax of the log-probabilities over E_i, divided by a temperature
        w = (n + kappa p) / (sum of n + kappa)
        keep the max_sids heaviest with w >= epsilon, the heaviest always

    Decoding ends on the SIDs of positive weight and nothing else (:meth:`trie`). An item that is
    never selected keeps ``w = p``, so rare and new items stay within reach. Memory is bounded:
    ``capacity`` places per item, whatever happens during training.

    Args:
        codes: ``[n_items, L]`` the starting SIDs; row 0 is padding.
        sizes: codebook size of each level.
        max_sids: most SIDs of an item.
        spare: places for SIDs first selected since the last refresh.
        decay: ``rho``, 0 to 1.
        prior_weight: ``kappa``, above 0.
        threshold: ``epsilon``, below 1.
        temperature: of the prior. Item-to-Token is nearly sure of the SID that it was taught; above
            1 its other proposals begin with a share that selection can work on.

    Attributes:
        codes: ``[n_items, capacity, L]`` SIDs, heaviest first after a refresh.
        count: ``[n_items, capacity]`` decayed selections.
        log_prob: ``[n_items, capacity]``, -inf marks an empty place.
        weight: ``[n_items, capacity]`` 0 where a place is empty or newer than the last refresh.
    """

    codes: Tensor
    count: Tensor
    log_prob: Tensor
    weight: Tensor

    def __init__(
        self,
        codes: Tensor,
        sizes: Sequence[int],
        max_sids: int,
        spare: int,
        decay: float,
        prior_weight: float,
        threshold: float,
        temperature: float = 1.0,
    ):
        super().__init__()
        self.sizes, self.max_sids = tuple(sizes), max_sids
        self.decay, self.prior_weight, self.threshold = decay, prior_weight, threshold
        self.temperature = temperature
        capacity = max_sids + spare
        dtype = torch.int16 if max(self.sizes) <= 1 << 15 else torch.int32
        places = torch.zeros(len(codes), capacity, len(self.sizes), dtype=dtype)
        places[:, 0] = codes.to(dtype)
        first = torch.zeros(len(codes), capacity)
        first[1:, 0] = 1.0
        self.register_buffer("codes", places)
        self.register_buffer("count", torch.zeros(len(codes), capacity))
        self.register_buffer("log_prob", first.log())
        self.register_buffer("weight", first)
        self._built: dict[bool, SIDTrie] = {}  # the last tree of each kind

    @property
    def n_items(self) -> int:
        """Rows, the padding item included."""
        return len(self.weight)

    @property
    def capacity(self) -> int:
        """Places of an item."""
        return self.weight.shape[1]

    def observe(self, items: Tensor, codes: Tensor, log_prob: Tensor, selected: Tensor) -> None:
        """Count selections of one batch.

        Args:
            items: ``[n]`` distinct items; item 0, never selected, may repeat.
            codes: ``[n, N, L]`` their candidates, distinct within an item.
            log_prob: ``[n, N]`` Item-to-Token's log-probabilities.
            selected: ``[n, N]`` how often each was selected. One that was not is not taken in.

        A SID that is not in the index yet takes an empty place, or that of the SID selected least
        among those that have no weight yet; it becomes legal at the next refresh.
        """
        found, place = self._find(items, codes)
        count = self.count[items]
        count = count.scatter_add(1, place, selected.to(count) * found)
        new = (selected > 0) & ~found
        merged = self._joined(items, count, codes, log_prob, selected.to(count), new)
        # Places with weight stay as they are, then come the most selected; the sort is stable.
        key = merged[1].masked_fill(merged[2] == EMPTY, -1)
        key = key.masked_fill(merged[3] > 0, float("inf"))
        self.write(items, self._take(merged, key))

    def refresh(self, codes: Tensor, log_prob: Tensor, edge_log_prob: Tensor | None = None) -> None:
        """Decay, take in candidates, weigh and prune, for all items at once.

        Args:
            codes: ``[n_items, N, L]`` candidates of each item, distinct within an item.
            log_prob: ``[n_items, N]``, -inf where there is no candidate.
            edge_log_prob: ``[n_items, capacity]`` new log-probabilities of the SIDs held, if
                Item-to-Token has changed.
        """
        items = torch.arange(self.n_items, device=self.weight.device)
        if edge_log_prob is not None:
            empty = self.log_prob == EMPTY
            self.log_prob.copy_(edge_log_prob.masked_fill(empty, EMPTY))
        self.count.mul_(self.decay)
        found, place = self._find(items, codes)
        known = found & (log_prob != EMPTY)
        held = torch.where(known, log_prob, self.log_prob.gather(1, place))
        # Several unknown candidates may point at one place; only the known write there.
        target = place.masked_fill(~known, self.capacity)
        wide = nn.functional.pad(self.log_prob, (0, 1)).scatter(1, target, held)
        self.log_prob.copy_(wide[:, :-1])
        new = ~found & (log_prob != EMPTY)
        merged = self._joined(items, self.count, codes, log_prob, 0.0, new)
        weight = self._weights(merged[1], merged[2])
        codes, count, log_prob, weight = self._take((*merged[:3], weight), weight)
        rank = torch.arange(self.capacity, device=weight.device)
        keep = (rank < self.max_sids) & ((weight >= self.threshold) | (rank == 0)) & (weight > 0)
        self.write(
            items,
            (
                codes.masked_fill(~keep.unsqueeze(2), 0),
                count.masked_fill(~keep, 0.0),
                log_prob.masked_fill(~keep, EMPTY),
                weight.masked_fill(~keep, 0.0),
            ),
        )

    def restart(self, codes: Tensor, log_prob: Tensor) -> None:
        """Forget all SIDs and start from candidates (the bridge to co-evolution).

        Args:
            codes: ``[n_items, N, L]``.
            log_prob: ``[n_items, N]``, -inf where there is no candidate.
        """
        self.count.zero_()
        self.log_prob.fill_(EMPTY)
        self.weight.zero_()
        self.refresh(codes, log_prob)

    @torch.no_grad()
    def add_items(self, codes: Tensor, log_prob: Tensor) -> Tensor:
        """Take in items that training has not seen; their weights are the priors.

        Args:
            codes: ``[n, N, L]`` SIDs that Item-to-Token proposes for them.
            log_prob: ``[n, N]``.

        Returns:
            ``[n]`` their ids, which follow those there are. The trie must be built again.
        """
        first = self.n_items
        n_new, device = len(codes), self.weight.device
        for name in ("codes", "count", "log_prob", "weight"):
            old = getattr(self, name)
            fill = EMPTY if name == "log_prob" else 0
            setattr(self, name, torch.cat([old, old.new_full((n_new, *old.shape[1:]), fill)]))
        items = torch.arange(first, first + n_new, device=device)
        new = log_prob.to(device) != EMPTY
        merged = self._joined(items, self.count[items], codes, log_prob, 0.0, new)
        weight = self._weights(merged[1], merged[2])
        codes, count, log_prob, weight = self._take((*merged[:3], weight), weight)
        late = torch.arange(self.capacity, device=device) >= self.max_sids
        parts = count, log_prob.masked_fill(late, EMPTY), weight.masked_fill(late, 0.0)
        self.write(items, (codes, *parts))
        return items

    def edges(self, only_heaviest: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """All legal (SID, item) pairs.

        Args:
            only_heaviest: one SID per item.

        Returns:
            ``(codes [E, L], items [E], weights [E])``.
        """
        weight = self.weight
        if only_heaviest:
            weight = weight[:, :1]
        item, place = (weight > 0).nonzero(as_tuple=True)
        return self.codes[item, place].long(), item, weight[item, place]

    def trie(self, item_prior: Tensor | None = None, only_heaviest: bool = False) -> SIDTrie:
        """The tree of all legal SIDs, with ``P(i | c)`` proportional to ``w_ic pi_i`` on it.

        Where items own the SIDs that they owned before it is the tree of before, weighed anew.

        Args:
            item_prior: ``pi [n_items]``; all equal by default.
            only_heaviest: one SID per item.
        """
        codes, items, weights = self.edges(only_heaviest)
        if item_prior is not None:
            weights = weights * item_prior[items]
        # The order of the tree's entries: by SID, then by item (`items` ascends already).
        order = sid_keys(codes, self.sizes).argsort(stable=True)
        codes, items = codes[order], items[order]
        trie = self._built.get(only_heaviest)
        if trie is None or not _holds(trie.to(codes.device), codes, items):
            trie = SIDTrie(codes.cpu(), items.cpu(), self.sizes).to(codes.device)
            self._built[only_heaviest] = trie
        trie.weigh(weights[order])
        return trie

    def heaviest(self, items: Tensor | None = None) -> Tensor:
        """``[..., L]`` the heaviest SID of each of ``items [...]``; of all items by default."""
        return (self.codes[:, 0] if items is None else self.codes[items, 0]).long()

    def memory_bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def _weights(self, count: Tensor, log_prob: Tensor) -> Tensor:
        """``w [n, P]`` by the class's formula; 0 at empty places and for padding."""
        empty = log_prob == EMPTY
        log_prob = log_prob.masked_fill(empty.all(1, keepdim=True), 0.0)
        prior = (log_prob / self.temperature).softmax(1)
        total = count.sum(1, keepdim=True)
        weight = (count + self.prior_weight * prior) / (total + self.prior_weight)
        return weight.masked_fill(empty, 0.0)

    def _find(self, items: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Whether and where each SID ``[n, N, L]`` is held: bool and place, both ``[n, N]``."""
        held = self.codes[items]  # [n, capacity, L]
        shape = (*codes.shape[:2], self.capacity)
        same = torch.ones(shape, dtype=torch.bool, device=held.device)
        for level in range(len(self.sizes)):  # level by level: a quarter of the memory
            same &= codes[:, :, None, level] == held[:, None, :, level]
        same &= (self.log_prob[items] != EMPTY).unsqueeze(1)
        return same.any(2), same.int().argmax(2)

    def _joined(
        self,
        items: Tensor,
        count: Tensor,
        codes: Tensor,
        log_prob: Tensor,
        selected: Tensor | float,
        new: Tensor,
    ) -> tuple[Tensor, ...]:
        """Places and new SIDs side by side, ``[n, capacity + N]``: codes, count, log_prob, weight.
        What is not ``new`` comes as an empty place."""
        held = self.codes[items]
        count = torch.cat([count, torch.zeros_like(log_prob) + selected], 1)
        count[:, self.capacity :].masked_fill_(~new, 0.0)
        added = log_prob.masked_fill(~new, EMPTY)
        return (
            torch.cat([held, codes.to(held.dtype)], 1),
            count,
            torch.cat([self.log_prob[items], added.to(self.log_prob)], 1),
            torch.cat([self.weight[items], torch.zeros_like(added)], 1),
        )

    def _take(self, merged: tuple[Tensor, ...], key: Tensor) -> tuple[Tensor, ...]:
        """The ``capacity`` places of the highest ``key``, ties in the order they come in."""
        order = key.argsort(dim=1, descending=True, stable=True)[:, : self.capacity]
        codes = merged[0].gather(1, order.unsqueeze(2).expand(-1, -1, merged[0].shape[2]))
        return codes, *(part.gather(1, order) for part in merged[1:])

    def write(self, items: Tensor, parts: tuple[Tensor, ...]) -> None:
        """Put codes, counts, log-probabilities and weights of items in their places."""
        for name, part in zip(("codes", "count", "log_prob", "weight"), parts):
            getattr(self, name)[items] = part


def _holds(trie: SIDTrie, codes: Tensor, items: Tensor) -> bool:
    """Whether the entries of a tree are these pairs of SID ``[E, L]`` and item ``[E]``, sorted."""
    node, item = trie.entries()
    if not torch.equal(item, items):
        return False
    for level in reversed(range(trie.n_levels)):
        if not torch.equal(trie.edge_codes(level)[node], codes[:, level]):
            return False
        node = trie.parents(level)[node]
    return True
