"""Signals that some tokenizers learn from beside item content, made of the training split alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from recbole_gr.data.frequency import training_counts
from recbole_gr.data.vector_files import collaborative_file, collaborative_vectors
from recbole_gr.errors import ConfigError
from recbole_gr.quality.assessment import Behaviour
from recbole_gr.registry import get_tokenizer

if TYPE_CHECKING:
    from recbole_gr.config import Config
    from recbole_gr.data.dataset import GenerativeDataset


def item_pairs(dataset: GenerativeDataset, window: int) -> torch.Tensor:
    """Items that stand next to each other in a training sequence.

    Each training target is paired with the `window` items before it. With a window of 2 the
    sequence 5 3 9 gives (3, 5), (9, 3), (9, 5). Validation and test targets are in no pair, as
    they are in no row of the training split.

    Args:
        dataset (SequentialDataset): the training split, augmented.
        window (int): largest distance of a pair.

    Returns:
        LongTensor: [P, 2] rows of item content without its padding row (item id - 1), target
        first, in the order of the rows; pairs of an item with itself are left out.
    """
    rows = dataset.inter_feat
    target, length = rows[dataset.iid_field], rows[dataset.item_list_length_field]
    history = rows[dataset.item_list_field]
    parts = []
    for distance in range(1, window + 1):
        has = length >= distance
        place = (length[has] - distance).unsqueeze(1)
        parts.append(torch.stack([target[has], history[has].gather(1, place).squeeze(1)], 1))
    pairs = torch.cat(parts)
    return pairs[pairs[:, 0] != pairs[:, 1]] - 1


def tokenizer_signals(
    config: Config, dataset: GenerativeDataset
) -> Callable[[], dict[str, torch.Tensor]]:
    """What the configured tokenizer asks for by its attribute `signals`.

    Args:
        config (Config): the configuration of a run.
        dataset (SequentialDataset): the training split, augmented.

    Returns:
        callable: without arguments, returns a dict of tensors by name. It raises a ConfigError for
        a signal that does not exist or a window that is no count.
    """

    def make() -> dict[str, torch.Tensor]:
        return {name: _signal(config, dataset, name) for name in names}

    names = get_tokenizer(config["tokenizer"]).signals
    return make


def _signal(config: Config, dataset: GenerativeDataset, name: str) -> torch.Tensor:
    if name == "cf_vectors":
        return _collaborative(config, dataset)
    if name != "item_pairs":
        raise ConfigError(
            f"the tokenizer asks for the signal {name!r}; there are item_pairs and cf_vectors"
        )
    return item_pairs(dataset, config["i2i_window"])


def _collaborative(config: Config, dataset: GenerativeDataset) -> torch.Tensor:
    """Collaborative vectors ``[n_items - 1, e]`` from a file, or else of a SASRec trained here."""
    if collaborative_file(config):
        return collaborative_vectors(config, dataset)
    # Imported here because it trains a model, and so stands above this package.
    from recbole_gr.pipeline.item_vectors import cached_item_vectors

    tokens = dataset.field2id_token[dataset.iid_field]
    return cached_item_vectors(config, item_tokens=tokens).vectors


def item_behaviour(dataset: GenerativeDataset) -> Behaviour:
    """Popularity of the items and who stands next to whom, for the SID quality report.

    Args:
        dataset (SequentialDataset): the training split, augmented.

    Returns:
        Behaviour: counts and pairs by row (item id - 1); no pairs of rows without a history.
    """
    sequences = getattr(dataset, "item_list_field", None) in dataset.inter_feat
    return Behaviour(training_counts(dataset)[1:], item_pairs(dataset, 1) if sequences else None)
