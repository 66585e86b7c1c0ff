"""Configuration, data and model, restored from a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_gr import registry
from recbole_gr.compat.repeatable import init_seed
from recbole_gr.config import Config
from recbole_gr.config.defaults import default_settings
from recbole_gr.config.known_keys import RUN_KEYS
from recbole_gr.config.names import check_names
from recbole_gr.data import create_dataset, data_preparation
from recbole_gr.data.identity import check_identity
from recbole_gr.errors import ConfigError
from recbole_gr.pipeline.item_sids import item_sids
from recbole_gr.run.model import build_model, needs_content
from recbole_gr.serving.histories import Histories
from recbole_gr.sid.table import SIDTable, named
from recbole_gr.storage.checkpoint import load_checkpoint
from recbole_gr.trainer.contents import CONFIG, REMEDY, require_weights
from recbole_gr.trainer.trees import with_trees
from recbole_gr.trainer.weights import load_weights
from recbole_gr.untrusted.effects import OUTSIDE, without_network
from recbole_gr.untrusted.shapes import require, taking

if TYPE_CHECKING:
    import torch
    from recbole.data.dataset import Dataset

# What a configuration says of the machine and the course of its run, which end with it.
RUN_ONLY_KEYS = (
    RUN_KEYS
    | OUTSIDE
    | {"offset", "local_rank", "gpu_id", "use_gpu", "resume", "members"}
    | {"warmup_from", "warmup_dir"}
)


class Restored(NamedTuple):
    """A trained model with its data, the first six as RecBole's `load_data_and_model` returns them.

    Attributes:
        histories: what every user has taken, or None where there is no log of it.
        encoder: of the content of items that come later (`ItemContent.encoder`), or None.
        tokenizer: that codes them (`recbole_gr.pipeline.new_items.fitted_state`), or None.
        check_encoder: raises a ConfigError if loading the encoder could run code that the user did
            not ask for; to be called before texts are encoded.
    """

    config: Config
    model: Any
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    histories: Histories | None
    encoder: dict[str, Any] | None = None
    tokenizer: dict[str, Any] | None = None
    check_encoder: Callable[[], None] = lambda: None


def load_data_and_model(
    checkpoint: str | os.PathLike[str] | None = None,
    model: str | type | None = None,
    *,
    model_file: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> tuple[Any, ...]:
    """The trained model of a checkpoint, and its data split as in its training.

    Called and answering as RecBole's function of the same name::

        config, model, dataset, train_data, valid_data, test_data = load_data_and_model(
            model_file="saved/TIGER-ml-100k-....pth"
        )

    For our models and RecBole's. Everything but the data set comes from the checkpoint: settings,
    weights, SIDs and the content that a model holds. The random generators are seeded by the
    configuration, as in a run.

    Args:
        checkpoint (str | os.PathLike): a file that a run kept.
        model (str | type | None): for a class of your own, the class or `"package.module:Class"`;
            a file does not say what code to import.
        model_file (str | os.PathLike): the same as `checkpoint`, by the name that RecBole has for
            it; one of both is given.
        **overrides: settings that differ from those of the training, such as `data_path` (parent
            folder of the data set), `eval_batch_size`, `beam_size` or `show_progress`.

    Returns:
        tuple: config, model (in evaluation mode, on the configured device), data set, loaders of
        the training, validation and test split.

    Raises:
        ConfigError: no file is given, or two; the file cannot be used, or its data set is missing,
            or holds other users or items than it was trained with; says which.
    """
    given = [file for file in (checkpoint, model_file) if file is not None]
    if len(given) != 1:
        raise ConfigError(
            "load_data_and_model: give one checkpoint, as the first argument or as model_file"
        )
    return tuple(restore(given[0], model, overrides))[:6]


def restore(
    checkpoint: str | os.PathLike[str],
    model: str | type | None = None,
    overrides: Mapping[str, Any] | None = None,
    with_histories: bool = False,
) -> Restored:
    """As `load_data_and_model`, with what the users have taken.

    Returns:
        Restored: `histories` is None unless asked for.
    """
    file = os.fspath(checkpoint)
    state = load_checkpoint(file, map_location="cpu")
    return restored_from(state, file, model, overrides, with_histories)


def restored_from(
    state: dict[str, Any],
    file: str,
    model: str | type | None = None,
    overrides: Mapping[str, Any] | None = None,
    with_histories: bool = False,
) -> Restored:
    """As `restore`, of a checkpoint that was read from `file`, on the CPU."""
    require_weights(state, file)
    with taking("settings", file, REMEDY):
        return _restored(state, file, model, dict(overrides or {}), with_histories)


def _restored(
    state: dict[str, Any],
    file: str,
    model: str | type | None,
    overrides: dict[str, Any],
    with_histories: bool,
) -> Restored:
    config = restored_config(state, file, model, overrides, learns="sid" not in state)
    init_seed(config["seed"], config["reproducibility"], config["device"])
    dataset = create_dataset(config)
    # Benchmark files have no log; a recommender on them answers for histories that are given.
    is_log = dataset.benchmark_filename_list is None
    histories = Histories.known(dataset) if with_histories and is_log else None
    loaders = data_preparation(config, dataset)
    train_dataset = loaders[0]._dataset
    if state.get("data"):  # not in those of the first versions
        check_identity(state["data"], train_dataset, file)
    if "members" in state:  # of a fusion, which makes them itself
        network = config.model_class(config, train_dataset, (state, file)).to(config["device"])
    else:
        parts = _saved_parts(state, config, train_dataset, file)
        network = build_model(config, train_dataset, *parts)
    if "trees" in state:
        network = with_trees(network, state, file)
    else:
        load_weights(network, state, file)
        network.eval()
    encoder = state.get("content")  # none in those of the first versions
    if encoder and "text_encoder" in encoder and "text_encoder" in overrides:
        encoder = {**encoder, "text_encoder": config["text_encoder"]}

    def check_encoder() -> None:
        if encoder and "text_encoder" in encoder:
            own = {"text_encoder": encoder["text_encoder"]}
            check_names(own, file, overrides, learns=True)

    new_items = encoder, state.get("tokenizer"), check_encoder
    return Restored(config, network, dataset, *loaders, histories, *new_items)


def restored_config(
    state: Mapping[str, Any],
    file: str,
    model: str | type | None = None,
    overrides: Mapping[str, Any] | None = None,
    learns: bool = False,
) -> Config:
    """The configuration that a checkpoint was trained with, for this machine.

    Settings of its machine and its processes take their defaults.

    Args:
        state (dict): the checkpoint, or anything with its `config`.
        file (str): its name, for messages.
        model, overrides: as for `load_data_and_model`.
        learns (bool): it is for a run that makes its item content again.

    Returns:
        Config

    Raises:
        ConfigError: the model is not known, settings name other code, or no longer hold.
    """
    require(state, CONFIG, file, REMEDY)
    saved, overrides = state["config"], dict(overrides or {})
    given = {"model", *overrides} if model else set(overrides)
    about = {key: saved[key] for key in ("model", "dataset", "tokenizer") if key in saved}
    check_names(about, file, given)  # what the defaults are found by, before they are
    model_class = registry.get_model(model or saved["model"])
    learns = learns and registry.is_generative(model_class)
    if model_class.__name__ != saved["model"]:
        raise ConfigError(f"'{file}' is of model '{saved['model']}', not '{model_class.__name__}'.")
    dataset = overrides.get("dataset") or saved["dataset"]
    tokenizer = overrides.get("tokenizer") or saved.get("tokenizer")
    with taking("config", file, "Give other values for what is wrong, or take another file."):
        known = default_settings(model_class, dataset, tokenizer).known
        settings = {key: saved[key] for key in (known & set(saved)) - RUN_ONLY_KEYS}
        check_names(settings, file, given, learns)
        _undo_recbole(settings)
        if "lgb_params" in settings:
            settings["lgb_params"] = without_network(settings["lgb_params"])
        return Config(model_class, dataset, config_dict={**settings, **overrides})


def _undo_recbole(settings: dict[str, Any]) -> None:
    """Give settings that RecBole's Config has changed the form in which it takes them."""
    folder = os.path.dirname(settings.pop("data_path", "").rstrip("/"))
    if os.path.isdir(folder):  # else the default, which may hold the data set on this machine
        settings["data_path"] = folder
    negatives = settings.get("train_neg_sample_args")
    if isinstance(negatives, dict) and negatives.get("distribution") == "none":
        settings["train_neg_sample_args"] = None


def _saved_parts(
    state: Mapping[str, Any], config: Config, train_dataset: Dataset, file: str
) -> tuple[SIDTable | None, torch.Tensor | None]:
    """The SID table and the item content that a model was made with; None where it has none."""
    if not registry.is_generative(config.model_class):
        if not needs_content(config):
            return None, None
        return None, config.model_class.saved_content(state["state_dict"])
    if "sid" not in state:  # of the first versions; the model refuses codes that are not its own
        sids = item_sids(config, train_dataset)
        return sids.table, sids.content.vectors
    saved, weights = state["sid"], state["state_dict"]
    table = named(
        file, lambda: SIDTable.from_item_codes(weights["codes"][1:], saved["sizes"], saved["meta"])
    )
    if table.digest() != saved["digest"]:
        raise ConfigError(
            f"The SIDs in '{file}' do not have the hash saved with them: the file was changed. "
            "Take another one, or train the model again."
        )
    if not needs_content(config):
        return table, None
    return table, config.model_class.saved_content(weights)
