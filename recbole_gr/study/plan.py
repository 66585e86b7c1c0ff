"""A study as its file has it: rows, data sets and seeds; checked before anything is run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from recbole_gr import registry
from recbole_gr.config import Config
from recbole_gr.config.devices import visible_gpus_kept
from recbole_gr.config.known_keys import RUN_KEYS
from recbole_gr.config.parsing import file_list, parse_value, read_yaml
from recbole_gr.config.user_settings import Source, UserSettings
from recbole_gr.data.sources import settings_digest, settings_that_count, sources_of
from recbole_gr.errors import ConfigError, did_you_mean
from recbole_gr.search.space import Params, parameter
from recbole_gr.storage.checkpoint import plain
from recbole_gr.storage.hashes import digest_of, sha256

KEYS = ("name", "models", "datasets", "seeds", "settings", "baseline", "tune", "tune_on")
#: Counted up when the same settings and data give other results than before, whatever the model;
#: `results_version` of a model's class is its own.
RESULTS_VERSION = 1
_STUDY_KEYS = {
    "dataset": "write it under datasets",
    "seed": "write it under seeds",
    "resume": "the same command goes on",
    "nproc": "--jobs runs several side by side",
    "world_size": "--jobs runs several side by side",
}
#: What trials are judged by, which has to be the same for all that are compared.
_JUDGING_KEYS = (
    *("model", "dataset", "config_files", "valid_metric", "metrics", "topk", "eval_args"),
    *("repeatable", "valid_users", "tie_order"),
)
Place = tuple[str, str]  # a row and a data set


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        row: its name in the table.
        model, dataset, seed: of the run.
        settings: all that are given for it, as plain data.
        key: hash of all that its result depends on: settings that count, defaults among them, the
            bytes of its files, and `RESULTS_VERSION`.
        trial: its number among the trials of the row there; None of a run of the table. Equal
            settings are one run, whichever it is.
        inputs: what the key is the hash of: `version`, `settings` and `files`.
    """

    row: str
    model: str
    dataset: str
    seed: int
    settings: dict[str, Any] = field(compare=False)  # the key has them
    key: str
    trial: int | None = field(default=None, compare=False)
    inputs: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def folder(self) -> Path:
        """Where its result is kept, in the folder of its study. The name of the row is not in it:
        one that gets another name is not run again."""
        model = re.sub(r"\W+", "-", self.model)
        return Path(self.dataset, f"{model}-{self.seed}-{self.key[:16]}")

    def __str__(self) -> str:
        trial = "" if self.trial is None else f", trial {self.trial}"
        return f"{self.row} on {self.dataset}, seed {self.seed}{trial}"


