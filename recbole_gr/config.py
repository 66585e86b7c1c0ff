"""RecBole's configuration, extended by our models, tokenizers and property files."""

import os
from pathlib import Path

import recbole
from recbole.config import Config as RecBoleConfig
from recbole.utils import InputType, ModelType

from recbole_gr import compat, registry
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.known_keys import COMPUTED_KEYS, RECBOLE_KEYS, RUN_KEYS, keys_read_by
from recbole_gr.settings import SettingsLoader, external_settings, read_yaml

compat.apply_to_recbole()

# How results are measured. Every sequential, general and knowledge-aware model gets the values of
# our overall.yaml, so that they are compared on the same targets; RecBole's files by model type may
# not change them there.
_PROTOCOL = ("eval_args", "metrics", "topk", "valid_metric", "repeatable")
_OWN_PROTOCOL = (ModelType.CONTEXT, ModelType.DECISIONTREE)


def properties_dir():
    """The folder of our defaults: in the package when installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "properties", here.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise FileNotFoundError(f"properties/overall.yaml is neither in {here} nor in {here.parent}.")


class Config(RecBoleConfig):
    """Settings of one model on one data set, read as RecBole's are: `config["key"]`.

    Precedence: command line > `config_dict` > files > defaults. Defaults, the later file winning:
    RecBole's and our `overall.yaml`; RecBole's and our `model/<Model>.yaml` (and the class
    attribute `default_config` of a model from outside); our `tokenizer/<Tokenizer>.yaml` for
    generative models; RecBole's and our `dataset/sample.yaml` and `dataset/<dataset>.yaml`;
    RecBole's files by model type; last the section `per_model: {<Model>: {...}}` of our dataset
    file. A user's file may have such a section too. `eval_args` may be given in part.

    Args:
        model (str | type | None): model name or class; None takes the key `model`.
        dataset (str | None): data set name; None takes the key `dataset`.
        config_file_list (list[str] | None): YAML files.
        config_dict (dict | None): settings.
        cmd_args (list[str] | None): `--key=value` arguments. `sys.argv` is never read.
        other_models (Iterable[str]): other models of the same run. A key that only they know is
            left out here instead of being refused.

    Raises:
        ConfigError: unknown model, tokenizer or key (naming the nearest known one), values that
            contradict each other, or no folder for the data set.
    """

    def __init__(
        self,
        model=None,
        dataset=None,
        config_file_list=None,
        config_dict=None,
        cmd_args=None,
        other_models=(),
    ):
        self._sources = external_settings(config_file_list, config_dict, cmd_args)
        self._other_models = list(other_models)
        super().__init__(model, dataset, config_file_list, config_dict)

    # RecBole's __init__ calls the methods below in this order.

    def _init_parameters_category(self):
        super()._init_parameters_category()
        # RecBole appends to these lists, which are the module's own.
        self.parameters = {name: list(keys) for name, keys in self.parameters.items()}

    def _build_yaml_loader(self):
        return SettingsLoader

    def _load_config_files(self, file_list):
        return _merged(settings for source, settings in self._sources if source.startswith("file"))

    def _load_variable_config_dict(self, config_dict):
        return dict(self._settings_of("config_dict"))

    def _load_cmd_line(self):
        return dict(self._settings_of("command line"))

    def _settings_of(self, name):
        return next(settings for source, settings in self._sources if source == name)

    def _get_model_and_dataset(self, model, dataset):
        model = model or self.external_config_dict.get("model")
        dataset = dataset or self.external_config_dict.get("dataset")
        if not model:
            raise ConfigError("No model is given: add --model=TIGER, for example.")
        if not dataset:
            raise ConfigError("No data set is given: add --dataset=ml-100k, for example.")
        model_class = registry.get_model(model) if isinstance(model, str) else model
        return model_class.__name__, model_class, str(dataset)

    def _load_internal_config_dict(self, model, model_class, dataset):
        self._apply_own_per_model_sections(model)
        tokenizer = self.external_config_dict.get("tokenizer")
        defaults, known = default_settings(model_class, dataset, tokenizer)
        self._check_keys(known, dataset)
        self.external_config_dict = {
            key: value for key, value in self.external_config_dict.items() if key in known
        }
        self.internal_config_dict = defaults
        self.internal_config_dict["MODEL_TYPE"] = model_class.type

    def _apply_own_per_model_sections(self, model):
        """Let the `per_model` sections of a user's files win over those files alone."""
        sections = [settings.get("per_model") for _, settings in self._sources]
        for source, settings in self._sources:
            _check_per_model(settings.get("per_model"), source)
        own = _merged(section[model] or {} for section in sections if section and model in section)
        if own:
            self._sources.append((f"per_model section of {model}", own))
        self.external_config_dict = {
            **self.file_config_dict,
            **own,
            **self.variable_config_dict,
            **self.cmd_config_dict,
        }
        self.external_config_dict.pop("per_model", None)

    def _check_keys(self, known, dataset):
        unknown = [
            (key, source)
            for source, settings in self._sources
            for key in settings
            if key not in known and key not in RUN_KEYS
        ]
        if not unknown:
            return
        everyone = known | RUN_KEYS
        tokenizer = self.external_config_dict.get("tokenizer")
        for other in self._other_models:
            everyone |= default_settings(registry.get_model(other), dataset, tokenizer)[1]
        wrong = [
            f"Unknown key '{key}' ({source})"
            + (
                ": it is computed, not set."
                if key in COMPUTED_KEYS
                else did_you_mean(key, everyone)
            )
            for key, source in unknown
            if key not in everyone
        ]
        if wrong:
            raise ConfigError("\n".join(wrong))

    def _get_final_config_dict(self):
        given = self.external_config_dict.get("eval_args")
        default = self.internal_config_dict.get("eval_args")
        if isinstance(given, dict) and isinstance(default, dict):
            self.external_config_dict["eval_args"] = {**default, **given}
        return super()._get_final_config_dict()

    def _set_default_parameters(self):
        config = self.final_config_dict
        self._set_negative_sampling()
        try:
            super()._set_default_parameters()
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            raise ConfigError(str(error)) from error
        if self.dataset == "ml-100k" and self.external_config_dict.get("data_path"):
            # RecBole always takes its own copy of this data set; the user named another one.
            config["data_path"] = os.path.join(self.external_config_dict["data_path"], self.dataset)
        self._check_data_path()
        self._check_valid_metric()
        self._check_beam_size()
        self._check_processes()
        if hasattr(self.model_class, "prepare_config"):
            self.model_class.prepare_config(config)
        if config.get("resume") and not os.path.isfile(config["resume"]):
            raise ConfigError(f"resume: there is no checkpoint '{config['resume']}'.")

    def _set_negative_sampling(self):
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
        generative = getattr(model, "generative", False) and pointwise
        if softmax_loss or counting or generative:
            config["train_neg_sample_args"] = None

    def _check_data_path(self):
        path = self.final_config_dict["data_path"]
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path.rstrip("/"))
        hint = ""
        if os.path.isfile(os.path.join(parent, f"{self.dataset}.inter")):
            hint = f" '{parent}' holds {self.dataset}.inter itself: give its parent folder."
        raise ConfigError(
            f"Data set '{self.dataset}': there is no folder '{os.path.abspath(path)}'. Set "
            f"--data_path to the folder that holds '{self.dataset}/{self.dataset}.inter'.{hint}"
        )

    def _check_valid_metric(self):
        config = self.final_config_dict
        name, at, k = str(config["valid_metric"]).partition("@")
        metrics = [metric.lower() for metric in config["metrics"]]
        if name.lower() not in metrics or (at and k not in map(str, config["topk"])):
            raise ConfigError(
                f"valid_metric '{config['valid_metric']}' is not measured: metrics is "
                f"{config['metrics']} and topk is {config['topk']}. Set valid_metric to one of "
                f"these, such as '{config['metrics'][0]}@{max(config['topk'])}'."
            )

    def _check_beam_size(self):
        config = self.final_config_dict
        if not getattr(self.model_class, "generative", False) or not config.get("beam_size"):
            return
        if type(config["beam_size"]) is not int:
            raise ConfigError(f"beam_size {config['beam_size']!r} must be an integer.")
        if config["beam_size"] < max(config["topk"]):
            raise ConfigError(
                f"beam_size {config['beam_size']} is smaller than the largest topk "
                f"{max(config['topk'])}: that many items could not be returned. Raise beam_size."
            )

    def _check_processes(self):
        config = self.final_config_dict
        if int(config.get("nproc") or 1) > 1 or int(config.get("world_size") or -1) > 1:
            raise ConfigError("nproc, world_size: training on several processes is not there yet.")


