"""How the scores of two models become one: three ways to mix them, a weight, and a confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Scales = Callable[[Tensor], Tensor]


def standardised(scores: Tensor) -> Tensor:
    """Scores ``[B, N]`` with mean 0 and deviation 1 in every row; 0 where all are equal."""
    centred = scores - scores.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)


def _sum(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return torch.lerp(a, b, weight)


def _of_probabilities(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return torch.logaddexp(a + (1 - weight).log(), b + weight.log())


#: By the words of the key `fusion`: what a row of scores is made comparable by, and how two of them
#: are mixed with the weight ``[B, 1]`` of the second.
#:
#: * `log_softmax`: weighted sum of log-probabilities (a product of experts).
#: * `probability`: log of the weighted sum of probabilities (a mixture).
#: * `standard`: weighted sum of scores with mean 0 and deviation 1 for each user.
MIXTURES: dict[str, tuple[Scales, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "log_softmax": (lambda scores: scores.log_softmax(1), _sum),
    "probability": (lambda scores: scores.log_softmax(1), _of_probabilities),
    "standard": (standardised, _sum),
}


def confidence(scores: Tensor) -> Tensor:
    """How sure a model is of each user, ``[B, N]`` scores -> ``[B]``: minus the entropy of their
    softmax, in nats."""
    logs = scores.log_softmax(1)
    return (logs.exp() * logs).sum(1)


def weight_of(share: Tensor, slope: Tensor, surer: Tensor) -> Tensor:
    """The weight of the second model for each user, ``[B, 1]``.

    Args:
        share: scalar, its weight where both are as sure as on average; at 0 and 1 it is the same
            for all users.
        slope: scalar, what one standard deviation of `surer` adds to its log-odds.
        surer: ``[B]`` by how much it is surer than the first, in standard deviations.
    """
    return torch.sigmoid(torch.logit(share) + slope * surer).unsqueeze(1)


def spread_of_beams(items: Tensor, scores: Tensor, n_items: int) -> Tensor:
    """Log-probabilities of all items from a ranked list: what the list leaves over is shared by the
    items that are not in it, equally.

    Args:
        items: ``[B, W]`` ids from 1, distinct in a row; 0 in empty places.
        scores: ``[B, W]`` log-probabilities, -inf in empty places.
        n_items: of the catalogue, the padding among them.

    Returns:
        ``[B, n_items]``, -inf for item 0.
    """
    listed = scores.exp().sum(1)
    n_left = (n_items - 1 - (items > 0).sum(1)).clamp_min(1)
    rest = (1 - listed).clamp_min(torch.finfo(scores.dtype).tiny) / n_left
    # Never above the last of the list, of which a loss over the codebook may leave little.
    last = scores.masked_fill(items == 0, float("inf")).amin(1)
    floor = torch.minimum(rest.log(), last)
    dense = floor.unsqueeze(1).repeat(1, n_items).scatter(1, items, scores)
    dense[:, 0] = float("-inf")
    return dense


class Candidate(NamedTuple):
    """A way to mix: its name among :data:`MIXTURES`, the weight of the second model and how far it
    follows the surer one (:func:`weight_of`), and the strength of
    :class:`~recbole_gr.fusion.smoothing.Neighbours`."""

    mixture: str
    share: float
    slope: float = 0.0
    smoothing: float = 0.0


def candidates(
    shares: Sequence[float], slopes: Sequence[float], smoothing: Sequence[float] = (0.0,)
) -> list[Candidate]:
    """What is tried on validation: every mixture, weight, slope and smoothing; an endpoint, which
    is one of the models alone, once for each smoothing. Those without come first."""
    tried = []
    inner = [share for share in shares if 0 < share < 1]
    for strength in sorted({0.0, *smoothing}):
        ends = [Candidate("log_softmax", end, 0.0, strength) for end in (0.0, 1.0)]
        mixed = [
            Candidate(m, w, slope, strength) for m in MIXTURES for w in inner for slope in slopes
        ]
        tried += ends + mixed
    return tried
