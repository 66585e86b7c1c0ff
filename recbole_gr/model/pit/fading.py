"""How the beam index follows an item that moves: the SID of before fades, and nothing breaks."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_gr.model.pit.index import EMPTY, BeamIndex

LIGHTEST = 1e-6  # below it a SID is let go of whatever the threshold


def move(index: BeamIndex, items: Tensor, codes: Tensor) -> None:
    """Give items another SID, which is their heaviest from now on; those that they had stay behind
    it and :func:`fade`, as far as there are places (ours).

    Args:
        index: changed in place.
        items: ``[m]`` distinct.
        codes: ``[m, L]`` SIDs that they do not hold.
    """
    share = index.decay / (1 + index.decay)  # of all that was before
    _place_first(index, items, index.weight[items, : index.max_sids - 1] * share, codes)


def fade(index: BeamIndex) -> None:
    """Decay the weights of all SIDs but each item's heaviest, which takes what they lose, and prune
    those below the threshold (ours)."""
    items = torch.arange(index.n_items, device=index.weight.device)
    _place_first(index, items, index.weight[:, 1:] * index.decay)


def _place_first(
    index: BeamIndex, items: Tensor, behind: Tensor, codes: Tensor | None = None
) -> None:
    """Weigh the SIDs of items: the places from the second on by ``behind [m, n]``, the first by
    what is left to 1. New ``codes [m, L]`` take the first place, the others move one back."""
    held, count, log_prob = index.codes[items], index.count[items], index.log_prob[items]
    if codes is not None:
        held = torch.cat([codes.to(held.dtype).unsqueeze(1), held], 1)[:, : index.capacity]
        zero = torch.zeros_like(count[:, :1])
        count = torch.cat([zero, count], 1)[:, : index.capacity]
        log_prob = torch.cat([zero, log_prob], 1)[:, : index.capacity]
    behind = behind.masked_fill(behind < max(index.threshold, LIGHTEST), 0.0)
    weight = torch.cat([1 - behind.sum(1, keepdim=True), behind], 1)
    weight = pad(weight, (0, index.capacity - weight.shape[1])) * (items > 0).unsqueeze(1)
    empty = weight == 0
    index.write(
        items,
        (
            held.masked_fill(empty.unsqueeze(2), 0),
            count.masked_fill(empty, 0.0),
            log_prob.masked_fill(empty, EMPTY),
            weight,
        ),
    )
