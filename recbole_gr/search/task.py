"""The common part of the trials of a search, from what a user gives."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from recbole_gr import registry
from recbole_gr.config.user_settings import UserSettings
from recbole_gr.data.sources import FILE_KEYS, UNHASHED_KEYS
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search.space import Parameter, Params

# What may differ when a search goes on: it does not change what a trial gives. Files are known by
# their hashes, wherever they lie.
FREE_KEYS = UNHASHED_KEYS | frozenset(FILE_KEYS)


@dataclass(frozen=True)
class Task:
    """What every trial has in common, as plain data that can be sent to another process.

    Attributes:
        model, dataset: names.
        files: of settings.
        settings: given beside them; parameters win over both.
        tokenizers: all that are tried. A key that only some of them know goes to these.
        checkpoints: what their names begin with.
    """

    model: str
    dataset: str
    files: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizers: tuple[str, ...] = ()
    checkpoints: str = "saved/search"

    def config(self, params: Params) -> Any:
        """The configuration of a trial; a ConfigError where it cannot be."""
        from recbole_gr.config import Config

        settings = {**self.settings, **params}
        others = [t for t in self.tokenizers if t != settings.get("tokenizer")]
        return Config(self.model, self.dataset, list(self.files), settings, other_tokenizers=others)

    def settings_that_count(self) -> dict[str, Any]:
        """All that are given, as plain data, but for `FREE_KEYS`."""
        from recbole_gr.storage.checkpoint import plain

        given = UserSettings.read(list(self.files), self.settings).settings
        return plain({key: value for key, value in given.items() if key not in FREE_KEYS})


def make_task(
    space: list[Parameter], model: str | None, dataset: str | None, given: UserSettings
) -> Task:
    """What all trials have in common.

    Raises:
        ConfigError: no model, several, or one that a search cannot score; or a parameter that has
            a value beside the space.
    """
    settings = given.direct
    model, dataset = model or given.get("model"), dataset or given.get("dataset")
    if not model or not dataset:
        missing, example = ("model", "TIGER") if not model else ("dataset", "ml-100k")
        raise ConfigError(f"No {missing} is given: add --{missing}={example}, for example.")
    if "," in model:
        raise ConfigError(f"--model={model}: a search is for one model; search for each alone")
    if registry.spans_periods(registry.get_model(model)):
        raise ConfigError(f"--model={model} runs over periods and has no single validation score")
    for key in ("model", "dataset"):
        settings.pop(key, None)
    for parameter in space:
        if parameter.name in settings or parameter.name in ("model", "dataset", "resume"):
            raise ConfigError(
                f"'{parameter.name}' is a parameter (line {parameter.line} of the file) and given "
                "or fixed beside it: leave one of both out"
            )
    names: Iterable[Any] = [given.get("tokenizer")] if given.get("tokenizer") else []
    for parameter in space:
        names = parameter.grid() if parameter.name == "tokenizer" else names
    return Task(model, str(dataset), tuple(given.files), settings, tuple(map(str, names)))


def check_task(task: Task, space: list[Parameter], params_file: str | os.PathLike) -> Any:
    """The configuration without parameters, once all keys are known to be some.

    Raises:
        ConfigError: settings that no trial could run with, or an unknown parameter (file, line).
    """
    from recbole_gr.config.defaults import default_settings
    from recbole_gr.config.known_keys import RUN_KEYS

    model_class = registry.get_model(task.model)
    known = set(RUN_KEYS)
    for tokenizer in task.tokenizers or (None,):
        known |= default_settings(model_class, task.dataset, tokenizer).known
    for parameter in space:
        if parameter.name not in known:
            raise ConfigError(
                f"{params_file}, line {parameter.line}: Unknown key '{parameter.name}'"
                f"{did_you_mean(parameter.name, known)}"
            )
    return task.config({"tokenizer": task.tokenizers[0]} if task.tokenizers else {})
