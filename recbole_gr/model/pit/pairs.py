"""Pairs of item and candidate SID that a batch has chosen, computed once each.

On a CPU they are as many as there are. Elsewhere the host would wait for that number in every step,
so there they are as many as there can be, and those left over count nothing.
"""

from torch import Tensor


def counted_pairs(counts: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of item and candidate that were chosen at all.

    Args:
        counts: ``[n, N]`` how often each was.
        most: the number of such pairs there can be at most.

    Returns:
        ``(row, place, count)``, all ``[m]``, in the order of rows and places. On a CPU every count
        is above 0; elsewhere ``m`` is the smaller of ``most`` and ``n N``, and those left over at
        the end have count 0.
    """
    if counts.device.type == "cpu":
        row, place = (counts > 0).nonzero(as_tuple=True)
        return row, place, counts[row, place]
    return counted_pairs_of_fixed_size(counts, most)


def counted_pairs_of_fixed_size(counts: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`counted_pairs` as it is on every device but a CPU."""
    flat = counts.flatten()
    order = (flat <= 0).int().argsort(stable=True)[:most]
    return order // counts.shape[1], order % counts.shape[1], flat[order]
