"""A study as its file has it: rows, data sets and seeds; checked before anything is run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from recbole_gr.config import Config
from recbole_gr.config.devices import visible_gpus_kept
from recbole_gr.config.known_keys import RUN_KEYS
from recbole_gr.config.user_settings import Source, UserSettings
from recbole_gr.continual.given import sid_files
from recbole_gr.data.sources import settings_digest, settings_that_count, sources_of
from recbole_gr.errors import ConfigError
from recbole_gr.fusion.members import require_same_data
from recbole_gr.search.space import Params, parameter
from recbole_gr.storage.checkpoint import plain
from recbole_gr.storage.hashes import digest_of, sha256

#: Counted up when the same settings and data give other results than before, whatever the model;
#: `results_version` of a model's class is its own.
RESULTS_VERSION = 1
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
        weights: the checkpoint whose weights it tests; None of a run that trains.
    """

    row: str
    model: str
    dataset: str
    seed: int
    settings: dict[str, Any] = field(compare=False)  # the key has them
    key: str
    trial: int | None = field(default=None, compare=False)
    inputs: dict[str, Any] = field(default_factory=dict, compare=False)
    weights: str | None = field(default=None, compare=False)

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
        fused: by the name of a row that fuses two others (:mod:`recbole_gr.fusion`) their names.
        weights_of: by the name of a row that tests the weights of another under other settings of
            decoding that row; its `rows` are complete.
        only_on: by the name of a row that runs on some of the data sets alone these.
        over_periods: whether its rows are runs over periods (:mod:`recbole_gr.study.periods`); the
            baseline is then one of their methods.
    """

    name: str
    rows: dict[str, dict[str, Any]]
    datasets: list[str]
    seeds: list[int]
    settings: dict[str, Any]
    baseline: str | None
    tune: dict[str, dict[str, str]]
    tune_on: list[str] = field(default_factory=list)
    fused: dict[str, list[str]] = field(default_factory=dict)
    weights_of: dict[str, str] = field(default_factory=dict)
    only_on: dict[str, list[str]] = field(default_factory=dict)
    over_periods: bool = False

    def cells(self, chosen: Mapping[Place, Params] | None = None) -> list[Cell]:
        """All runs that train, by data set and seed: one that is interrupted has compared all rows.

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

        made = [row for row in self.rows if row not in self.trained]
        self.of_each_place(self._require_members_alike, made)
        found = self.of_each_place(cells_of, self.trained)
        cells = [cell for cells in found.values() for cell in cells]
        places = {name: n for n, name in enumerate([*self.datasets, *self.seeds])}
        return sorted(cells, key=lambda cell: (places[cell.dataset], places[cell.seed]))

    def _require_members_alike(self, row: str, dataset: str) -> None:
        config = self._config(row, dataset, self.seeds[0])[0]
        for member in self.fused.get(row, ()):
            require_same_data(self._config(member, dataset, self.seeds[0])[0], config, member)

    def fusions(
        self, rows: Iterable[str], kept: Mapping[tuple[str, str, int], tuple[str, Path]]
    ) -> list[Cell]:
        """The runs of rows that fuse others, with each seed the others' runs of that seed; a row
        that is named twice gives its run of the next seed too, so each of its runs is in two
        fusions.

        Args:
            rows: of :attr:`fused`.
            kept: keys and checkpoints of runs by row, data set and seed; fusions that lack one are
                left out.
        """
        file_hash = cache(sha256)

        def cells_of(row: str, dataset: str) -> list[Cell]:
            cells = []
            first, second = self.fused[row]
            for number, seed in enumerate(self.seeds):
                other = self.seeds[(number + (first == second)) % len(self.seeds)]
                places = (first, dataset, seed), (second, dataset, other)
                if all(place in kept for place in places):
                    members = [kept[place] for place in places]
                    cells.append(self.cell(row, dataset, seed, {}, file_hash, None, members)[0])
            return cells

        found = self.of_each_place(cells_of, rows)
        return [cell for cells in found.values() for cell in cells]

    def tests(
        self,
        kept: Mapping[tuple[str, str, int], tuple[str, Path]],
        chosen: Mapping[Place, Params] | None = None,
    ) -> list[Cell]:
        """The runs of rows that test the weights of others.

        Args:
            kept: as of :meth:`fusions`; tests of runs that are not in it are left out.
            chosen: settings that the others have on data sets beside their own.
        """
        file_hash = cache(sha256)

        def cells_of(row: str, dataset: str) -> list[Cell]:
            source, cells = self.weights_of[row], []
            own, others = self.rows[row], self.rows[source]
            more = (chosen or {}).get((source, dataset), {})
            more = {k: value for k, value in more.items() if own.get(k) == others.get(k)}
            for seed in self.seeds:
                if weights := kept.get((source, dataset, seed)):
                    made = self.cell(row, dataset, seed, more, file_hash, weights=weights)
                    cells.append(made[0])
            return cells

        found = self.of_each_place(cells_of, self.weights_of)
        return [cell for cells in found.values() for cell in cells]

    @property
    def trained(self) -> list[str]:
        """The rows that neither fuse others nor test the weights of one."""
        return [row for row in self.rows if row not in {*self.fused, *self.weights_of}]

    def of_each_place(
        self,
        make: Callable[[str, str], Any],
        rows: Iterable[str],
        datasets: Sequence[str] | None = None,
    ) -> dict[Place, Any]:
        """What is made of these rows and every data set of theirs (or of these), data sets first.

        Raises:
            ConfigError: what `make` raises, with the row's name.
        """
        found = {}
        with visible_gpus_kept():
            for dataset, row in product(datasets or self.datasets, rows):
                if dataset not in self.only_on.get(row, self.datasets):
                    continue
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
        members: Sequence[tuple[str, Path]] = (),
        weights: tuple[str, Path] | None = None,
    ) -> tuple[Cell, Config]:
        """One run and its configuration.

        Args:
            row, dataset, seed: of the run.
            more: settings beside the row's own.
            file_hash: gives the sha256 of a file.
            trial: its number, if it is one.
            members: keys and checkpoints of the runs that it fuses. The keys stand for the bytes:
                training on another machine gives others, and a run that was published has none.
            weights: likewise of the run whose weights it tests.
        """
        config, settings = self._config(row, dataset, seed, more)
        files: dict[str, str | None] = {}
        for number, (member, _) in enumerate(members):
            files[f"members[{number}]"] = member
        if members:
            settings["members"] = [str(checkpoint) for _, checkpoint in members]
        if weights:
            files["weights"] = weights[0]
        for name, source in sources_of(config, file_hash).items():
            if source["sha256"] is None:
                raise ConfigError(f"{name}: there is no file '{source['path']}'")
            files[name] = source["sha256"]
        if self.over_periods:
            for name, path in _files_of_sids(config).items():
                if not os.path.isfile(path):
                    raise ConfigError(f"{name}: there is no file '{path}'")
                files[name] = file_hash(path)
        counted, version = settings_that_count(config), _version(config.model_class)
        if self.over_periods:
            own = Source(f"row {row}", settings, direct=True)
            recommender = self._made(config["continual_model"], dataset, own)
            counted["recommender"] = settings_that_count(recommender)
        key = digest_of(version, settings_digest(counted), files)
        inputs = {"version": version, "settings": counted, "files": files}
        model = self.rows[row]["model"]
        tested = str(weights[1]) if weights else None
        return Cell(row, model, dataset, seed, settings, key, trial, inputs, tested), config

    def _config(
        self, row: str, dataset: str, seed: int, more: Mapping[str, Any] | None = None
    ) -> tuple[Config, dict[str, Any]]:
        """The configuration of a run, and what of the settings is its own."""
        own = {**self.rows[row], **(more or {}), "seed": seed}
        model = own.pop("model")
        sources = (
            Source("settings of the study", self.settings, direct=True),
            Source(f"row {row}", own, direct=True),
        )
        config = self._made(model, dataset, *sources)
        known = {*config.external_config_dict, *RUN_KEYS}
        if self.over_periods:  # keys of the recommender are known to its configuration alone
            recommender = self._made(config["continual_model"], dataset, *sources)
            known |= {*recommender.external_config_dict}
        if wrong := sorted({*own} - known):  # other rows may know them, or the settings of all
            raise ConfigError(f"{', '.join(wrong)}: {model} has no such key; leave it out there")
        settings = {**self.settings, **own}
        return config, plain({key: value for key, value in settings.items() if key in known})

    def _made(self, model: str, dataset: str, *sources: Source) -> Config:
        models = [*self._all("model"), *self._all("continual_model")]
        return Config(
            model, dataset, given=UserSettings(sources),
            other_models=models, other_tokenizers=self._all("tokenizer"),
        )  # fmt: skip

    def _all(self, key: str) -> list[str]:
        """The values of a key in all rows, of which other rows' settings make sense."""
        values = [row.get(key) for row in (*self.rows.values(), self.settings)]
        return list(dict.fromkeys(str(value) for value in values if value))


def _files_of_sids(config: Config) -> dict[str, str]:
    """The tables that a run over periods is given, by a name that stays where they move."""
    return {
        f"continual_sid_files[{name}][{period}]": path
        for name, paths in sid_files(config).items()
        for period, path in enumerate(paths)
    }


def _version(model_class: type) -> int | list[int]:
    own = getattr(model_class, "results_version", 0)  # RecBole's models have none
    return [RESULTS_VERSION, own] if own else RESULTS_VERSION


def _first_value(key: str, text: str) -> Any:
    """A value of what a key is to be tuned over."""
    distribution = parameter(key, text).distribution
    return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low
