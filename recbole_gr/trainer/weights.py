"""What a checkpoint holds, into a model: for resuming, testing, growing and restoring."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from recbole_gr import processes
from recbole_gr.errors import ConfigError
from recbole_gr.trainer.checkpoint import decode, load_checkpoint
from recbole_gr.trainer.contents import REMEDY, require_weights
from recbole_gr.untrusted.shapes import taking

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.model.abstract_recommender import AbstractRecommender


def load_weights(
    model: AbstractRecommender, state: Mapping[str, Any], file: str | os.PathLike[str]
) -> None:
    """Put the weights and other parameters of the checkpoint `state`, read from `file`, into a
    model.

    Raises:
        ConfigError: they are of other shapes, or of other SIDs.
    """
    with taking("state_dict", file, REMEDY):
        try:
            model.load_state_dict(state["state_dict"])
        except RuntimeError as error:
            raise ConfigError(
                f"The weights in '{file}' do not fit this model: it was saved with other settings "
                f"or other data. {error}"
            ) from error
    with taking("other_parameter", file, REMEDY):
        present = model.other_parameter()
        others = {name: decode(v, present[name]) for name, v in state["other_parameter"].items()}
        for name, value in others.items():
            if isinstance(value, torch.Tensor) and isinstance(present[name], torch.Tensor):
                others[name] = value.to(present[name].device)
        model.load_other_parameter(others)


def load_checkpoint_of(
    config: Config, file: str | os.PathLike[str], map_location: torch.device | str | None = None
) -> dict[str, Any]:
    """The checkpoint `file`, if it is of the model and the data set of `config`.

    Returns:
        dict: as `load_checkpoint`.

    Raises:
        ConfigError: the file cannot be used, lacks what a model needs, or is of another model or
            data set.
    """
    if processes.size() == 1:
        state = load_checkpoint(file, map_location=map_location)
    else:  # where there are several machines, the file is on the first one
        state = processes.from_main(lambda: load_checkpoint(file, map_location="cpu"))
    require_weights(state, file)
    for key in ("model", "dataset"):
        if state["config"].get(key) != config[key]:
            raise ConfigError(
                f"'{file}' is a checkpoint of {key} '{state['config'].get(key)}', this run's {key} "
                f"is '{config[key]}'. Take another file, or set --{key}."
            )
    return state
