"""Weights of a checkpoint, loaded into a model: for resuming, testing, growing and restoring."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from recbole_gr.distributed import processes
from recbole_gr.errors import ConfigError
from recbole_gr.storage.checkpoint import FORMAT_VERSION, decode, load_checkpoint
from recbole_gr.trainer.contents import REMEDY, require_weights
from recbole_gr.untrusted.shapes import taking

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.model.abstract_recommender import AbstractRecommender


def outdated(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a model whose weights mean something else in the checkpoint `state`, by the prefix
    of their names: those with a `since_format` later than its own. They have a method `upgrade`."""
    version = state.get("format_version", FORMAT_VERSION)  # not there before it is saved
    return {
        f"{name}." if name else "": part
        for name, part in model.named_modules()
        if getattr(part, "since_format", 1) > version
    }


def current_weights(model: nn.Module, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the checkpoint `state` as this version of a model takes them."""
    weights = dict(state["state_dict"])
    for prefix, part in outdated(model, state).items():
        part.upgrade(weights, prefix)
    return weights


def require_resumable(
    model: nn.Module, state: Mapping[str, Any], file: str | os.PathLike[str]
) -> None:
    """See that the training of the checkpoint `state` is one that this version would go on with.

    Raises:
        ConfigError: a part of the model is trained in another way by now.
    """
    for prefix in outdated(model, state):
        raise ConfigError(
            f"'{file}' is of an earlier version, which trained {prefix.rstrip('.') or 'it'} in "
            "another way: its training cannot go on. It is tested, and answers, as before; for a "
            "model of this version train again."
        )


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
            model.load_state_dict(current_weights(model, state))
        except RuntimeError as error:
            raise ConfigError(
                f"The weights in '{file}' do not fit this model: it was saved with other settings "
                f"or other data. {error}"
            ) from error
    with taking("other_parameter", file, REMEDY):
        present = model.other_parameter()
        others = {name: decode(v, present[name]) for name, v in state["other_parameter"].items()}
        for name, value in others.items():
            if isinstance(value, torch.Tensor):
                # What a model has only after training (Pop, LightGCN) it makes on its device.
                place = getattr(present[name], "device", getattr(model, "device", value.device))
                others[name] = value.to(place)
        model.load_other_parameter(others)


@torch.no_grad()
def require_finite(model: Any, file: str | os.PathLike[str]) -> None:
    """See that a model can answer: what it has learned are numbers.

    Parameters are finite. Buffers, and what RecBole's models keep outside of both, hold no NaN;
    -inf is a mask there.

    Args:
        model: of ours or RecBole's, with the weights of the checkpoint `file`; trees pass.
        file (str | os.PathLike): for the message.

    Raises:
        ConfigError: names the first tensor that is not, and what it holds.
    """
    if not isinstance(model, nn.Module):
        return
    kept: Any = getattr(model, "other_parameter", dict)
    for name, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise _not_finite(name, value, file)
    for name, other in [*model.named_buffers(), *kept().items()]:
        numbers = _numbers(other)
        if numbers is not None and bool(numbers.isnan().any()):
            raise _not_finite(name, numbers, file)


def _numbers(value: Any) -> torch.Tensor | None:
    """The numbers of a tensor (those that are stored where it is sparse) or of an array."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fc":
        return torch.from_numpy(value)
    if not isinstance(value, torch.Tensor):
        return None
    return value.coalesce().values() if value.layout == torch.sparse_coo else value


def _not_finite(name: str, value: torch.Tensor, file: str | os.PathLike[str]) -> ConfigError:
    what = "NaN" if bool(value.isnan().any()) else "infinity"
    n_bad = int((~torch.isfinite(value)).sum())
    return ConfigError(
        f"'{file}' cannot answer: its tensor {name} holds {what} ({n_bad} of {value.numel()} "
        "values), the training diverged. Take an earlier checkpoint, or train again with a lower "
        "learning_rate."
    )


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
    if processes.world_size() == 1:
        state = load_checkpoint(file, map_location=map_location)
    else:  # where there are several machines, the file is on the first one
        state = processes.broadcast_object(lambda: load_checkpoint(file, map_location="cpu"))
    require_weights(state, file)
    for key in ("model", "dataset"):
        if state["config"].get(key) != config[key]:
            raise ConfigError(
                f"'{file}' is a checkpoint of {key} '{state['config'].get(key)}', this run's {key} "
                f"is '{config[key]}'. Take another file, or set --{key}."
            )
    return state
