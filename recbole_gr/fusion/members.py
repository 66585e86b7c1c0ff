"""The models of a fusion: read from their checkpoints, or from that of the fusion itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole.utils import ModelType
from torch import Tensor

from recbole_gr.data.identity import check_identity
from recbole_gr.errors import ConfigError
from recbole_gr.registry import is_generative
from recbole_gr.run.model import needs_content
from recbole_gr.serving.restore import restored_from
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.trainer.weights import require_finite

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataset import Dataset

#: What a fusion keeps of a member's checkpoint; its weights are among the fusion's own.
KEPT = ("config", "data", "sid", "content", "tokenizer", "other_parameter", "members")
#: Settings that decide what a model was trained on and is tested on, alike in all members.
OF_DATA = (
    *("eval_args", "tie_order", "continual_period", "continual_cuts"),
    *("val_interval", "rm_dup_inter", "filter_inter_by_user_or_item"),
    *("user_inter_num_interval", "item_inter_num_interval"),
)
_HOW = "Give those of two runs: --members=saved/SASRec-....pth,saved/IntRR-....pth."
_REMEDY = "Train both models with the same settings of the data, and give these to the fusion too."


class Member(NamedTuple):
    """A trained model, what of its checkpoint makes it again, and the item content ``[n_items, d]``
    that it holds."""

    model: Any
    state: dict[str, Any]
    content: Tensor | None = None


def named_members(config: Mapping[str, Any]) -> list[str] | None:
    """The checkpoints that ``members`` of a configuration names; None where it is restored.

    Raises:
        ConfigError: not two, or one is not there.
    """
    files = config["members"]
    if files is None:
        return None
    files = [name.strip() for name in files.split(",")] if isinstance(files, str) else files
    if len(files) != 2:
        raise ConfigError(f"members: {files} must be two checkpoints. {_HOW}")
    for file in files:
        if not os.path.isfile(file):
            raise ConfigError(f"members: there is no checkpoint '{file}'. {_HOW}")
    return files


def members_of_files(config: Config, dataset: Dataset) -> list[Member]:
    """The models of the checkpoints that ``members`` of a configuration names.

    Args:
        config: of the fusion.
        dataset: its training split.

    Raises:
        ConfigError: none are named, one cannot be used, or they are of other data than the
            fusion's.
    """
    files = named_members(config)
    if files is None:
        raise ConfigError(f"members: a fusion needs two checkpoints. {_HOW}")
    states = [load_checkpoint(file, map_location="cpu") for file in files]
    for file, state in zip(files, states):
        check_identity(state["data"], dataset, file)  # scores are added by id
    return [_member(state, file, config) for file, state in zip(files, states)]


def members_of_state(state: Mapping[str, Any], file: str, config: Config) -> list[Member]:
    """The models in the checkpoint of a fusion.

    Raises:
        ConfigError: the file is damaged.
    """
    found = []
    for number, kept in enumerate(state["members"]):
        prefix = f"members.{number}."
        weights = {
            name.removeprefix(prefix): value
            for name, value in state["state_dict"].items()
            if name.startswith(prefix)
        }
        whole = {**kept, "state_dict": weights, "format_version": state["format_version"]}
        found.append(_member(whole, f"{file}, member {number + 1}", config))
    return found


def require_content(content: Tensor | None, names: Sequence[str]) -> Tensor:
    """The item content ``[n_items, d]`` that a member holds.

    Raises:
        ConfigError: none does.
    """
    if content is not None:
        return content
    raise ConfigError(
        f"fusion_smoothing: neither of {' and '.join(names)} holds item content to know neighbours "
        "by; fuse with ContentKNN, SASRec with item_text, or IntRR with content in item_input, or "
        "leave it out"
    )


def _member(state: dict[str, Any], file: str | os.PathLike[str], config: Config) -> Member:
    name = os.fspath(file)
    if "trees" in state:
        raise ConfigError(f"members: '{name}' is decision trees; give two models that rank items")
    here = {"data_path": os.path.dirname(config["data_path"].rstrip("/")), "show_progress": False}
    here |= {key: config[key] for key in ("use_gpu", "gpu_id")}
    restored = restored_from(state, name, overrides=here)
    require_same_data(restored.config, config, name)
    model = restored.model.to(config["device"])
    if not hasattr(model, "full_sort_predict"):
        raise ConfigError(f"members: '{name}' does not rank items")
    require_finite(model, name)
    if is_generative(model):  # the fusion ranks all items, as its other member does
        model.exclude_history = False
    content = getattr(model, "content_of_members", None)  # of a fusion
    if needs_content(restored.config):
        content = restored.config.model_class.saved_content(state["state_dict"])
    if content is not None and not content.shape[1]:  # a pointer's, which keeps none
        content = None
    return Member(model, {key: state[key] for key in KEPT if key in state}, content)


def require_same_data(member: Config, fusion: Config, file: str) -> None:
    """See that what a member was trained on holds none of the fusion's targets.

    Args:
        member, fusion: their configurations.
        file: what to call the member.

    Raises:
        ConfigError: a key that decides it differs.
    """
    keys: Sequence[str] = OF_DATA
    if member["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        keys = ("MAX_ITEM_LIST_LENGTH", *keys)
    if "shuffled" in (member["tie_order"], fusion["tie_order"]):
        keys = (*keys, "seed")  # which draws the order of a user's events
    if member["dataset"] != fusion["dataset"]:
        raise ConfigError(
            f"members: '{file}' is of data set '{member['dataset']}', not '{fusion['dataset']}'"
        )
    for key in keys:
        if member[key] != fusion[key]:
            raise ConfigError(
                f"members: '{file}' was trained with {key}={member[key]}, the fusion has "
                f"{fusion[key]}. {_REMEDY}"
            )
