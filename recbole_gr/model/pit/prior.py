"""How probable an item is before its SID is looked at."""

import torch
from torch import Tensor

N_NEAR = 10  # items whose popularity a new one is lent
SHARPNESS = 10.0  # of their weights, exp(cosine * sharpness)
MOST_COMPARED = 1 << 14  # known items that a new one is compared with
CHUNK = 4096


@torch.no_grad()
def item_prior(popularity: Tensor, content: Tensor) -> Tensor:
    """Interactions of each item plus 1; a new item is lent those of the items it is like.

    Counted as it stands, an item without interactions would be a thousandth of one with a thousand
    on the same SID, and hidden below it whatever its content says. Its prior is instead the mean
    over the items of nearest content that have any, weighted by likeness (ours).

    Args:
        popularity: ``[n_items]`` training interactions, row 0 padding.
        content: ``[n_items, d]`` standardised content.
    """
    prior = popularity + 1
    new, known = (popularity[1:] == 0).nonzero().flatten() + 1, popularity.nonzero().flatten()
    if not len(new) or not len(known):
        return prior
    known = known[:: -(-len(known) // MOST_COMPARED)]
    against = torch.nn.functional.normalize(content[known], dim=1)
    for chunk in new.split(CHUNK):
        likeness = torch.nn.functional.normalize(content[chunk], dim=1) @ against.T
        likeness, near = likeness.topk(min(N_NEAR, len(known)), dim=1)
        weight = (likeness * SHARPNESS).softmax(1)
        prior[chunk] = (weight * prior[known[near]]).sum(1)
    return prior
