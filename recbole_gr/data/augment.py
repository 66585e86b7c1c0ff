"""Other views of a training sequence: a part of it, or one with a stretch in another order.

After the crop and the reordering of CL4SRec (arXiv 2010.14395), which contrasts such views where
here they are trained on. Its parts are 0.6 of a sequence for both; a stretch is shorter here, as
its items are targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

CROP = 0.6  # of a sequence is kept, at least 2 items
SHUFFLED = 0.2  # of a sequence is shuffled, at least 2 items


def crop_or_shuffle(
    lengths: Tensor, n_targets: Tensor, width: int, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Which item of its sequence (history and target) each place of a row has now.

    A row is cropped with probability `share / 2`, shuffled with `share / 2`, and else stays. The
    last `n_targets` items of a sequence are counted targets; a part is drawn among those that hold
    one behind another item, and counts those that it does.

    Args:
        lengths (LongTensor): [B] of the histories, at least 1.
        n_targets (LongTensor): [B] counted targets, from 1 to the length.
        width (int): T, of the longest history.
        share (float): of the rows that change.
        generator (torch.Generator): of all draws.

    Returns:
        tuple[LongTensor, LongTensor, LongTensor]: places [B, T + 1] in the sequence before, the
        lengths of the histories and the numbers of counted targets after.
    """
    chance, start = torch.rand(2, len(lengths), 1, generator=generator, dtype=torch.float64)
    total, counted = (lengths + 1).unsqueeze(1), n_targets.unsqueeze(1)
    place = torch.arange(width + 1).expand(len(lengths), -1)

    kept = (CROP * total).long().clamp(min=2)
    least = (total + 1 - counted - kept).clamp(min=0)  # from where on a part holds a target
    first = least + (start * (total - kept - least + 1)).long()

    stretch = (SHUFFLED * total).long().clamp(min=2)
    begin = (start * (total - stretch + 1)).long()
    # Keys of a stretch lie between those of the places around it, so that it stays where it is.
    key = begin + stretch * torch.rand(place.shape, generator=generator, dtype=torch.float64)
    inside = (place >= begin) & (place < begin + stretch)
    shuffled = torch.where(inside, key, place.double()).argsort(stable=True, dim=1)

    crops, shuffles = chance < share / 2, (chance >= share / 2) & (chance < share)
    first, kept = torch.where(crops, first, 0), torch.where(crops, kept, total)
    now = torch.where(shuffles, shuffled, (place + first).clamp(max=width))
    counted = first + kept - torch.maximum(first + 1, total - counted)
    return now, (kept - 1).squeeze(1), counted.squeeze(1)
