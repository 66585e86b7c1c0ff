"""Commands to paste into a shell, which the last lines of other commands name."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_gr.config import Config

K = 5  # items of the example
_MAIN = sys.modules["__main__"]
_QUESTION, _CODE = ("user", "history", "k"), ("model", "tokenizer", "backbone")


def command(*program: str, **options: Any) -> str:
    """A command line to paste into a shell.

    Args:
        *program: after `python`.
        **options: `--key=value`; those that are None are left out.
    """
    given = [f"--{key}={value}" for key, value in options.items() if value is not None]
    return shlex.join(["python", *program, *given])


def run_command(*arguments: str, **options: Any) -> str:
    """The command of a run: `python run_recbole_gr.py`, or its module where that file is elsewhere.

    Args:
        *arguments: `--key=value`, as they were given to another command.
        **options: further ones.
    """
    here = Path("run_recbole_gr.py").is_file()
    program = ["run_recbole_gr.py"] if here else ["-m", "run_recbole_gr"]
    return command(*program, *arguments, **options)


def recommend_command(checkpoint: str | None, example: Mapping[str, Any] | None) -> str | None:
    """The command that recommends with a checkpoint; None where it cannot.

    Args:
        checkpoint: that a run kept.
        example: of :func:`example_of`.
    """
    if not checkpoint or not example:
        return None
    return command("-m", "recbole_gr.recommend", checkpoint=checkpoint, **example)


def example_in_file(
    example: Mapping[str, Any] | None, arguments: Iterable[str]
) -> dict[str, Any] | None:
    """The `example` of a result that stands in a file, which does not say what code to import.

    Args:
        example: as :func:`example_of` made it, or anything.
        arguments: of the command line; classes that they name, or their files, may be in it.

    Returns:
        dict: None where it names other code.
    """
    from recbole_gr.config.user_settings import UserSettings

    given = {str(value) for value in UserSettings.read(cmd_args=arguments).settings.values()}
    kept = {key: value for key, value in (example or {}).items() if key in (*_QUESTION, *_CODE)}
    return kept if all(kept[key] in given for key in _CODE if key in kept) else None


def example_of(config: Config, dataset: Any) -> dict[str, Any] | None:
    """What `recbole_gr.serving.recommend` may be asked of a model, by its arguments.

    Args:
        config: of the run.
        dataset: the split that was tested.

    Returns:
        dict: a user (or, of samples that are made already, a history) and `k`, and the classes of
        the user's own, which a checkpoint does not import; None where the model cannot be asked.
    """
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.utils import ModelType

    from recbole_gr.registry import is_generative

    model = config.model_class
    ranks = getattr(model, "full_sort_predict", None)
    if not is_generative(model) and ranks in (None, AbstractRecommender.full_sort_predict):
        return None
    if dataset.uid_field is None or dataset.iid_field is None:
        return None
    question: dict[str, Any] = {}
    if config["benchmark_filename"] is None:
        column, key = dataset.inter_feat[dataset.uid_field], "user"
        question[key] = _first_token(dataset, dataset.uid_field, column)
    elif config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        column, key = dataset.inter_feat[dataset.iid_field], "history"
        question[key] = _first_token(dataset, dataset.iid_field, column)
    if not any(question.values()):
        return None
    own = _own_classes(config)
    return None if own is None else {**question, "k": min(K, dataset.item_num - 1), **own}


def _first_token(dataset: Any, field: str, ids: Any) -> str | None:
    """A token of a column that stands for itself in `--user=`, as in a line of CSV."""
    tokens = (str(token) for token in dataset.id2token(field, ids[:1000].numpy()))
    plain = (t for t in tokens if t == t.strip() and t.isprintable())
    return next((t for t in plain if not {",", '"'} & set(t)), None)


def _own_classes(config: Config) -> dict[str, str] | None:
    """Classes by the key that names them that another process does not know by a name; None where
    it would not find one of them."""
    from recbole_gr.registry import BACKBONES, TOKENIZERS, is_generative

    own = {}
    if config.model_class.__module__.partition(".")[0] not in ("recbole", "recbole_gr"):
        own["model"] = _path_of(config.model_class)
    if is_generative(config.model_class):
        for key, table in (("tokenizer", TOKENIZERS), ("backbone", BACKBONES)):
            known = table.get(config[key], config[key])
            if isinstance(known, type):  # registered in this process
                own[key] = _path_of(known)
            elif known and ":" in known and not known.startswith("recbole_gr."):
                own[key] = known
    return own if all(own.values()) else None


def _path_of(known: type) -> str:
    """`package.module:Class`; empty where another process would not find the class there."""
    module = sys.modules.get(known.__module__)
    found = getattr(module, known.__qualname__, None) is known
    return f"{known.__module__}:{known.__qualname__}" if found and module is not _MAIN else ""


def training_command(arguments: Iterable[str], config: Config, **options: Any) -> str:
    """The run that trains with what another command has made.

    Args:
        arguments: those of the other command that are settings.
        config: made of them; keys that it does not know were for others.
        **options: what is to be used, such as `sid_file`.
    """
    own = {"model", "dataset", "data_path", "log_level", *options}
    kept = []
    for argument in arguments:
        key = argument[2:].partition("=")[0].replace(".", "_")
        if key not in own and (key in config or key == "config_files"):
            kept.append(argument)
    data = {"model": config["model"], "dataset": config["dataset"], **data_path_of(config)}
    return run_command(*kept, **{**data, **options})


def data_path_of(config: Config) -> dict[str, str]:
    """`data_path` as a setting, where it is none of a default."""
    given = config.external_config_dict.get("data_path")
    return {"data_path": str(given)} if given else {}


def command_after_conversion(inter: Path, columns: Iterable[str], has_items: bool) -> str:
    """The run that trains on a data set that was just written.

    Args:
        inter: its interactions, `<data_path>/<dataset>/<dataset>.inter`.
        columns: of that file.
        has_items: whether there is a file of items, whose texts make SIDs.
    """
    data = {"dataset": inter.stem, "data_path": str(inter.parent.parent)}
    if "timestamp" not in columns:  # nothing to tell sequences by
        return run_command(model="BPR", **data, eval_args="{'order': 'RO'}")
    return run_command(model="TIGER" if has_items else "SASRec", **data)


def export_command(checkpoint: str, *settings: str, **options: Any) -> str:
    """The command that exports a generative model, beside its checkpoint."""
    output = str(Path(checkpoint).with_suffix(".pt2"))
    files = {"checkpoint": checkpoint, "output": output}
    return command("-m", "recbole_gr.export", *settings, **files, **options)


def program_command(file: str, length: int, width: int | None) -> str:
    """The command that asks an exported program, with torch alone, what follows item 1.

    Args:
        file: the program.
        length: of its histories.
        width: of the items that may not be answered; None where it takes none.
    """
    excluded = f", torch.zeros(1, {width}, dtype=torch.long)" if width else ""
    history = f"torch.tensor([[1] + [0] * {length - 1}])"
    ask = f"({history}, torch.tensor([1]){excluded})"
    code = f"import torch; print(torch.export.load({json.dumps(file)}).module(){ask})"
    return shlex.join(["python", "-c", code])
