"""The place of each test target in its user's ranking, with the user's history in it and without.

RecBole's sequential models rank the items that a user already has among the others
(`repeatable: True`); many published tables leave them out. Both follow from one ranking: an item
of the history that stands above the target moves it down by one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.dataloader import FullSortEvalDataLoader
from torch import Tensor

from recbole_gr.compat.tracing import exporting
from recbole_gr.data.ties import tied_pairs
from recbole_gr.distributed.sharding import gather_lists
from recbole_gr.generation.exact import AT_ONCE
from recbole_gr.registry import is_generative
from recbole_gr.sid.counting import counts_of
from recbole_gr.trainer.batches import in_parts, to_device
from recbole_gr.trainer.buckets import measured
from recbole_gr.trainer.likelihood import Likelihood, likelihood_for
from recbole_gr.trainer.places import Pairs, PastItems, distinct, ranks_by_scores, ranks_in_lists

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction
    from recbole.evaluator.evaluator import Evaluator

PROTOCOLS = ("with_history", "without_history")
TOGETHER = 256  # rows that are ranked at once, where batches are small


class TargetRanks:
    """Collects the rank of every target of an evaluation, 0 for the best item.

    ``with_history``: among all items. ``without_history``: the items of the user's history left
    out; a target that is one of them has no place. Where the model or the loader has left the
    history out of the ranking already, there is no ``with_history``. A rank is -1 where the ranking
    does not hold the target.

    Ranks in a list of ``W`` beams end at ``W``, so that history items among the beams leave fewer
    than ``W`` places without history: the ranks of those that are found are right nonetheless.

    Args:
        history_of: gives the history of each row of a batch from its field ``key``, as pairs of row
            ``[N]``, ascending, and distinct item ``[N]``.
        key: the field; for ranked lists it holds the items ``[B, H]`` themselves.
        left_out: whether rankings come without the history.
        exact: gives the scores ``[B, n_items]`` of a batch without a search; None: not asked for.
        likelihood: gives the log-probability of targets (:func:`~.likelihood.likelihood_for`);
            None: not asked for, or not defined.
        config: read for ``topk`` and ``USER_ID_FIELD``.
    """

    def __init__(
        self,
        history_of: Callable[[Tensor], Pairs],
        key: str,
        left_out: bool,
        exact: Callable[[Interaction], Tensor] | None,
        likelihood: Likelihood | None,
        config: Config,
    ):
        self.exact, self._likelihood = exact, likelihood
        self._history_of, self._key, self._config = history_of, key, config
        self._user = config["USER_ID_FIELD"]
        self._names = PROTOCOLS[left_out:]
        names = ["user", "item", "row", "n_rows", *self._names]
        names += [f"exact_{name}" for name in self._names if exact]
        names += ["log_likelihood"] if likelihood else []
        self._kept: dict[str, list[Tensor]] = {name: [] for name in names}
        # Batches that are still to be ranked: scores, keys, users, rows and items of the targets.
        self._waiting: list[tuple[Tensor, ...]] = []
        self._n_waiting = 0

    def add_ranked(
        self, items: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """A batch of ranked items ``[B, W]`` (0 in empty places, which come last) and its targets
        as pairs of row and item id."""
        history = interaction[self._key].to(items.device)
        self._note("", ranks_in_lists(items, history, positive_u, positive_i))
        self._note_targets(interaction[self._user], positive_u, positive_i, len(items))
        self._note_likelihood(None, interaction, positive_u, positive_i)

    def add(
        self, scores: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """A batch as RecBole collects it: scores ``[B, n_items]``."""
        self.add_scored(scores, interaction, positive_u, positive_i)
        if self.exact is not None:
            exact = self.exact(to_device(interaction, scores.device))
            self.add_exact(exact, interaction, positive_u, positive_i)

    def add_scored(
        self, scores: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """A batch of scores ``[B, n_items]``, those of items that are not ranked -inf."""
        rows = positive_u + self._n_waiting if self._n_waiting else positive_u
        batch = (scores, interaction[self._key], interaction[self._user], rows, positive_i)
        self._waiting.append(batch)
        self._n_waiting += len(scores)
        self._note_likelihood(scores, interaction, positive_u, positive_i)
        if self._n_waiting >= TOGETHER:
            self._rank_waiting()

    def _rank_waiting(self) -> None:
        if self._waiting:
            scores, keys, users, rows, items = map(_joined, zip(*self._waiting))
            self._waiting, self._n_waiting = [], 0
            self._note("", self._by_scores(scores, keys, rows, items))
            self._note_targets(users, rows, items, len(scores))

    def add_exact(
        self, scores: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """The exact scores ``[B, n_items]`` of a batch that is also added otherwise."""
        ranks = self._by_scores(scores, interaction[self._key], positive_u, positive_i)
        self._note("exact_", ranks)

    def _by_scores(
        self, scores: Tensor, keys: Tensor, rows: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor]:
        row, item = (part.to(scores.device) for part in self._history_of(keys))
        rows, items = rows.to(scores.device), items.to(scores.device)
        return ranks_by_scores(scores, (row, item), rows, items)

    def _note(self, prefix: str, ranks: tuple[Tensor, Tensor]) -> None:
        for name, values in zip(PROTOCOLS, ranks):
            if name in self._names:
                self._kept[prefix + name].append(values.int())

    def _note_targets(self, users: Tensor, rows: Tensor, items: Tensor, n_rows: int) -> None:
        values = (users[rows.to(users.device)], items, rows, torch.tensor(n_rows))
        for name, value in zip(("user", "item", "row", "n_rows"), values):
            self._kept[name].append(value)

    def _note_likelihood(
        self, scores: Tensor | None, interaction: Interaction, rows: Tensor, items: Tensor
    ) -> None:
        if self._likelihood is not None:
            values = self._likelihood(scores, interaction, rows, items)
            self._kept["log_likelihood"].append(values.float())

    def gather(self) -> None:
        """Bring together on rank 0 what several processes have collected."""
        self._rank_waiting()
        self._kept = dict(zip(self._kept, gather_lists(*self._kept.values())))

    def arrays(self, dataset: Dataset) -> dict[str, np.ndarray] | None:
        """What was collected, one entry a target in the order of users and items, whatever the
        order of the evaluation was.

        Args:
            dataset: for the tokens of users and items.

        Returns:
            dict: int32 ``user`` and ``item`` (RecBole's ids), ``with_history``,
            ``without_history``, and of the exact scores ``exact_with_history`` and
            ``exact_without_history``, those that exist; float32 ``log_likelihood`` in nats, if it
            was asked for and is defined; bool ``tied``, whether the target has the time of its
            user's event before it, where the log is in the order of time; ``user_token`` and
            ``item_token`` (text).
            None where nothing was ranked, and on all ranks but 0.
        """
        if not self._kept["user"]:
            return None
        kept = {name: torch.cat(v).cpu() for name, v in self._kept.items() if "row" not in name}
        order = torch.from_numpy(np.lexsort((kept["item"].numpy(), kept["user"].numpy())))
        kept = {name: values[order] for name, values in kept.items()}
        arrays = {
            name: (value if value.is_floating_point() else value.int()).numpy()
            for name, value in kept.items()
        }
        tied = tied_pairs(dataset, arrays["user"], arrays["item"])
        arrays |= {} if tied is None else {"tied": tied}
        for name, field in (("user", dataset.uid_field), ("item", dataset.iid_field)):
            arrays[f"{name}_token"] = np.asarray(dataset.id2token(field, arrays[name]), dtype=str)
        return arrays

    def results(self, evaluator: Evaluator) -> dict[str, float | None] | None:
        """Of the evaluator's metrics those that depend on the places of the targets alone (Recall,
        NDCG, MRR, Hit, ...), by ``without_history``; None where nothing was ranked."""
        if not self._kept["user"]:
            return None
        n_rows = torch.stack(self._kept["n_rows"])
        first = (n_rows.cumsum(0) - n_rows).tolist()  # of each batch
        row = torch.cat([rows.cpu() + start for rows, start in zip(self._kept["row"], first)])
        rank = torch.cat(self._kept["without_history"]).cpu()
        hits = hits_of(rank, row, int(n_rows.sum()), max(self._config["topk"]))
        return metrics_of_hits(evaluator, hits)


def hits_of(rank: Tensor, row: Tensor, n_rows: int, k: int) -> Tensor:
    """What RecBole's metrics of places read: ``[n_rows, k + 1]``, which of the first ``k`` places
    of a row hold a target, and how many targets it has.

    Args:
        rank: ``[P]`` places of the targets from 0, -1 for one that is not ranked.
        row: ``[P]`` their rows.
    """
    hits = torch.zeros(n_rows, k, dtype=torch.int)
    found = (rank >= 0) & (rank < k)
    hits[row[found].long(), rank[found].long()] = 1
    return torch.cat([hits, counts_of(row.long(), n_rows).int().unsqueeze(1)], 1)


def metrics_of_hits(evaluator: Evaluator, hits: Tensor) -> dict[str, float | None]:
    """Of an evaluator's metrics those that depend on the places of the targets alone."""
    metrics = [m for m in evaluator.metric_class.values() if m.metric_need == ["rec.topk"]]
    figures = measured(metrics, len(hits), {"rec.topk": hits})
    return {name: value for name, value in figures.items() if name != "targets"}


