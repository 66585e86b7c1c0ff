"""Names of models, tokenizers and backbones, and the classes behind them.

A name maps to `"package.module:Class"`, imported when it is asked for, so a run imports the one
model it uses. RecBole's own models need no entry here. What belongs to a class, its trainer for
example, is said in the class, where subclasses inherit it.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_gr import compat
from recbole_gr.errors import ConfigError, nearest

if TYPE_CHECKING:
    from recbole.config import Config

MODELS: dict[str, str | type] = {
    "TIGER": "recbole_gr.model.tiger:TIGER",
    "PIT": "recbole_gr.model.pit.model:PIT",
    "R3VAE": "recbole_gr.model.r3vae:R3VAE",
    "IntRR": "recbole_gr.model.intrr.model:IntRR",
    "RPG": "recbole_gr.model.rpg:RPG",
    "DACT": "recbole_gr.continual.model:DACT",
    "Fusion": "recbole_gr.fusion.model:Fusion",
    "ContentKNN": "recbole_gr.model.content_knn:ContentKNN",
    "Pop": "recbole_gr.model.pop:Pop",  # RecBole's miscounts
}

TOKENIZERS: dict[str, str | type] = {
    "RKMeans": "recbole_gr.tokenizer.rkmeans:RKMeans",
    "I2IRKMeans": "recbole_gr.tokenizer.i2i_rkmeans:I2IRKMeans",
    "PRQKMeans": "recbole_gr.tokenizer.prqkmeans:PRQKMeans",
    "OPQ": "recbole_gr.tokenizer.opq:OPQ",
    "RQVAE": "recbole_gr.tokenizer.rqvae:RQVAE",
    "R3VAE": "recbole_gr.tokenizer.r3vae.model:R3VAE",
    "RVQ": "recbole_gr.tokenizer.rvq:RVQ",
    "DACT": "recbole_gr.tokenizer.collaborative.dact:DACT",
    "LETTER": "recbole_gr.tokenizer.collaborative.letter:LETTER",
}

BACKBONES: dict[str, str | type] = {
    "transformer": "recbole_gr.model.backbone:Transformer",
    "hstu": "recbole_gr.model.hstu:HSTU",
    "hstu_original": "recbole_gr.model.hstu:HSTUOriginal",
}

# What each of them is derived from, those of a user too.
BASES = {
    "tokenizer": "recbole_gr.tokenizer.base:Tokenizer",
    "backbone": "recbole_gr.model.backbone:Backbone",
}

# Trainers given to `register_model`, by the class name of the model.
TRAINERS: dict[str, str | type] = {}


def register_model(name: str, target: str | type, trainer: str | type | None = None) -> None:
    """Make a model known by name to the command line and the configuration.

    Args:
        name (str): the name for `--model=`.
        target (str | type): the class, or `"package.module:Class"` to import it on demand.
        trainer (str | type | None): likewise its trainer, if its attribute `trainer` names none.
    """
    MODELS[name] = target
    if trainer is not None:
        TRAINERS[_class_name(target)] = trainer


def register_tokenizer(name: str, target: str | type) -> None:
    """Make a tokenizer known by name; arguments as in `register_model`."""
    TOKENIZERS[name] = target


def register_backbone(name: str, target: str | type) -> None:
    """Make a causal encoder, a `recbole_gr.model.backbone.Backbone`, known by name."""
    BACKBONES[name] = target


def models_where(able: Callable[[Any], bool]) -> list[str]:
    """Names of the models here whose classes are `able`, which imports them all; for messages."""
    return [name for name in MODELS if able(get_model(name))]


def tokenizers_where(able: Callable[[Any], bool]) -> list[str]:
    """Names of the tokenizers whose classes are `able`, as `models_where`."""
    return [name for name in TOKENIZERS if able(get_tokenizer(name))]


def is_generative(model: Any) -> bool:
    """Whether a model, or its class, is a GenerativeRecommender; its attributes say the rest."""
    return bool(getattr(model, "generative", False))


def spans_periods(model: Any) -> bool:
    """Whether a model, or its class, stands for a run over all periods of the data (DACT)."""
    return is_generative(model) and bool(model.continual)


def get_model(name: str | type) -> Any:
    """The model class called `name`.

    Args:
        name (str | type): one of ours, one registered, one of RecBole's, `"package.module:Class"`,
            or a class.

    Returns:
        type: the class; a class that is given is returned.

    Raises:
        ConfigError: no such model; lists those that exist, the nearest first.
    """
    if not isinstance(name, str):
        return name
    if name in MODELS:
        return _load(MODELS[name], f"model '{name}'")
    if ":" in name:
        return _load(name, f"model '{name}'")
    if name in recbole_models():
        return _recbole_model(name)
    raise ConfigError(
        _unknown(
            "model",
            name,
            [("Models here", MODELS), ("RecBole's models", recbole_models() - set(MODELS))],
        )
        + " A class of your own: --model=package.module:Class."
    )


def is_named(key: str, name: object) -> bool:
    """Whether `name` stands for a class here: of ours, registered, or RecBole's. Imports nothing.

    Args:
        key (str): the setting that holds it: `tokenizer`, `backbone`, or one that names a model.
        name (object): as a file has it.
    """
    if not isinstance(name, str):
        return False
    table = {"tokenizer": TOKENIZERS, "backbone": BACKBONES}.get(key)
    return name in (MODELS.keys() | recbole_models() if table is None else table)


def _recbole_model(name: str) -> type:
    """Import one of RecBole's models, and nothing with it: SINE switches torch's anomaly detection
    on when it is imported, and every model after it in the process would train far more slowly."""
    import torch  # here alone: the help lists names without it
    from recbole.utils import get_model as recbole_get_model

    enabled, check_nan = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    try:
        return compat.without_pickles(recbole_get_model(name))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model '{name}': RecBole needs the package '{error.name}' for it; pip install "
            f"{error.name}"
        ) from error
    finally:
        torch.autograd.set_detect_anomaly(enabled, check_nan)


def get_tokenizer(name: str) -> Any:
    """The tokenizer class called `name` (ours, one registered, or `"package.module:Class"`).

    Raises:
        ConfigError: no such tokenizer; lists those that exist, the nearest first.
    """
    return _named("tokenizer", name, TOKENIZERS)


def get_backbone(name: str) -> Any:
    """The class of the causal backbone called `name` (ours, one registered, or
    `"package.module:Class"`).

    Raises:
        ConfigError: no such backbone; lists those that exist, the nearest first.
    """
    own = " A class of your own: --backbone=package.module:Class."
    return _named("backbone", name, BACKBONES, own)


def _named(kind: str, name: str, table: Mapping[str, str | type], hint: str = "") -> Any:
    target = table.get(name, name if ":" in str(name) else None)
    if target is not None:
        found, base = _load(target, f"{kind} '{name}'"), _load(BASES[kind], kind)
        if not issubclass(found, base):
            raise ConfigError(
                f"{kind} '{name}' is no {base.__name__}: derive the class from "
                f"recbole_gr.{base.__name__}, which says what one is."
            )
        return found
    raise ConfigError(_unknown(kind, name, [(f"{kind.capitalize()}s", table)]) + hint)


def on_whole_sequences(model_class: type, with_content: bool = False) -> Any:
    """A causal model of RecBole's as :mod:`recbole_gr.model.whole_sequences` trains it."""
    module = importlib.import_module("recbole_gr.model.whole_sequences")
    return module.on_whole_sequences(model_class, with_content)


