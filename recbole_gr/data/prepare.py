"""Data sets and loaders of a configuration, for our models and for RecBole's."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from logging import getLogger
from typing import TYPE_CHECKING, TypeAlias

import recbole.data.dataset as recbole_datasets
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler
from recbole.utils import ModelType

from recbole_gr.compat.repeatable import init_seed
from recbole_gr.data.checks import check_catalogue, check_inter_files, check_model_fields
from recbole_gr.data.context import ContextDataset
from recbole_gr.data.continual import continual, is_continual
from recbole_gr.data.dataset import GenerativeDataset
from recbole_gr.data.evaluation_loader import GenerativeEvalLoader
from recbole_gr.data.loader import GenerativeTrainLoader, WholeSequenceLoader
from recbole_gr.data.ties import Ties, tied_text
from recbole_gr.data.verbatim import exact
from recbole_gr.errors import ConfigError
from recbole_gr.registry import is_generative, recbole_name

if TYPE_CHECKING:
    from recbole.data.dataloader import AbstractDataLoader
    from recbole.data.dataset import Dataset

    from recbole_gr.config import Config

#: Of the training, validation and test split.
Loaders: TypeAlias = "tuple[AbstractDataLoader, AbstractDataLoader, AbstractDataLoader]"
DATASET_CLASSES = {
    ModelType.GENERAL: "Dataset",
    ModelType.CONTEXT: "Dataset",
    ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
    ModelType.TRADITIONAL: "Dataset",
    ModelType.DECISIONTREE: "Dataset",
}
PICKLE_KEYS = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")


def create_dataset(config: Config) -> Dataset:
    """Read and filter the data set of a configuration, not yet split.

    Sequential models get a `GenerativeDataset`, whose rows are RecBole's, generative or not; all
    others, and those with a data set class of their own, get the class that RecBole chooses. All
    are read by :class:`~recbole_gr.data.verbatim.ExactDataset`.
    Pickled data sets that RecBole may have left in `checkpoint_dir` are neither read nor written:
    unpickling a file runs whatever code is in it.

    Args:
        config (Config): the configuration of one run.

    Returns:
        Dataset: for `data_preparation`.

    Raises:
        ConfigError: no interaction file, a field is missing, or a file cannot be used; names the
            line and the cell.
    """
    check_inter_files(config)
    for key in PICKLE_KEYS:
        if config[key]:
            getLogger().warning(
                "%s=%r is ignored: data sets are built again, as loading pickled files is not safe",
                key,
                config[key],
            )
    name = recbole_name(config.model_class)
    dataset_class = getattr(recbole_datasets, f"{name}Dataset", None)
    if is_generative(config.model_class):
        dataset_class = GenerativeDataset
    if config["hide_item_id"]:
        if config["MODEL_TYPE"] != ModelType.CONTEXT:
            raise ConfigError(
                f"hide_item_id: {config['model']} is no context-aware model and needs the item id"
            )
        dataset_class = ContextDataset
    if dataset_class is None:
        sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        dataset_class = (
            GenerativeDataset
            if sequential
            else getattr(recbole_datasets, DATASET_CLASSES[config["MODEL_TYPE"]])
        )
    made_of = continual if is_continual(config) else exact
    if config["benchmark_filename"] and issubclass(dataset_class, recbole_datasets.DIENDataset):
        raise ConfigError(
            "benchmark_filename: DIEN draws items that a user did not take for every step of a "
            "history, which samples that are made already do not tell; give the log as one file"
        )
    try:
        return made_of(dataset_class)(config)
    except ConfigError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        # RecBole's, where it meets a setting that contradicts the files.
        getLogger().debug("the data set cannot be read", exc_info=True)
        raise ConfigError(
            f"the data set '{config['dataset']}' cannot be read with its settings "
            f"({type(error).__name__}: {error}); do load_col and the keys that name columns fit "
            "the files? --state=DEBUG shows where"
        ) from error


def prepared_data(config: Config, trains: bool = True) -> tuple[Dataset, Loaders]:
    """The data set of a configuration and its loaders, from its seed on.

    Args:
        config (Config): the configuration of one run.
        trains (bool): False needs test targets alone.

    Returns:
        tuple: the data set, and train, valid and test loader.

    Raises:
        ConfigError: as of `create_dataset` and `data_preparation`, or `topk` is larger than the
            catalogue.
    """
    init_seed(config["seed"], config["reproducibility"], config["device"])
    dataset = create_dataset(config)
    check_catalogue(config, dataset)
    return dataset, data_preparation(config, dataset, trains)


def training_split(config: Config) -> Dataset:
    """The training split of a configuration, from its seed on: all that SIDs are learned from."""
    init_seed(config["seed"], config["reproducibility"], config["device"])
    return create_dataset(config).build()[0]


def data_preparation(config: Config, dataset: Dataset, trains: bool = True) -> Loaders:
    """Split a data set and make its loaders.

    RecBole's loaders for everything, save that a generative model trains on a
    `GenerativeTrainLoader` and is evaluated on a `GenerativeEvalLoader`. RecBole's saved (pickled)
    loaders are neither read nor written.

    Args:
        config (Config): the configuration of one run.
        dataset (Dataset): of `create_dataset`.
        trains (bool): False needs test targets alone.

    Returns:
        tuple: train, valid and test loader; `loader.dataset` is the split behind each.

    Raises:
        ConfigError: the split leaves nothing to train on.
    """
    try:
        return _prepared(config, dataset, trains)
    except (NotImplementedError, ValueError) as error:  # RecBole's, where it meets a value
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"the data of {config['model']} cannot be prepared with eval_args "
            f"{config['eval_args']} and train_neg_sample_args {config['train_neg_sample_args']}: "
            f"{error}"
        ) from error


def _prepared(config: Config, dataset: Dataset, trains: bool) -> Loaders:
    check_model_fields(config, dataset)
    ties = Ties.of(dataset)
    splits = dataset.build()
    if len(splits[0]) == 0 and trains:
        raise ConfigError(
            f"the data set {config['dataset']!r} has no training targets after the split "
            f"{config['eval_args']['split']}{_in_period(config)}. {_why_none(config)}"
        )
    _check_targets(config, splits, trains)
    samplers = create_samplers(config, dataset, splits)
    generative, extra = is_generative(config.model_class), []
    named = ChainMap({"model": recbole_name(config.model_class)}, config)  # loaders have names, too
    train_class: Callable[..., AbstractDataLoader] = get_dataloader(named, "train")
    if generative:
        train_class = GenerativeTrainLoader
    elif config["train_sample"] == "sequence":
        train_class = WholeSequenceLoader
    if not generative and config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        negatives = config["train_neg_sample_args"]
        extra = [KGSampler(dataset, negatives["distribution"], negatives["alpha"])]
    shuffle = (True if extra else config["shuffle"]) and len(splits[0]) > 0
    train = train_class(config, splits[0], samplers[0], *extra, shuffle=shuffle)

    def eval_class(phase: str) -> Callable[..., AbstractDataLoader]:
        kind = get_dataloader(named, phase)
        return GenerativeEvalLoader if generative and kind is FullSortEvalDataLoader else kind

    valid, test = (
        eval_class(phase)(config, split, sampler, shuffle=False)
        for phase, split, sampler in zip(("valid", "test"), splits[1:], samplers[1:])
    )
    getLogger().info(
        "%d training targets in %d batches, %d for validation, %d for testing",
        len(splits[0]),
        len(train),
        len(splits[1]),
        len(splits[2]),
    )
    if ties is not None:
        users = splits[2].inter_feat[dataset.uid_field].numpy()
        splits[2].tied_targets = tied = ties.of_targets(users)  # (m,), in the order of its rows
        text = tied_text(int(tied.sum()), len(users))
        getLogger().info("%s; tie_order: %s", text, config["tie_order"])
    return train, valid, test


def _check_targets(config: Config, splits: list[Dataset], trains: bool) -> None:
    """See that there is something to judge a model by.

    Raises:
        ConfigError: a part that the split is asked for has no targets.
    """
    split = config["eval_args"]["split"] or {}
    asked = ["test"]  # or there are no figures
    if not trains:
        pass
    elif config["benchmark_filename"] is not None or is_continual(config):
        asked.append("validation")
    else:
        kind, value = next(iter(split.items()))
        validates = value[1] > 0 if kind != "LS" else value != "test_only"
        asked += ["validation"] if validates else []
    for name, part in zip(("validation", "test"), splits[1:]):
        if name in asked and len(part) == 0:
            raise ConfigError(
                f"the data set {config['dataset']!r} has no {name} targets after the split {split}"
                f"{_in_period(config)} ({len(splits[0])} for training). {_why_none(config)}"
            )
        labels = part.inter_feat[part.label_field] if part.label_field in part.inter_feat else None
        if name in asked and labels is not None and "AUC" in map(str.upper, config["metrics"]):
            if len(labels.unique()) < 2:
                raise ConfigError(
                    f"metrics: AUC tells the liked from the others, and all {len(part)} rows of "
                    f"{config['dataset']!r} for {name} have the label {float(labels[0]):g}; give "
                    "more data, another split, or metrics without AUC"
                )


def _in_period(config: Config) -> str:
    return f" in period {config['continual_period']}" if is_continual(config) else ""


def _why_none(config: Config) -> str:
    if is_continual(config):
        return (
            "The last interaction of a user in a period is for test, the one before it for "
            "validation and those before train, so its users need three there: give a longer log, "
            "or other periods"
        )
    if config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        return (
            "A user's first interaction is history alone and the last two are for validation and "
            "test, so users need at least four: give a longer log, or filters that keep its users"
        )
    return (
        "Users need at least three interactions, one for each part: give a longer log, or another "
        "eval_args: {split: ...}"
    )