def default_settings(model_class, dataset, tokenizer=None):
    """The defaults of a model on a data set, and all keys that may be set for it.

    Args:
        model_class (type): the model.
        dataset (str): name of the data set.
        tokenizer (str | None): the tokenizer the user chose; None takes the default one.

    Returns:
        tuple[dict, set[str]]: default values, and the known keys.
    """
    recbole_dir = Path(recbole.__file__).parent / "properties"
    own_dir = properties_dir()
    model = model_class.__name__
    layers = [_optional(folder / "overall.yaml") for folder in (recbole_dir, own_dir)]
    layers += [_optional(folder / "model" / f"{model}.yaml") for folder in (recbole_dir, own_dir)]
    layers += [dict(getattr(model_class, "default_config", {}))]
    dataset_layers = [
        _optional(folder / "dataset" / f"{name}.yaml")
        for name in ("sample", dataset)
        for folder in (recbole_dir, own_dir)
    ]
    per_model = _merged(layer.pop("per_model", None) or {} for layer in dataset_layers)
    _check_per_model(per_model, f"properties/dataset/{dataset}.yaml")
    per_model = per_model.get(model) or {}
    if getattr(model_class, "generative", False):
        before = _merged([*layers, *dataset_layers, per_model])
        layers.append(_tokenizer_settings(tokenizer or before.get("tokenizer")))
    type_layer = _merged(
        _optional(recbole_dir / "quick_start_config" / name)
        for name in _type_files(model_class, dataset)
    )
    if model_class.type in _OWN_PROTOCOL:
        type_layer["repeatable"] = False  # RecBole's default, which our overall.yaml changes
    else:
        type_layer = {key: value for key, value in type_layer.items() if key not in _PROTOCOL}
    defaults = _merged([*layers, *dataset_layers, type_layer, per_model])
    known = set(defaults) | RECBOLE_KEYS | RUN_KEYS | keys_read_by(model_class)
    return defaults, known - COMPUTED_KEYS