@dataclass(frozen=True)
class Study:
    """What a file says.

    Attributes:
        name: of the study and its folder.
        rows: settings of each row by its name, `model` among them.
        datasets, seeds: every row runs on each of them with each of them.
        settings: of every row; the row's own win.
        baseline: the row that others are compared with; None for no comparison.
        tune: by row and key what to tune it over, in the words of a search's parameter file.
        tune_on: data sets on which rows are tuned; the others take what the first of them chose.
    """

    name: str
    rows: dict[str, dict[str, Any]]
    datasets: list[str]
    seeds: list[int]
    settings: dict[str, Any]
    baseline: str | None
    tune: dict[str, dict[str, str]]
    tune_on: list[str]

    def cells(self, chosen: Mapping[Place, Params] | None = None) -> list[Cell]:
        """All runs, data sets first, seeds last.

        Args:
            chosen: settings that rows have on data sets beside their own; those that it does not
                hold are left out. None: all of them as they are.

        Raises:
            ConfigError: settings or data of a run cannot be used; names the row.
        """
        file_hash = cache(sha256)  # the data of rows and seeds are the same, and may be large

        def cells_of(row: str, dataset: str) -> list[Cell]:
            if chosen is not None and (row, dataset) not in chosen:
                return []
            if space := self.tune.get(row):
                first = {key: _first_value(key, text) for key, text in space.items()}
                self._config(row, dataset, self.seeds[0], first)
            more = {} if chosen is None else chosen[row, dataset]
            return [self.cell(row, dataset, seed, more, file_hash)[0] for seed in self.seeds]

        found = self.of_each_place(cells_of)
        return [cell for cells in found.values() for cell in cells]

    def of_each_place(
        self, make: Callable[[str, str], Any], datasets: Sequence[str] | None = None
    ) -> dict[Place, Any]:
        """What is made of every row and data set (or these data sets), data sets first.

        Raises:
            ConfigError: what `make` raises, with the row's name.
        """
        found = {}
        with visible_gpus_kept():
            for dataset, row in product(datasets or self.datasets, self.rows):
                try:
                    found[row, dataset] = make(row, dataset)
                except ConfigError as error:
                    raise ConfigError(f"{row} on {dataset}: {error}") from error
        return found

    def cell(
        self,
        row: str,
        dataset: str,
        seed: int,
        more: Params,
        file_hash: Callable[[str], str | None],
        trial: int | None = None,
    ) -> tuple[Cell, Config]:
        """One run and its configuration.

        Args:
            row, dataset, seed: of the run.
            more: settings beside the row's own.
            file_hash: gives the sha256 of a file.
            trial: its number, if it is one.
        """
        config, settings = self._config(row, dataset, seed, more)
        files = {}
        for name, source in sources_of(config, file_hash).items():
            if source["sha256"] is None:
                raise ConfigError(f"{name}: there is no file '{source['path']}'")
            files[name] = source["sha256"]
        counted, version = settings_that_count(config), _version(config.model_class)
        key = digest_of(version, settings_digest(counted), files)
        inputs = {"version": version, "settings": counted, "files": files}
        model = self.rows[row]["model"]
        return Cell(row, model, dataset, seed, settings, key, trial, inputs), config

    def _config(
        self, row: str, dataset: str, seed: int, more: Mapping[str, Any] | None = None
    ) -> tuple[Config, dict[str, Any]]:
        """The configuration of a run, and what of the settings is its own."""
        own = {**self.rows[row], **(more or {}), "seed": seed}
        model = own.pop("model")
        if registry.spans_periods(registry.get_model(model)):
            raise ConfigError(f"{model} runs over periods; a study is of single runs")
        sources = (
            Source("settings of the study", self.settings, direct=True),
            Source(f"row {row}", own, direct=True),
        )
        config = Config(
            model, dataset, given=UserSettings(sources),
            other_models=self._all("model"), other_tokenizers=self._all("tokenizer"),
        )  # fmt: skip
        known = {*config.external_config_dict, *RUN_KEYS}
        if wrong := sorted({*own} - known):  # other rows may know them, or the settings of all
            raise ConfigError(f"{', '.join(wrong)}: {model} has no such key; leave it out there")
        settings = {**self.settings, **own}
        return config, plain({key: value for key, value in settings.items() if key in known})

    def _all(self, key: str) -> list[str]:
        """The values of a key in all rows, of which other rows' settings make sense."""
        values = [row.get(key) for row in (*self.rows.values(), self.settings)]
        return list(dict.fromkeys(str(value) for value in values if value))


