"""The best items of a trained model for a batch of histories."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType

from recbole_gr.errors import ConfigError
from recbole_gr.generation.beam_search import NEVER, Beams, Observe, best
from recbole_gr.generation.ranking import Generated
from recbole_gr.model.base import EXCLUDED
from recbole_gr.registry import is_generative
from recbole_gr.serving.histories import Histories
from recbole_gr.serving.restore import Restored
from recbole_gr.trainer.generation import amp_dtype

DENSE_SCORES = 1 << 24  # scores of all items that are held at once


class Predictor:
    """Asks a model, one of ours or RecBole's, in the form that its evaluation does.

    Attributes:
        generative (bool): whether the model generates SIDs.
        sequential (bool): whether it reads a history.

    Raises:
        ConfigError: the model cannot rank items.
    """

    def __init__(self, restored: Restored):
        self.config, self.model, self.dataset = restored[:3]
        if not hasattr(self.model, "full_sort_predict"):  # trees
            raise _no_ranking(self.config["model"])
        self._transform = restored.test_data.transform
        self.generative = is_generative(self.model)
        if self.generative:  # it would leave out only what it reads of a history
            self.model.exclude_history = False
            self._amp_dtype = amp_dtype(self.config)
        self.sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL

    @property
    def batch_size(self) -> int:
        """Users or histories of a batch, unless others are asked for."""
        size = max(1, int(self.config["eval_batch_size"] or 256))
        if self.generative:
            return size
        return min(size, max(1, DENSE_SCORES // self.dataset.item_num))

    def batch(self, source: Histories, rows: torch.Tensor, are_users: bool) -> Interaction:
        """The interaction that the model's evaluation would see, on its device."""
        dataset = self.dataset
        columns = {dataset.uid_field: rows if are_users else torch.zeros_like(rows)}
        if self.sequential:
            parts, lengths = source.last(rows, self.config["MAX_ITEM_LIST_LENGTH"])
            columns[dataset.item_list_length_field] = lengths
            for field, values in parts.items():
                name = getattr(dataset, f"{field}_list_field", None)
                if name is not None:
                    columns[name] = values
        batch = Interaction(columns)
        if not self.generative:
            batch = dataset.join(batch)
        return self._transform(dataset, batch).to(self.config["device"])

    def best(
        self, batch: Interaction, k: int, gone: torch.Tensor | None, beam_size: int | None
    ) -> Generated:
        """The `k` best items of a batch without those in `gone` [B, H] (None: with all)."""
        if not self.generative:
            scores = self._all_scores(batch)
            if gone is not None:
                scores.scatter_(1, gone, NEVER)
            items = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
            values, index = best(scores, items, k)
            return Generated(index, values)
        return self.model.rank(self.beams(batch, k, gone, beam_size), k, batch)

    def beams(
        self,
        batch: Interaction,
        k: int,
        gone: torch.Tensor | None,
        beam_size: int | None,
        **observe: Observe,
    ) -> Beams:
        """What a generative model ranks of: at least `k` beams, without the items in `gone`, which
        `batch` holds from then on. `observe` sees the levels of the search."""
        if gone is not None:
            batch.update(Interaction({EXCLUDED: gone}))
        width = max(k, beam_size or self.model.beam_size)
        with self.precision():
            return self.model.search(batch, width, **observe)

    def precision(self) -> torch.autocast:
        """The context of mixed precision in which a generative model answers."""
        device = torch.device(self.config["device"]).type
        return torch.autocast(device, self._amp_dtype, enabled=bool(self.config["enable_amp"]))

    def _all_scores(self, batch: Interaction) -> torch.Tensor:
        """[B, n_items] of one of RecBole's models, -inf for padding."""
        name = self.config["model"]
        try:
            scores = self.model.full_sort_predict(batch)
        except NotImplementedError as error:
            raise _no_ranking(name) from error
        except KeyError as error:
            raise ConfigError(
                f"{name} reads {error} of a history, which item tokens alone do not tell; give "
                "users of the data"
            ) from error
        scores = scores.view(len(batch), -1)[:, : self.dataset.item_num].float().clone()
        scores[:, 0] = NEVER
        return scores


def _no_ranking(name: str) -> ConfigError:
    return ConfigError(f"{name} does not rank all items, it rates single ones")
