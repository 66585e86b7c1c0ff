"""Checks of a data set for a run, made before anything is learned."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from logging import getLogger
from typing import TYPE_CHECKING, Any

from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_gr.config.layers import shared_settings
from recbole_gr.config.schema import check_settings
from recbole_gr.data.atomic import atomic_path, read_header
from recbole_gr.data.forms import check_forms
from recbole_gr.data.joined import check_labels
from recbole_gr.errors import ConfigError
from recbole_gr.registry import is_generative

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

    from recbole_gr.config import Config

PHASES = ("train", "valid", "test")
_OF_EVERY_LOG = ("user_id", "item_id", "rating", "timestamp")  # load_col's default names them
_BY_LABEL = (ModelType.CONTEXT, ModelType.DECISIONTREE)
_NEEDS_TIMES = (
    ". Sequential and generative models learn what comes after what: name the column of times as "
    "TIME_FIELD, or take a general model such as BPR with --eval_args=\"{'order': 'RO'}\""
)
_FEATURE_KEYS = ("selected_features", "item_attribute")  # of SASRecF and the like, of S3Rec


def check_catalogue(config: Config, dataset: Dataset) -> None:
    """See that there are as many items as are ranked.

    Raises:
        ConfigError: `topk` is larger than the catalogue.
    """
    ranking = config["eval_type"] == EvaluatorType.RANKING
    if ranking and max(config["topk"]) > dataset.item_num - 1:
        raise ConfigError(
            f"topk {max(config['topk'])} is larger than the catalogue: '{config['dataset']}' has "
            f"{dataset.item_num - 1} items."
        )


def check_inter_files(config: Config) -> None:
    """See that the interaction files are there with the fields that the model needs.

    Raises:
        ConfigError: a setting does not have its form, a file is absent (the message names the path
            expected) or has no usable user, item or, for sequential models, time field (the message
            names the columns found).
    """
    settings = config.final_config_dict
    settings.update(check_settings(settings, shared_settings()[1]))  # of RecBole's own Config, too
    check_forms(settings)
    names = config["benchmark_filename"]
    graph, load = {"kg", "link"}, config["load_col"]
    if config["MODEL_TYPE"] == ModelType.KNOWLEDGE and load and not graph <= set(load):
        raise ConfigError(
            f"load_col: {config['model']} reads a knowledge graph: name columns of the .kg and the "
            ".link file too, {kg: [head_id, relation_id, tail_id], link: [item_id, entity_id]}"
        )
    if names is not None and not (isinstance(names, list) and len(names) == len(PHASES)):
        raise ConfigError(
            f"benchmark_filename: {names!r} must name three files, for training, validation and "
            f"test: {list(PHASES)} for {config['dataset']}.train.inter and so on"
        )
    suffixes = ["inter"] if names is None else [f"{name}.inter" for name in names]
    for suffix in suffixes:
        path = atomic_path(config, suffix)
        if not os.path.isfile(path):
            raise ConfigError(
                f"no interactions for the data set {config['dataset']!r}: {path} does not exist; "
                "give its parent folder as data_path"
            )
        _check_columns(config, path, from_log=names is None)


def _check_columns(config: Config, path: str, from_log: bool) -> None:
    columns = read_header(path, config["field_separator"], config["encoding"])
    needed = {"USER_ID_FIELD": "token", "ITEM_ID_FIELD": "token"}
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if from_log and sequential:
        needed["TIME_FIELD"] = "float"
    fields = {key: (config[key], kind) for key, kind in needed.items() if config[key]}
    if not from_log and sequential:
        history = f"{config['ITEM_ID_FIELD']}{config['LIST_SUFFIX']}"
        fields["ITEM_ID_FIELD + LIST_SUFFIX"] = (history, "token_seq")
    load = (config["load_col"] or {}).get("inter") if config["load_col"] is not None else None
    unload = (config["unload_col"] or {}).get("inter") or []
    for key, (field, kind) in fields.items():
        if field not in columns:
            needs = _NEEDS_TIMES if key == "TIME_FIELD" else ""
            raise ConfigError(
                f"{path} has no column {field!r} ({key}); its columns are {list(columns)}{needs}"
            )
        if columns[field] != kind:
            raise ConfigError(
                f"{path}: the column {field!r} ({key}) is of type {columns[field]}, not {kind}"
            )
        if field in unload or (load is not None and load != "*" and field not in load):
            raise ConfigError(
                f"{path} has the column {field!r} ({key}), but load_col={config['load_col']} and "
                f"unload_col={config['unload_col']} leave it out"
            )


def check_ids(
    path: str, types: Mapping[str, str], ids: Mapping[str, str], load: Collection[str] | None
) -> None:
    """See that the ids of a file are tokens; says which columns of `load_col` it has not.

    Args:
        path (str): the file.
        types (dict[str, str]): of its columns.
        ids (dict[str, str]): columns of ids by the key that names them.
        load (Collection[str] | None): `load_col` of the file.

    Raises:
        ConfigError: a column of ids has another type.
    """
    for key, field in ids.items():
        if types.get(field, "token") != "token":
            raise ConfigError(
                f"{path}: the column {field!r} ({key}) is of type {types[field]}; ids are tokens"
            )
    absent = sorted(set(load or ()) - set(types) - set(_OF_EVERY_LOG))
    if absent:
        getLogger().warning("load_col: %s has no column %s", path, ", ".join(absent))


def check_same_columns(path: str, own: Mapping[str, str], first: Mapping[str, str]) -> None:
    """See that a benchmark file has the columns of the first one.

    Args:
        path (str): the file.
        own, first (dict[str, str]): types of the columns of both.

    Raises:
        ConfigError: it has others.
    """
    if own != first:
        raise ConfigError(
            f"{path} has the columns {own}, where the first of benchmark_filename has {first}; "
            "they must have the same, or load_col take no others"
        )


def check_order(dataset: Dataset, has_times: bool) -> None:
    """See that a log can be put in the order that `eval_args` asks for.

    Raises:
        ConfigError: it has no times, or a split by time is asked for without the order of time.
    """
    evaluation = dataset.config["eval_args"] or {}
    in_order = evaluation.get("order") == "TO"
    if "TS" in (evaluation.get("split") or {}) and not in_order:
        raise ConfigError("eval_args: the split TS is by time and needs order: TO")
    if in_order and not has_times:
        raise ConfigError(
            f"eval_args: order: TO needs times; '{dataset.dataset_name}' gives no float column "
            f"{dataset.time_field!r} (TIME_FIELD; loaded are {list(dataset.inter_feat)}). Name it "
            "in load_col, or take --eval_args={'order': 'RO'}"
        )


def check_model_fields(config: Config, dataset: Dataset) -> None:
    """See that a data set has the label and the features that the model reads.

    Args:
        config (Config): of the run.
        dataset (Dataset): as it was read, not yet split.

    Raises:
        ConfigError: names the key, what there is, and the remedy.
    """
    _check_label(config, dataset)
    check_labels(dataset)
    known = dataset.item_feat if dataset.item_feat is not None else ()
    for key in _FEATURE_KEYS:
        wanted = config[key]
        for field in [wanted] if isinstance(wanted, str) else wanted or ():
            if field not in known:
                raise ConfigError(
                    f"{key}: {config['model']} reads {field!r} of the items, and '"
                    f"{config['dataset']}' gives {_features(config, known)}; name columns of the "
                    f".item file in load_col (load_col: {{item: [{dataset.iid_field}, ...]}}) and "
                    f"in {key}, or take {_plain(config['model'])}"
                )


def _features(config: Config, known: Any) -> str:
    names = [name for name in known if name != config["ITEM_ID_FIELD"]]
    return f"only {names}" if names else "no features of items"


def _plain(model: str) -> str:
    return model[:-1] if model.endswith("F") else "a model without features"


def _check_label(config: Config, dataset: Dataset) -> None:
    """Click-through models, and evaluation by label, need one unless negatives are sampled."""
    field = dataset.label_field
    if field in dataset.inter_feat or is_generative(config.model_class):
        return
    sampled = (config["train_neg_sample_args"] or {}).get("distribution", "none") != "none"
    pointwise = getattr(config.model_class, "input_type", None) == InputType.POINTWISE
    general = config["MODEL_TYPE"] == ModelType.GENERAL
    reads = config["MODEL_TYPE"] in _BY_LABEL or (pointwise and general)
    mode = (config["eval_args"] or {}).get("mode")
    modes = mode.values() if isinstance(mode, dict) else [mode]
    if (reads and not sampled) or "labeled" in modes:
        raise ConfigError(
            f"{config['model']} learns or is judged by a label, and '{config['dataset']}' gives "
            f"none: no column {field!r} (LABEL_FIELD). Make it of another column, as "
            f"--threshold={{'{config['RATING_FIELD'] or 'rating'}': 4}}, or name yours in load_col "
            f"and LABEL_FIELD; the columns loaded are {list(dataset.inter_feat)}"
        )