def read_study(file: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> Study:
    """The study of a YAML file.

    Args:
        file: with `models` (settings by name of the row, or names of models), `datasets`, `seeds`
            and, where wanted, `name` (that of the file), `settings`, `baseline`, `tune` and
            `tune_on` (all data sets).
        settings: given beside the file; they win over its `settings`, not over a row's own.

    Raises:
        ConfigError: it cannot be read, or holds something else; names the key.
    """
    if not os.path.isfile(file):
        raise ConfigError(f"There is no study '{file}': give the path of its YAML file.")
    found = read_yaml(file)
    if unknown := [key for key in found if key not in KEYS]:
        raise ConfigError(f"{file}: Unknown key '{unknown[0]}'{did_you_mean(unknown[0], KEYS)}")
    try:
        rows = _rows(found.get("models"))
        datasets = _names("datasets", found.get("datasets"))
        study = Study(
            name=str(found.get("name") or Path(file).stem),
            rows=rows,
            datasets=datasets,
            seeds=_some("seeds", found.get("seeds"), (int,)),
            settings=_settings("settings", {**(found.get("settings") or {}), **(settings or {})}),
            baseline=found.get("baseline"),
            tune=_tune(found.get("tune") or {}, rows),
            tune_on=_names("tune_on", found.get("tune_on") or datasets),
        )
        if absent := [name for name in study.tune_on if name not in datasets]:
            near = did_you_mean(absent[0], datasets)
            raise ConfigError(f"tune_on: {absent[0]} is not among the datasets{near}")
        if not re.fullmatch(r"\w[\w.-]*", study.name):
            raise ConfigError(f"name: '{study.name}' must be letters, digits, '.', '-' and '_'")
        if study.baseline is not None and study.baseline not in rows:
            near = did_you_mean(str(study.baseline), rows)
            raise ConfigError(f"baseline: no row is called '{study.baseline}'{near}")
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return study


def _version(model_class: type) -> int | list[int]:
    own = getattr(model_class, "results_version", 0)  # RecBole's models have none
    return [RESULTS_VERSION, own] if own else RESULTS_VERSION


def _rows(models: Any) -> dict[str, dict[str, Any]]:
    if isinstance(models, list):
        models = {str(name): {} for name in models}
    if not isinstance(models, dict) or not models:
        raise ConfigError("models: write rows, such as 'models: {TIGER: {}, SASRec: {}}'")
    rows = {}
    for name, own in models.items():
        own = _settings(f"models, row '{name}'", own)
        rows[str(name)] = {**own, "model": str(own.get("model", name))}
    return rows


def _settings(where: str, given: Any) -> dict[str, Any]:
    """Settings in the form in which a run takes them, those of `config_files` among them."""
    if not isinstance(given or {}, dict):
        raise ConfigError(f"{where}: {given!r} is no mapping of keys to values")
    own = dict(given or {})
    if wrong := [key for key in _STUDY_KEYS if key in own]:
        raise ConfigError(f"{where}: {wrong[0]} is not set there; {_STUDY_KEYS[wrong[0]]}")
    if where == "settings" and "model" in own:
        raise ConfigError("settings: model is of a row; write it under models")
    read: dict[str, Any] = {}
    for path in file_list(own.pop("config_files", None)):
        read |= {key: v for key, v in read_yaml(path).items() if key not in ("model", "dataset")}
    return {key: parse_value(value, key) for key, value in {**read, **own}.items()}


def _names(key: str, values: Any) -> list[str]:
    return [str(name) for name in _some(key, values, (str, int))]


def _some(key: str, values: Any, kinds: tuple[type, ...]) -> list[Any]:
    values = values if isinstance(values, list) else [values]
    wrong = [v for v in values if not isinstance(v, kinds) or isinstance(v, bool)]
    if wrong or not values or len(set(values)) < len(values):
        example = "[2020, 2021, 2022]" if key == "seeds" else "[ml-100k]"
        raise ConfigError(f"{key}: {values} must be a list of different ones, such as {example}")
    return values


def _tune(tune: Any, rows: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    if not isinstance(tune, dict) or not all(isinstance(space, dict) for space in tune.values()):
        raise ConfigError("tune: write {row: {key: 'loguniform -8,-5'}}, for example")
    for row, space in tune.items():
        if row not in rows:
            raise ConfigError(f"tune: no row is called '{row}'{did_you_mean(str(row), rows)}")
        for key, text in space.items():
            try:
                parameter(str(key), str(text))
            except ConfigError as error:
                raise ConfigError(f"tune, row '{row}', {key}: {error}") from error
            if key in _STUDY_KEYS or key in _JUDGING_KEYS:
                raise ConfigError(f"tune, row '{row}': {key} is the same for all trials")
            if key in rows[row]:
                raise ConfigError(f"tune, row '{row}': {key} is fixed in the row; leave one out")
    return {str(row): {str(k): str(v) for k, v in space.items()} for row, space in tune.items()}


def _first_value(key: str, text: str) -> Any:
    """A value of what a key is to be tuned over."""
    distribution = parameter(key, text).distribution
    return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low
