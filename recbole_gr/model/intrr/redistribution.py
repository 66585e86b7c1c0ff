"""Figures of the redistribution of Stage-1 SIDs on the item side."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_gr.sid.formats import level_name


def assignment_figures(
    assigned: Tensor, given: Tensor, sizes: Sequence[int]
) -> dict[str, dict[str, float]]:
    """How the codes of the item side stand to the Stage-1 SIDs, as ``{topic: {name: value}}``.

    * agreement with the Stage-1 SID: share of items with the same code, by level and for the whole
      SID. Without an alignment loss nothing asks for agreement (the codewords are learned again).
    * codes in use (bits): entropy of each level's codes over the items; 0 when all have one code.

    Args:
        assigned: ``[N, L]`` codes of largest logit on the item side.
        given: ``[N, L]`` Stage-1 SIDs.
        sizes: codes of each level.
    """
    same = assigned == given
    names = [f"level {level_name(level)}" for level in range(given.shape[1])]
    agreement = dict(zip(names, same.float().mean(0).tolist()))
    agreement["whole SID"] = float(same.all(1).float().mean())
    entropy = {}
    for level, size in enumerate(sizes):
        share = torch.bincount(assigned[:, level], minlength=size) / len(assigned)
        bits = -(share * share.clamp_min(1e-20).log2()).sum()
        entropy[f"{names[level]} of {size}"] = abs(float(bits))
    return {"agreement with the Stage-1 SID": agreement, "codes in use (bits)": entropy}


def alike_items(codes: Tensor) -> Tensor:
    """Two items that differ in the last level alone, as the paper's figure has; the first two of
    the largest such group, or items 1 and 2 where there is none.

    Args:
        codes: ``[n_items, L]``, row 0 padding.
    """
    first = torch.arange(1, min(3, len(codes)), device=codes.device)
    if codes.shape[1] == 1:
        return first
    _, group, count = torch.unique(codes[1:, :-1], dim=0, return_inverse=True, return_counts=True)
    if int(count.max()) == 1:
        return first
    return (group == count.argmax()).nonzero()[:2, 0] + 1


def described(items: list[str], codes: Tensor, levels: list[Tensor]) -> list[dict]:
    """Plain data of a heat-map: per item ``item`` (token), ``sid``, and ``probability``, a list of
    numbers for each level."""
    return [
        {
            "item": token,
            "sid": codes[row].tolist(),
            "probability": [level[row].tolist() for level in levels],
        }
        for row, token in enumerate(items)
    ]