def get_trainer(config: Config, model_class: type) -> Any:
    """The trainer class that a model names in its attribute `trainer`, or else RecBole's made safe.

    Args:
        config (Config): read for `MODEL_TYPE`.
        model_class (type): the class of the model to train.
    """
    from recbole.trainer.trainer import DecisionTreeTrainer
    from recbole.utils import get_trainer as recbole_get_trainer

    named = _named_trainer(model_class)
    if named is None:
        trainer = recbole_get_trainer(config["MODEL_TYPE"], recbole_name(model_class))
    else:
        trainer = _load(named, f"trainer of '{model_class.__name__}'")
    of_trees = issubclass(trainer, DecisionTreeTrainer)
    module, name = ("trees", "safe_tree_trainer") if of_trees else ("base", "safe_trainer")
    return getattr(importlib.import_module(f"recbole_gr.trainer.{module}"), name)(trainer)


def _named_trainer(model_class: type) -> str | type | None:
    """What the nearest class that names a trainer, or is registered with one, has for it."""
    for parent in model_class.__mro__:
        if parent.__name__ in TRAINERS:
            return TRAINERS[parent.__name__]
        if "trainer" in vars(parent):
            return vars(parent)["trainer"]
    return None


def recbole_name(model_class: type) -> str:
    """The name by which RecBole finds what belongs to a model: that of the nearest class of its
    own, or that of the class where none is."""
    own = (c.__name__ for c in model_class.__mro__ if c.__module__.startswith("recbole."))
    return next(own, model_class.__name__)