def _tokenizer_settings(name):
    tokenizer_class = registry.get_tokenizer(name)
    if hasattr(tokenizer_class, "default_options"):  # the keys of its base classes as well
        return tokenizer_class.default_options()
    return dict(getattr(tokenizer_class, "default_config", {}))


def _type_files(model_class, dataset):
    """RecBole's files for this type of model (its `Config._load_internal_config_dict`)."""
    model, kind, on_ml_100k = model_class.__name__, model_class.type, dataset == "ml-100k"
    if kind in _OWN_PROTOCOL:
        return ["context-aware.yaml"] + ["context-aware_ml-100k.yaml"] * on_ml_100k
    if kind == ModelType.KNOWLEDGE:
        return ["knowledge_base.yaml"]
    if kind == ModelType.SEQUENTIAL:
        if model in ("DIN", "DIEN"):
            return ["sequential_DIN.yaml"] + ["sequential_DIN_on_ml-100k.yaml"] * on_ml_100k
        if model in ("GRU4RecKG", "KSR"):
            return ["sequential_embedding_model.yaml"]
        special = model in ("GRU4RecF", "SASRecF", "FDSA", "S3Rec") and on_ml_100k
        return ["sequential.yaml"] + ["special_sequential_on_ml-100k.yaml"] * special
    return []


def _check_per_model(sections, source):
    if sections is None:
        return
    if not isinstance(sections, dict) or not all(
        isinstance(section, (dict, type(None))) for section in sections.values()
    ):
        raise ConfigError(f"per_model ({source}) must map model names to settings.")


def _optional(path):
    return read_yaml(path) if path.is_file() else {}


def _merged(layers):
    merged = {}
    for layer in layers:
        merged.update(layer)
    return merged
