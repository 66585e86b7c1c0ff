"""Weights of a model whose catalogue has grown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recbole_gr.errors import ConfigError
from recbole_gr.registry import is_generative
from recbole_gr.trainer.contents import REMEDY
from recbole_gr.trainer.weights import current_weights, load_checkpoint_of
from recbole_gr.untrusted.shapes import taking

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.model.abstract_recommender import AbstractRecommender


@torch.no_grad()
def load_grown(model: AbstractRecommender, file: str, config: Config) -> None:
    """Take over the weights of a model that knew fewer items or users.

    Ids only ever grow (:mod:`recbole_gr.data.continual`), so row i of a table of items or users
    means the same in both models: the rows it had are taken over, those of new items and users
    stay as `model` was made. The SIDs (buffer ``codes``) are those of `model`, and so is what a
    model has learned of the SIDs of an item (its attribute ``of_sids``) where the item has another
    one now. What follows from the data (``of_data``) is that of `model`, made of the new ones.
    Optimiser state is not taken over (DACT, section 11).

    Args:
        model (AbstractRecommender): the new model; changed in place.
        file (str): a checkpoint of the same model on the same data set.
        config (Config): the configuration of `model`.

    Raises:
        ConfigError: the checkpoint is of another model or data set, or does not fit otherwise.
    """
    saved = load_checkpoint_of(config, file, map_location=config["device"])
    with taking("weights", file, REMEDY):
        _take_over(model, current_weights(model, saved), file)
    if is_generative(model):
        model.go_on_from(saved)


def _take_over(model: AbstractRecommender, saved: dict[str, torch.Tensor], file: str) -> None:
    present = model.state_dict()
    if saved.keys() != present.keys():
        odd = sorted(saved.keys() ^ present.keys())
        raise ConfigError(f"the weights in '{file}' are of another kind of model: {odd[0]!r}")
    of_sids = model.of_sids if is_generative(model) else ()
    of_data = getattr(model, "of_data", ())  # RecBole's own models say nothing of it
    n_old = len(saved["codes"]) if of_sids else 0
    same_sid = (saved["codes"] == present["codes"][:n_old]).all(1) if of_sids else None
    counts = {getattr(model, name, None) for name in ("n_items", "n_users")}
    for name, value in present.items():
        if name == "codes" or name in of_data:
            continue
        old = saved[name]
        grown = old.dim() > 0 and old.shape[1:] == value.shape[1:] and len(value) in counts
        if old.shape != value.shape and not (grown and len(old) < len(value)):
            raise ConfigError(
                f"the weights in '{file}' do not fit: {name} has shape {list(old.shape)} there and "
                f"{list(value.shape)} here; the same settings are needed in every period"
            )
        rows = value[: len(old)] if old.dim() else value
        if same_sid is not None and name.startswith(of_sids):
            old = torch.where(same_sid.view(-1, *[1] * (old.dim() - 1)), old, rows)
        rows.copy_(old)
    model.load_state_dict(present)  # for what a model makes of its weights, such as a trie
