"""RecBole's configuration, extended by our models, tokenizers and property files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from recbole.config import Config as RecBoleConfig
from recbole.utils import InputType, ModelType

from recbole_gr import compat, registry
from recbole_gr.config.count_intervals import check_filters
from recbole_gr.config.defaults import (
    SECTIONS,
    checked_section,
    default_settings,
    lineage,
    section_of,
)
from recbole_gr.config.eval_buckets import check_edges
from recbole_gr.config.known_keys import RUN_KEYS
from recbole_gr.config.layers import COMPUTED_KEYS
from recbole_gr.config.parsing import SettingsLoader
from recbole_gr.config.train_sample import as_trained
from recbole_gr.config.user_settings import Source, UserSettings, merged
from recbole_gr.distributed import processes
from recbole_gr.distributed.layout import layout_of
from recbole_gr.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

compat.apply_to_recbole()


class Config(RecBoleConfig):
    """Settings of one model on one data set, read as RecBole's are: `config["key"]`.

    Precedence: command line > `config_dict` > files > defaults. Defaults, the later file winning:
    RecBole's and our `overall.yaml`; our `tokenizer/<Tokenizer>.yaml` for generative models;
    RecBole's and our `model/<Model>.yaml` (and the class attribute `default_config` of a model
    from outside); RecBole's and our `dataset/sample.yaml` and `dataset/<dataset>.yaml`;
    RecBole's files by model type; last the section `per_model: {<Model>: {...}}` of our dataset
    file, and `per_tokenizer: {<Tokenizer>: {...}}`. A user's file may have such sections too. Every
    value is checked against the type of its key. `eval_args` may be given in part.

    Args:
        model (str | type | None): model name or class; None takes the key `model`.
        dataset (str | None): data set name; None takes the key `dataset`.
        config_file_list (list[str] | None): YAML files.
        config_dict (dict | None): settings.
        cmd_args (list[str] | None): `--key=value` arguments. `sys.argv` is never read.
        other_models (Iterable[str]): other models of the same run. A key that only they know is
            left out here instead of being refused.
        other_tokenizers (Iterable[str]): other tokenizers of the same comparison, likewise.
        given (UserSettings | None): files, settings and arguments, parsed already, in place of the
            three.

    Raises:
        ConfigError: unknown model, tokenizer or key (naming the nearest known one), values that
            contradict each other, or no folder for the data set.
    """

    parameters: dict[str, list[str]]
    external_config_dict: dict[str, Any]
    model_class: Any
    internal_config_dict: dict[str, Any]

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: dict[str, Any] | None = None,
        cmd_args: list[str] | None = None,
        other_models: Iterable[str | type] = (),
        other_tokenizers: Iterable[str] = (),
        given: UserSettings | None = None,
    ) -> None:
        self.given = given or UserSettings.read(config_file_list, config_dict, cmd_args)
        self._other_models = list(other_models)
        self._other_tokenizers = list(other_tokenizers)
        super().__init__(model, dataset, config_file_list, config_dict)

    # RecBole's __init__ calls the methods below in this order.

    def _init_parameters_category(self) -> None:
        super()._init_parameters_category()
        # RecBole appends to these lists, which are the module's own.
        self.parameters = {name: list(keys) for name, keys in self.parameters.items()}

    def _build_yaml_loader(self) -> type[SettingsLoader]:
        return SettingsLoader

    def _load_config_files(self, file_list: Any) -> dict[str, Any]:
        return self.given.in_files

    def _load_variable_config_dict(self, config_dict: Any) -> dict[str, Any]:
        return self.given.direct

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}  # given.direct has it

    def _get_model_and_dataset(
        self, model: str | type | None, dataset: str | None
    ) -> tuple[str, type, str]:
        model = model or self.external_config_dict.get("model")
        dataset = dataset or self.external_config_dict.get("dataset")
        if not model:
            raise ConfigError("No model is given: add --model=TIGER, for example.")
        if not dataset:
            raise ConfigError("No data set is given: add --dataset=ml-100k, for example.")
        model_class = registry.get_model(model) if isinstance(model, str) else model
        return model_class.__name__, model_class, str(dataset)

    def _load_internal_config_dict(
        self, model: str, model_class: type[AbstractRecommender], dataset: str
    ) -> None:
        for source in self.given.sources:
            for kind in SECTIONS:
                checked_section(kind, source.settings.get(kind), source)
        self._apply_sections("per_model", lineage(model_class))
        tokenizer = self.given.get("tokenizer")
        tokenizer = str(tokenizer) if isinstance(tokenizer, (str, int, float)) else None
        defaults = default_settings(model_class, dataset, tokenizer)
        self._apply_sections("per_tokenizer", defaults.tokenizers)
        self._check_keys(defaults.known, dataset)
        self.given = self.given.checked(defaults.keys)
        self.external_config_dict = {
            key: value for key, value in self.given.settings.items() if key in defaults.known
        }
        for kind in SECTIONS:
            self.external_config_dict.pop(kind, None)
        self.internal_config_dict = self._with_names_of_the_user(defaults.values)
        self.internal_config_dict["MODEL_TYPE"] = model_class.type

    def _with_names_of_the_user(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """Defaults whose `load_col` names fields as the user does (`ITEM_ID_FIELD` and others)."""
        given, columns = self.external_config_dict, defaults.get("load_col")
        if "load_col" in given or not isinstance(columns, dict):
            return defaults
        renamed = {
            defaults[key]: given[key]
            for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "RATING_FIELD")
            if given.get(key) and defaults.get(key)
        }
        load_col = {
            source: [renamed.get(name, name) for name in names]
            for source, names in columns.items()
            if isinstance(names, list)  # else "*", all of them
        }
        return {**defaults, "load_col": {**columns, **load_col}}

    def _apply_sections(self, kind: str, classes: Sequence[type]) -> None:
        """Let the sections of a user's files for a class win over those files alone."""
        parts = [section_of(classes, s.settings.get(kind) or {}) for s in self.given.sources]
        name = f"{kind} section of {classes[-1].__name__}" if classes else kind
        self.given = self.given.after_files(Source(name, merged(parts)))

    def _check_keys(self, known: set[str], dataset: str) -> None:
        unknown = [
            (key, source)
            for source in self.given.sources
            for key in source.settings
            if key not in known and key not in RUN_KEYS
        ]
        if not unknown:
            return
        everyone = known | RUN_KEYS
        tokenizer = self.given.get("tokenizer")
        for other in self._other_models:
            everyone |= default_settings(registry.get_model(other), dataset, tokenizer).known
        for other in self._other_tokenizers:
            everyone |= default_settings(self.model_class, dataset, other).known
        # A file may be for several models, of which the command line runs one alone.
        own = {
            source.name: self._keys_of(source.settings.get("model"), dataset)
            for source in self.given.sources
        }
        wrong = [
            f"Unknown key '{key}' ({source})"
            + (
                ": it is computed, not set."
                if key in COMPUTED_KEYS
                else did_you_mean(key, everyone.union(*own.values()))
            )
            for key, source in unknown
            if key not in everyone | own[source.name]
        ]
        if wrong:
            raise ConfigError("\n".join(wrong))

    def _keys_of(self, models: Any, dataset: str) -> set[str]:
        """Keys of the models that one source names, `"IntRR,TIGER"`; other names have none."""
        tokenizer = self.given.get("tokenizer")
        names = {name.strip() for name in str(models or "").split(",")}
        known = names & (set(registry.MODELS) | registry.recbole_models())
        classes = map(registry.get_model, known)
        return set().union(*(default_settings(c, dataset, tokenizer).known for c in classes))

    def _get_final_config_dict(self) -> dict[str, Any]:
        given = self.external_config_dict.get("eval_args")
        default = self.internal_config_dict.get("eval_args")
        if isinstance(given, dict) and isinstance(default, dict):
            self.external_config_dict["eval_args"] = {**default, **given}
        return super()._get_final_config_dict()

    def _set_default_parameters(self) -> None:
        config = self.final_config_dict
        if config.get("field_separator") == "\\t":  # as shells and some YAML files hand it on
            config["field_separator"] = "\t"
        check_filters(config)
        self._set_negative_sampling()
        try:
            super()._set_default_parameters()
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            about = "metrics: " if "metric" in str(error) else ""
            raise ConfigError(f"{about}{error}") from error
        if self.dataset == "ml-100k" and self.external_config_dict.get("data_path"):
            # RecBole always takes its own copy of this data set; the user named another one.
            config["data_path"] = os.path.join(self.external_config_dict["data_path"], self.dataset)
        self._check_data_path()
        self._check_valid_metric()
        self._check_beam_size()
        self._check_processes()
        check_edges(config["eval_buckets"])
        self.model_class = as_trained(self.model_class, config)
        if config.get("resume") and not os.path.isfile(config["resume"]):
            raise ConfigError(f"resume: there is no checkpoint '{config['resume']}'.")

    def _set_negative_sampling(self) -> None:
        """Sampled negatives only where a loss uses them, unless the user asks for them."""
        if "train_neg_sample_args" in self.external_config_dict:
            return
        config, model = self.final_config_dict, self.model_class
        softmax_loss = (
            model.type == ModelType.SEQUENTIAL
            and not hasattr(model, "input_type")
            and config.get("loss_type") == "CE"
        )
        # Pop, ItemKNN, EASE: what they are fed counts as an interaction, a sampled negative too.
        counting = model.type == ModelType.TRADITIONAL
        pointwise = getattr(model, "input_type", None) != InputType.PAIRWISE
        generative = registry.is_generative(model) and pointwise
        if softmax_loss or counting or generative:
            config["train_neg_sample_args"] = None

    def _check_data_path(self) -> None:
        path = self.final_config_dict["data_path"]
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path.rstrip("/"))
        hint = ""
        if os.path.isfile(os.path.join(parent, f"{self.dataset}.inter")):
            hint = f" '{parent}' holds {self.dataset}.inter itself: give its parent folder."
        from recbole_gr.config.data_sets import data_sets_in  # which meets this module elsewhere

        bundled = not self.external_config_dict.get("data_path")
        meant = did_you_mean(self.dataset, data_sets_in(parent, bundled)) or "."
        raise ConfigError(
            f"Data set '{self.dataset}': there is no folder '{os.path.abspath(path)}'{meant} Set "
            f"--data_path to the folder that holds '{self.dataset}/{self.dataset}.inter'.{hint}"
        )

    def _check_valid_metric(self) -> None:
        config = self.final_config_dict
        name, at, k = str(config["valid_metric"]).partition("@")
        metrics = [metric.lower() for metric in config["metrics"]]
        if name.lower() not in metrics or (at and k not in map(str, config["topk"])):
            raise ConfigError(
                f"valid_metric '{config['valid_metric']}' is not measured: metrics is "
                f"{config['metrics']} and topk is {config['topk']}. Set valid_metric to one of "
                f"these, such as '{config['metrics'][0]}@{max(config['topk'])}'."
            )

    def _check_beam_size(self) -> None:
        config = self.final_config_dict
        if not registry.is_generative(self.model_class) or "beam_size" not in config:
            return
        if config["beam_size"] < max(config["topk"]):
            raise ConfigError(
                f"beam_size {config['beam_size']} is smaller than the largest topk "
                f"{max(config['topk'])}: that many items could not be returned. Raise beam_size."
            )

    def _check_processes(self) -> None:
        config = self.final_config_dict
        n_processes = layout_of(config).world_size
        if processes.is_launched():  # by torchrun, perhaps
            n_processes = config["world_size"] = processes.world_size()
        batch = config.get("train_batch_size")
        if batch and n_processes > batch:
            raise ConfigError(
                f"nproc: {n_processes} processes cannot share a batch of {batch} rows; lower it, "
                "or raise train_batch_size, which counts the rows of all processes"
            )

    def _init_device(self) -> None:
        super()._init_device()
        config = self.final_config_dict
        # Its layout is checked, and in a continual run world_size is now that of rank 0.
        nproc, kind = config.get("nproc") or 1, config["device"].type
        if kind == "cuda" and nproc > torch.cuda.device_count():
            raise ConfigError(
                f"nproc: {nproc} processes need a GPU each, and gpu_id {config['gpu_id']} gives "
                f"{torch.cuda.device_count()}. Name {nproc} (--gpu_id=0,1,...), or lower nproc."
            )
        if processes.is_launched():
            config["device"] = processes.init_process_group(config["device"].type)
        if not processes.is_rank_zero():
            config["show_progress"] = config["log_wandb"] = False


#: What options are read from: a configuration, or a dictionary of some of its keys.
Settings: TypeAlias = Config | Mapping[str, Any]
