"""The log-probability that a model gives to targets, where what it gives are probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_gr.registry import is_generative
from recbole_gr.trainer.batches import to_device

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction

#: Takes the scores ``[B, n_items]`` of a batch (None where there are none), the batch, and its
#: targets as pairs of row and item ``[P]``; gives their log-probabilities ``[P]`` in nats.
Likelihood = Callable[["Tensor | None", "Interaction", Tensor, Tensor], Tensor]


def likelihood_for(config: Config, model: Any) -> Likelihood | None:
    """What gives the log-probability of targets.

    Of a generative model it is that of each row's own item by ``model.predict``, whatever beams and
    history hold. A sequential model of RecBole's that is trained by cross-entropy over the
    catalogue has its scores for logits: the softmax is over all items. Scores of other models
    (BPR, counts, and models whose scores are probabilities of a mixture) are no logits.

    Args:
        config: read for ``eval_likelihood``.
        model: the recommender.

    Returns:
        None where it is not asked for, or not defined.
    """
    if not config["eval_likelihood"]:
        return None
    if is_generative(model):
        if not model.item_probabilities:
            return None

        def of_own_items(_: Any, batch: Interaction, rows: Tensor, items: Tensor) -> Tensor:
            values = model.predict(to_device(batch, model.codes.device))
            return values[rows.to(values.device)]

        return of_own_items
    return _of_logits if _gives_logits(model) else None


def _gives_logits(model: Any) -> bool:
    mixture = hasattr(model, "calculate_loss_prob")  # RecBole's CPR models rank by probabilities
    by_softmax = getattr(model, "loss_type", None) == "CE" and not mixture
    return isinstance(model, SequentialRecommender) and by_softmax


def _of_logits(scores: Tensor | None, _: Interaction, rows: Tensor, items: Tensor) -> Tensor:
    assert scores is not None  # these models rank by them
    scores = scores.float()  # -inf for item 0, which is none
    rows, items = rows.to(scores.device), items.to(scores.device)
    return scores[rows, items] - scores.logsumexp(1)[rows]