def recbole_models() -> frozenset[str]:
    """Names of RecBole's models, found without importing any of them."""
    return frozenset().union(*recbole_kinds().values())


@lru_cache(maxsize=1)
def recbole_kinds() -> dict[str, frozenset[str]]:
    """Names of RecBole's models by kind, `sequential` or `general`, without importing any of them.

    RecBole finds a model through its file, `SASRec` in `sasrec.py`, but has no list of names. The
    spelling comes from its property files, and from the source where a model has no property file.
    """
    import recbole.model
    import recbole.properties as properties  # a namespace package: it holds YAML only

    spelling = {}
    for folder in properties.__path__:
        for file in _stems(folder, "model"):
            if file != file.lower():  # those of xgboost.yaml and lightgbm.yaml are not the classes'
                spelling[file.lower()] = file
    kinds = {}
    for package in pkgutil.iter_modules(recbole.model.__path__):
        if not package.ispkg:
            continue
        folder = [f"{path}/{package.name}" for path in recbole.model.__path__]
        modules = pkgutil.iter_modules(folder)
        names = (spelling.get(module.name) or _class_in(module) for module in modules)
        kind = package.name.removesuffix("_recommender").replace("_", "-")
        kinds[kind] = frozenset(name for name in names if name is not None)
    return kinds


def _stems(folder: str, sub: str) -> list[str]:
    return [file.stem for file in Path(folder, sub).glob("*.yaml")]


def _class_in(module: pkgutil.ModuleInfo) -> str | None:
    """The class in a RecBole model file whose name is the file's name, or None."""
    spec = module.module_finder.find_spec(module.name, None)
    assert spec is not None and spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    classes = (node.name for node in tree.body if isinstance(node, ast.ClassDef))
    return next((name for name in classes if name.lower() == module.name), None)


def _class_name(target: str | type) -> str:
    return target.rpartition(":")[2] if isinstance(target, str) else target.__name__


def _load(target: str | type, what: str) -> Any:
    if not isinstance(target, str):
        return target
    module_name, _, class_name = target.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ConfigError(f"{what}: a class of your own is given as package.module:Class.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that exists but lacks one of its own dependencies keeps its own message.
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"{what}: there is no module '{module_name}' to import.") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise ConfigError(f"{what}: module '{module_name}' has no class '{class_name}'.")
    return found


def _unknown(kind: str, name: str, groups: Iterable[tuple[str, Collection[str]]]) -> str:
    lines = [f"Unknown {kind} '{name}'."]
    for title, known in groups:
        close = nearest(name, known, n=5)
        rest = sorted((set(known) - set(close)), key=str.lower)
        lines.append(f"{title}: {', '.join([*close, *rest])}.")
    return " ".join(lines)
