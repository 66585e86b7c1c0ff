"""Semantic Cohesion and Preference Discrimination, the two SID metrics of R3-VAE.

Source: "R3-VAE" (arXiv 2604.11440), equations 8 to 10. Both serve as training terms (they are
differentiable in the vectors) and as figures of a finished SID table.
"""

import math

import torch
import torch.nn.functional as F

from recbole_gr.sid.counting import counts_of

EPS = 1e-8  # of every normalisation, so that a zero vector stays zero
_CHUNK_VALUES = 2**24  # cosines held at once


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Rows scaled to length 1; zero rows stay zero."""
    return F.normalize(vectors, dim=1, eps=EPS)


def group_cohesion(vectors: torch.Tensor, groups: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Mean pairwise cosine inside each group of two or more (equation 8), and their mean.

    For unit vectors ``u`` the sum over unordered pairs is ``(|sum u|^2 - n) / 2``, so no pair is
    ever formed. Groups of one have no pair and are left out. Pairs are read as unordered, the only
    reading under which 1 is the largest value (inferred).

    Example: vectors at 0 and 60 degrees in group 0, a single one in group 1 give 0.5.

    Args:
        vectors: float tensor ``[n, d]``; differentiable.
        groups: LongTensor ``[n]`` with the group of each row.
        n_groups: number of groups.

    Returns:
        scalar tensor; 0, without gradient to any vector, where no group has two members.
    """
    lengths = vectors.norm(dim=1, keepdim=True)
    rows = vectors / lengths.clamp(min=EPS)
    sums = rows.new_zeros(n_groups, rows.shape[1]).index_add(0, groups, rows)  # [G, d]
    # Of length 1, whose square has no gradient; but a zero vector has no direction.
    own = (lengths / lengths.clamp(min=EPS)).detach().square().squeeze(1)
    squares = rows.new_zeros(n_groups).index_add(0, groups, own)
    counts = counts_of(groups, n_groups).to(rows.dtype)
    paired = counts > 1
    cohesion = (sums.square().sum(1) - squares) / (counts * (counts - 1)).clamp(min=1)
    return torch.where(paired, cohesion, 0).sum() / paired.sum().clamp(min=1)


def discrimination(centres: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """Preference Discrimination (equation 10): how far apart the centres lie; lower is better.

    ``log mean_{a != b} exp(-t (1 - cos(p_a, p_b)))``: 0 for identical centres, ``-t`` for mutually
    orthogonal ones, the uniformity potential of cosine distances.

    Args:
        centres: float tensor ``[m, d]``, ``m >= 2``; differentiable.
        temperature: ``t``.

    Returns:
        scalar tensor; 0 for fewer than two centres.
    """
    n = len(centres)
    if n < 2:
        return centres.sum() * 0
    rows = unit(centres)
    # Row blocks keep 10^5 centres within memory; a codebook of 2,048 is one block.
    parts = []
    for start in range(0, n, max(1, _CHUNK_VALUES // n)):
        cosines = rows[start : start + max(1, _CHUNK_VALUES // n)] @ rows.T
        own = torch.zeros_like(cosines, dtype=torch.bool)
        own[:, start:].fill_diagonal_(True)
        exponents = (-temperature * (1 - cosines)).masked_fill(own, -torch.inf)
        parts.append(exponents.flatten().logsumexp(0))
    return torch.stack(parts).logsumexp(0) - math.log(n * (n - 1))