def ranks_for(
    config: Config, model: Any, earlier: Iterable[AbstractDataLoader], test: AbstractDataLoader
) -> TargetRanks | None:
    """What collects the ranks of a test; None where not the whole catalogue is ranked.

    Args:
        config: of the run.
        model: the recommender.
        earlier: the loaders whose interactions are the history of a model that is not sequential.
        test: the loader of the test.
    """
    if not isinstance(test, FullSortEvalDataLoader):
        return None
    own, likely = is_generative(model), likelihood_for(config, model)
    exact = (lambda batch: exact_in_parts(model, batch)) if own and config["eval_exact"] else None
    if test.is_sequential:
        field = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
        return TargetRanks(distinct, field, own and model.exclude_history, exact, likely, config)
    # RecBole's loader then sets the scores of the history to -inf, but for those of the targets.
    left_out = not config["repeatable"]
    past = PastItems(() if left_out else [loader._dataset for loader in earlier], test._dataset)
    return TargetRanks(past, config["USER_ID_FIELD"], left_out, exact, likely, config)


def exact_in_parts(model: Any, interaction: Interaction) -> Tensor:
    """:meth:`~recbole_gr.model.base.GenerativeRecommender.exact`, of as many users at once as
    memory is meant for."""
    if exporting():  # a graph for any number of users has no number of parts
        return model.exact(interaction)
    n_users = max(1, AT_ONCE // model.exact_width())
    return torch.cat([model.exact(part) for part in in_parts(interaction, n_users)])


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    if parts[0].dim() > 1:  # histories are as wide as the longest of their batch
        width = max(part.shape[1] for part in parts)
        parts = tuple(F.pad(part, (0, width - part.shape[1])) for part in parts)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
