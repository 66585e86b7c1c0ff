"""The choice of a mixture by the validation targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from recbole_gr.fusion.mixing import MIXTURES, Candidate, confidence, weight_of
from recbole_gr.trainer.batches import to_device
from recbole_gr.trainer.places import ranks_by_scores

if TYPE_CHECKING:
    from recbole_gr.fusion.model import Fusion


class Tried(NamedTuple):
    """Ranks of the targets under each candidate.

    Attributes:
        ranks: ``[n_candidates, P]``, 0 for the best item.
        rows: ``[P]`` the number of each target's row, from 0.
        n_rows: of the validation.
    """

    ranks: Tensor
    rows: Tensor
    n_rows: int


def measure_confidence(model: Fusion, batches: Iterable[Any]) -> None:
    """Let a fusion know mean and deviation of the difference in confidence over users."""
    parts = []
    for interaction, *_ in batches:
        first, second = model.scores_of(to_device(interaction, model.share.device))
        parts.append(confidence(second) - confidence(first))
    difference = torch.cat(parts)
    model.centre.copy_(difference.mean())
    model.deviation.copy_(difference.std(correction=0).clamp_min(1e-6))


def ranks_under(
    model: Fusion,
    tried: list[Candidate],
    batches: Iterable[Any],
    done: Callable[[int], Any] = lambda n: None,
) -> Tried:
    """The ranks of all targets of a loader of RecBole's full ranking under every candidate.

    Both models score each user once. Ties count as in the test, by the lower id.

    Args:
        model: a fusion that knows its confidences.
        tried: the candidates.
        batches: of the validation.
        done: called with the number of rows of each batch.
    """
    ranks: list[Tensor] = []
    rows: list[Tensor] = []
    n_rows = 0
    device = model.share.device
    none = torch.empty(0, dtype=torch.long, device=device)
    for interaction, _, row, item in batches:
        first, second = model.scores_of(to_device(interaction, device))
        surer = model.surer(first, second)
        target = row.to(device), item.to(device) - 1  # scores are of the items from 1 on
        found, scaled, strength = [], {}, None
        for name, share, slope, smoothing in tried:
            if smoothing != strength:  # one after the other
                strength, smooth = smoothing, model.smoothed(first, second, smoothing)
                for mixture, (scale, _) in MIXTURES.items():
                    scaled[mixture] = scale(smooth[0]), scale(smooth[1])
            weight = weight_of(first.new_tensor(share), first.new_tensor(slope), surer)
            mixed = MIXTURES[name][1](*scaled[name], weight)
            found.append(ranks_by_scores(mixed, (none, none), *target)[0])
        ranks.append(torch.stack(found).cpu())
        rows.append(row.cpu() + n_rows)
        n_rows += len(first)
        done(len(first))
    return Tried(torch.cat(ranks, 1), torch.cat(rows), n_rows)
